"""The life of one remote cluster, from its file to its drain."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.propagation import Propagations
from bpf.datapath import maps_in_memory
from clustermesh import keys, propagation
from clustermesh.keys import Kind, Layout
from clustermesh.model import Capabilities
from clustermesh.remotes.session import Waits
from kvstore.client import Denied, PutOp
from tests.support.agent_sink import OTHER_FORM
from tests.support.remote_world import (
    QUICK,
    World,
    file_of,
    list_again,
    living,
    node,
    service,
    settle,
    until,
)


async def test_what_a_peer_says_becomes_facts(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}
        assert world.sink.names("paris", Kind.NODES) == {"n1"}
        assert world.sink.names("paris", Kind.IPS) == {"10.7.0.9"}
        assert world.sink.names("paris", Kind.IDENTITIES) == {str((7 << 16) + 9)}
        status = remote.status(world.sink.count)
        assert (status.ready, status.connected, status.num_shared_services) == (True, True, 2)
        assert status.config.cluster_id == 7


async def test_nothing_is_believed_before_its_canary(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.describe()
    await peer.publish(service("paris", 7, "cart"))
    async with living(world.remote("paris")) as remote:
        waiting = "waiting for cilium/synced/paris/"
        await until(lambda: waiting in remote.status(world.sink.count).status)
        await settle()
        assert world.sink.facts == {}
        status = remote.status(world.sink.count)
        assert status.connected
        assert status.num_failures == 0
        await peer.canaries()
        await until(lambda: remote.progress.ready)
        await until(lambda: not remote.status(world.sink.count).status)


async def test_a_config_that_comes_late_is_noticed_soon(tmp_path: Path) -> None:
    world = World(tmp_path, waits=msgspec.structs.replace(QUICK, ceiling=3600.0))
    peer = world.peer("paris", 7)
    async with living(world.remote("paris")) as remote:
        await until(lambda: "has no cilium/cluster-config/paris" in remote.progress.sentence())
        assert "trying again in" in remote.progress.sentence()
        await peer.open_shop()
        await until(lambda: remote.progress.ready)


async def test_an_etcd_that_comes_back_is_asked_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, waits=msgspec.structs.replace(QUICK, handshake=0.01))
    peer = world.peer("paris", 7)
    await peer.open_shop()
    peer.store.outage()
    async with living(world.remote("paris")) as remote:
        await until(lambda: bool(remote.progress.sentence()))
        assert not remote.progress.connected
        peer.store.heal()
        await until(lambda: remote.progress.ready)


async def test_a_peer_without_canaries_is_read_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.describe(capabilities=Capabilities(max_connected_clusters=255))
    await peer.publish(service("paris", 7, "cart"))
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart"}


async def test_an_outage_keeps_facts_and_is_named_with_the_next_try(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        peer.store.outage()
        await until(lambda: not remote.progress.connected)
        status = remote.status(world.sink.count)
        assert "again in" in status.last_failure_reason
        assert status.num_failures == 1
        assert not status.ready
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}
        peer.store.heal()
        await peer.withdraw(service("paris", 7, "till"))
        await until(lambda: remote.progress.ready)
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/cart"})
    assert ("drain", "paris") not in world.sink.calls


async def test_what_went_during_a_compacted_outage_is_swept(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        peer.store.outage()
        await until(lambda: not remote.progress.connected)
        peer.store.heal()
        await peer.withdraw(service("paris", 7, "till"))
        peer.store.compact()
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/cart"})


async def test_removal_drains_even_a_dead_peer(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    remote = world.remote("paris")
    remote.configure(file_of("paris"))
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(remote.run())
        await until(lambda: remote.progress.ready)
        peer.store.outage()
        remote.configure(None)
        await life
    assert world.sink.facts == {}
    assert world.sink.calls[-1] == ("drain", "paris")
    world.ids.reserve("other", 7)  # the id is free again


async def test_stopping_drains_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
    assert ("drain", "paris") not in world.sink.calls
    assert world.sink.names("paris", Kind.NODES) == {"n1"}


async def test_a_cluster_put_back_before_it_was_gone_lives_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        remote.configure(None)
        remote.configure(file_of("paris", version="2"))
        await until(lambda: world.sink.calls.count(("unconfirmed", "paris")) == 1)
        await until(lambda: remote.progress.ready)
        assert ("drain", "paris") not in world.sink.calls


async def test_a_new_address_of_the_same_cluster_keeps_what_it_repeats(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    moved = world.peer("elsewhere", 7)
    moved.cluster = "paris"
    await moved.open_shop()
    await moved.withdraw(service("paris", 7, "till"))
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        remote.configure(file_of("paris", host="elsewhere"))
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/cart"})
        assert ("drain", "paris") not in world.sink.calls


async def test_another_id_drains_and_begins_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        peer.number = 8
        peer.store.replace_cluster_id(2)
        await peer.open_shop()
        await until(lambda: world.sink.ids == {"paris": 8})
        await until(lambda: remote.progress.ready)
        assert world.sink.calls.count(("drain", "paris")) == 1
        assert world.sink.names("paris", Kind.IPS) == {"10.8.0.9"}
    world.ids.reserve("other", 7)


async def test_an_id_that_somebody_has_is_refused_and_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 1).open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: bool(remote.progress.sentence()))
        assert "id 1 is that of this cluster itself" in remote.progress.sentence()
        assert world.sink.facts == {}


async def test_the_second_of_two_clusters_with_one_id_waits_for_the_first(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    await world.peer("lyon", 7).open_shop()
    lyon = world.remote("lyon")
    async with asyncio.TaskGroup() as tasks:
        paris = world.remote("paris")
        paris.configure(file_of("paris"))
        first = tasks.create_task(paris.run())
        await until(lambda: paris.progress.ready)
        async with living(lyon):
            await until(lambda: "is that of paris" in lyon.progress.sentence())
            paris.configure(None)
            await first
            await until(lambda: lyon.progress.ready)


async def test_a_bad_value_is_counted_and_the_old_one_stays_until_the_next_list(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    cart = keys.key_of("paris", service("paris", 7, "cart"))
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await peer.put(cart, b'{"cluster":"lyon"}')
        await until(lambda: remote.progress.refused == 1)
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}
        await list_again(peer, remote)
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/till"})


async def test_deletions_of_a_silent_control_plane_are_held(tmp_path: Path) -> None:
    silent = msgspec.structs.replace(QUICK, config=3600.0, heartbeat=0.05)
    world = World(tmp_path, waits=silent)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await until(lambda: bool(remote.status(world.sink.count).held))
        await peer.withdraw(service("paris", 7, "till"))
        await peer.publish(service("paris", 7, "desk"))
        await until(lambda: "shop/desk" in world.sink.names("paris", Kind.SERVICES))
        assert "shop/till" in world.sink.names("paris", Kind.SERVICES)
        await peer.beat("2")
        await until(lambda: "shop/till" not in world.sink.names("paris", Kind.SERVICES))


async def test_deletions_without_a_cluster_config_are_held(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await peer.delete(keys.cluster_config("paris"))
        await until(lambda: "no cluster-config" in remote.status(world.sink.count).held)
        await peer.withdraw(service("paris", 7, "till"))
        await settle()
        assert "shop/till" in world.sink.names("paris", Kind.SERVICES)
        await peer.describe()
        await until(lambda: "shop/till" not in world.sink.names("paris", Kind.SERVICES))


async def test_a_peer_that_refuses_us_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    peer.store.outage(Denied("role remote may not read cilium/cluster-config/paris"))
    async with living(world.remote("paris")) as remote:
        await until(lambda: "may not read" in remote.progress.sentence())


async def test_a_file_that_cannot_be_used_is_named_and_mended(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    good = file_of("paris")
    bad = type(good)("paris", Path("paris"), "bad", problem="paris: $.endpoints: expected a list")
    async with living(world.remote("paris"), bad) as remote:
        await until(lambda: remote.progress.sentence() == bad.problem)
        remote.configure(good)
        await until(lambda: remote.progress.ready)
        remote.configure(bad)
        await settle()
        assert remote.progress.ready
        assert "the earlier content stays in use" in remote.progress.sentence()


async def overdue_with(waits: Waits, tmp_path: Path, *, answers: bool) -> None:
    world = World(tmp_path, waits=waits)
    peer = world.peer("paris", 7)
    if answers:
        await peer.describe()  # but no canary ever comes
    remote = world.remote("paris")
    remote.configure(file_of("paris"))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(remote.run())
        async with asyncio.timeout(20):
            await remote.progress.settled.wait()
        task.cancel()
    assert ("overdue", "paris") in world.sink.calls


async def test_a_cluster_that_does_not_answer_is_overdue_soon(tmp_path: Path) -> None:
    waits = msgspec.structs.replace(QUICK, connect=0.01, sync=3600.0)
    await overdue_with(waits, tmp_path, answers=False)


async def test_a_cluster_that_does_not_finish_is_overdue_later(tmp_path: Path) -> None:
    waits = msgspec.structs.replace(QUICK, connect=0.1, sync=0.2)
    await overdue_with(waits, tmp_path, answers=True)


async def test_services_of_an_absent_cluster_are_let_go_if_so_configured(tmp_path: Path) -> None:
    world = World(tmp_path, waits=msgspec.structs.replace(QUICK, cache=0.05))
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        peer.store.outage()
        await until(lambda: not world.sink.names("paris", Kind.SERVICES))
        assert world.sink.names("paris", Kind.NODES) == {"n1"}
        assert world.sink.names("paris", Kind.IPS) == {"10.7.0.9"}
        assert remote.progress.revocations == 1
        peer.store.heal()
        await until(lambda: remote.progress.ready)
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}


async def test_a_bug_in_what_one_peer_triggers_stops_nobody(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    sink_apply = world.sink.apply

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    world.sink.apply = broken  # type: ignore[method-assign]  # the bug
    async with living(world.remote("paris")) as remote:
        await until(lambda: "internal error" in remote.progress.sentence())
        world.sink.apply = sink_apply  # type: ignore[method-assign]
        await until(lambda: remote.progress.ready)


async def test_the_double_failure_keeps_services_and_nodes(tmp_path: Path) -> None:
    """The peer's etcd dies, then the agent; the next agent begins with what was saved."""
    world = World(tmp_path)
    await world.peer("paris", 7).open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await world.checkpoint.flush()

    again = World(tmp_path)
    peer = again.peer("paris", 7)
    await peer.open_shop()
    await peer.withdraw(service("paris", 7, "till"))
    await peer.publish(node("paris", 7, "n2"))
    peer.store.outage()
    remote = again.remote("paris")
    remote.restore(again.checkpoint.load()["paris"])
    async with living(remote):
        await until(lambda: remote.progress.unconfirmed)
        await until(lambda: bool(remote.progress.sentence()))
        assert again.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}
        assert again.sink.names("paris", Kind.NODES) == {"n1"}
        assert again.sink.ids == {"paris": 7}
        assert remote.status(again.sink.count).unconfirmed

        peer.store.heal()
        await until(lambda: remote.progress.ready)
        assert again.sink.names("paris", Kind.NODES) == {"n1", "n2"}
        assert again.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}
        assert not remote.progress.confirmed
        assert remote.status(again.sink.count).unconfirmed
        await peer.beat("2")  # it lives: what it does not say any more is gone
        await until(lambda: again.sink.names("paris", Kind.SERVICES) == {"shop/cart"})
        await until(lambda: remote.progress.confirmed)
        assert not remote.status(again.sink.count).unconfirmed


