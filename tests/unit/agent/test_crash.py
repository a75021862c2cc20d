"""The agent may die after any single write: the maps are sound then, and a restart mends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.datapath import Maps
from clustermesh.local import Frontend, LocalService
from clustermesh.model import ClusterService
from tests.support import lb
from tests.support.crash import Crash, Fuse, fused
from tests.support.mesh import OWN, Agent, backend, garbage, offer, service

VIPS = ("10.96.0.1", "10.96.0.2", "fd00::1")

addresses = st.lists(
    st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd01::1"]), unique=True, max_size=3
)
states = st.sampled_from(["ready", "ready", "terminating", "starting"])


@st.composite
def local_services(draw: st.DrawFn, name: str) -> LocalService:
    vips = draw(st.lists(st.sampled_from(VIPS), unique=True, max_size=2))
    return service(
        *(backend(address, state=draw(states)) for address in draw(addresses)),
        name=name,
        frontends=tuple(Frontend(vip, 80, "http", "TCP") for vip in vips),
        session_affinity_seconds=draw(st.sampled_from([0, 0, 60])),
        affinity=draw(st.sampled_from(["none", "local", "remote"])),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[LocalService], list[ClusterService]]:
    """Up to two services, and what cluster-b offers under their names."""
    names = draw(st.lists(st.sampled_from(["web", "api"]), unique=True))
    local = [draw(local_services(name)) for name in names]
    remote = [
        offer("cluster-b", *draw(st.lists(st.sampled_from(["10.2.0.1", "10.1.0.1", "fd02::1"]),
                                          unique=True)), name=name)
        for name in names
    ]  # fmt: skip
    return local, remote


def run(maps: Maps, world: tuple[list[LocalService], list[ClusterService]]) -> Agent:
    """An agent's whole life: it starts, hears everything, writes it."""
    local, remote = world
    agent = Agent(maps).expect("cluster-b")
    agent.local(*local).remote(*remote).synced(OWN, "cluster-b")
    return agent.settle()


def answers(maps: Maps) -> dict[str, object]:
    return {vip: (lb.where(maps, vip, 80)) for vip in VIPS}


@given(worlds(), worlds())
def test_a_crash_after_any_step_is_harmless(
    before: tuple[list[LocalService], list[ClusterService]],
    after: tuple[list[LocalService], list[ClusterService]],
) -> None:
    reference = answers(run(Agent().maps, after).maps)
    steps = 0
    while True:
        maps = Agent().maps
        run(maps, before)
        old = answers(maps)
        finished = True
        try:
            run(fused(maps, Fuse(steps)), after)
        except Crash:
            finished = False
        assert lb.broken_references(maps) == []
        for vip, there in answers(maps).items():
            assert (
                there == old[vip] or there == reference[vip] or _between(there, old, reference, vip)
            )
        run(maps, after)
        assert lb.broken_references(maps) == []
        assert answers(maps) == reference
        assert garbage(maps) == []
        if finished:
            return
        steps += 1


def _between(there: object, old: dict[str, object], new: dict[str, object], vip: str) -> bool:
    """While the slots of a new frontend decide, only backends of before or after are possible."""
    known = (old[vip] or set()) | (new[vip] or set())  # type: ignore[operator]
    return isinstance(there, set) and there <= known


def test_garbage_is_seen() -> None:
    maps = run(Agent().maps, ([service("10.1.0.1")], [])).maps
    maps.backends4.put_many([(b"\x63\0\0\0", bytes(12))])
    assert garbage(maps) == ["backend 63000000"]


@pytest.mark.parametrize("map_name", ["services4", "backends4", "reverse_nat4"])
def test_a_restart_mends_what_somebody_removed(map_name: str) -> None:
    world = ([service("10.1.0.1", "10.1.0.2")], [])
    maps = run(Agent().maps, world).maps
    target = getattr(maps, map_name)
    target.drop_many([next(iter(target.items()))[0]])
    run(maps, world)
    assert lb.where(maps, VIPS[0], 80) == {"10.1.0.1:8080", "10.1.0.2:8080"}
    assert lb.broken_references(maps) == []