async def test_after_a_restart_nobody_waits_for_a_peer_whose_beat_is_of_now(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await world.checkpoint.flush()
    await peer.withdraw(service("paris", 7, "till"))
    await peer.beat(datetime.now(UTC).isoformat())

    remote = world.remote("paris")
    remote.restore(world.checkpoint.load()["paris"])
    async with living(remote):
        await until(lambda: remote.progress.confirmed)
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart"}


async def test_after_a_restart_what_is_seen_to_go_is_gone_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await world.checkpoint.flush()

    remote = world.remote("paris")
    remote.restore(world.checkpoint.load()["paris"])
    async with living(remote):
        await until(lambda: remote.progress.ready)
        await peer.withdraw(service("paris", 7, "till"))
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/cart"})
        assert not remote.progress.confirmed


async def test_after_a_restart_leases_that_run_out_beside_an_old_beat_are_no_news(
    tmp_path: Path,
) -> None:
    """The peer's control plane died long ago; we restart in the very minute its leases end."""
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await world.checkpoint.flush()
    await peer.beat("2026-11-21T00:28:21Z")

    remote = world.remote("paris")
    remote.restore(world.checkpoint.load()["paris"])
    async with living(remote):
        await until(lambda: remote.progress.ready)
        assert "is silent" in remote.status(world.sink.count).held
        await peer.withdraw(service("paris", 7, "till"))
        await peer.publish(service("paris", 7, "desk"))
        await until(lambda: "shop/desk" in world.sink.names("paris", Kind.SERVICES))
        assert "shop/till" in world.sink.names("paris", Kind.SERVICES)
        await peer.beat(datetime.now(UTC).isoformat())
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/desk"})
        assert not remote.status(world.sink.count).held


async def test_a_new_session_does_not_believe_a_silent_control_plane(tmp_path: Path) -> None:
    world = World(tmp_path, waits=msgspec.structs.replace(QUICK, config=3600.0, heartbeat=0.05))
    peer = world.peer("paris", 7)
    await peer.open_shop()
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await until(lambda: bool(remote.status(world.sink.count).held))
        await peer.withdraw(service("paris", 7, "till"))  # one lease of several has ended
        await peer.publish(service("paris", 7, "desk"))
        remote.configure(file_of("paris", version="rotated"))
        await until(lambda: ("unconfirmed", "paris") in world.sink.calls)
        await settle()
        everything = {"shop/cart", "shop/till", "shop/desk"}
        assert world.sink.names("paris", Kind.SERVICES) == everything
        assert "is silent" in remote.status(world.sink.count).held
        await peer.beat("2")
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == everything - {"shop/till"})


async def test_services_stay_until_all_are_told_in_their_other_form(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    canary = keys.canary(Kind.ENDPOINT_SLICES, Layout.STATE, "paris")
    async with living(world.remote("paris")) as remote:
        await until(lambda: remote.progress.ready)
        await peer.describe(
            capabilities=Capabilities(
                synced_canaries=True,
                max_connected_clusters=255,
                endpoint_slices_export_mode="endpointslices-only",
            )
        )
        await until(lambda: canary in remote.status(world.sink.count).status)
        await settle()
        assert world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"}
        await world.checkpoint.flush()
        saved = world.checkpoint.load()["paris"].facts
        assert set(saved[Kind.SERVICES]) == {"shop/cart", "shop/till"}

        await peer.put(canary, b"now")
        await until(lambda: remote.progress.ready)
        assert world.sink.names("paris", Kind.SERVICES) == set()
        assert world.sink.names("paris", Kind.NODES) == {"n1"}
        await world.checkpoint.flush()
        assert Kind.SERVICES not in world.checkpoint.load()["paris"].facts

        await peer.describe()  # and back
        await until(lambda: world.sink.names("paris", Kind.SERVICES) == {"shop/cart", "shop/till"})
    emptied = [call for call in world.sink.calls if call[:2] == ("synced", "paris")]
    assert [kind for *_, kind in emptied if kind in OTHER_FORM] == [
        Kind.SERVICES,
        Kind.ENDPOINT_SLICES,
        Kind.SERVICES,
    ]


async def test_probes_are_heard_besides_and_nobody_waits_for_them(tmp_path: Path) -> None:
    world = World(tmp_path)
    peer = world.peer("paris", 7)
    await peer.open_shop()
    heard = Propagations(maps_in_memory().nodes, wake=lambda: None)
    seen: list[bytes] = []
    heard.heard = lambda _, __, value: seen.append(value)
    remote = world.remote("paris")
    remote._listen = heard.listen
    async with living(remote):
        await until(lambda: remote.progress.ready)
        assert seen == []
        await peer.store.commit([PutOp(propagation.key(Layout.STATE, "paris"), b"1")])
        await until(lambda: seen == [b"1"])
        peer.store.outage()
        await until(lambda: bool(remote.progress.sentence()))
        peer.store.heal()
        await until(lambda: remote.progress.ready)
        await peer.store.commit([PutOp(propagation.key(Layout.STATE, "paris"), b"2")])
        await until(lambda: seen[-1] == b"2")
        await until(lambda: remote.status(world.sink.count).round_trip is not None)
