"""Probes on their way into a node's map."""

import asyncio

from prometheus_client import generate_latest

from agent import metrics
from agent.propagation import Propagations
from bpf.errors import MapFullError
from bpf.maps import DictMap, MapKind
from bpf.propagation import KEY_SIZE, VALUE_SIZE, pack_key, unpack
from clustermesh.model import Capabilities, ClusterConfig
from clustermesh.propagation import Probe, encode
from clustermesh.status import AgentStatus, Propagation, RemoteStatus
from kvstore.client import PutOp
from kvstore.memory import MemoryStore
from tests.support.clock import virtual

SECOND = 1_000_000_000


def table(room: int = 4) -> DictMap:
    return DictMap(
        "cm_propagation",
        key_size=KEY_SIZE,
        value_size=VALUE_SIZE,
        max_entries=room,
        kind=MapKind.HASH,
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100 * SECOND

    def __call__(self) -> int:
        return self.now


def probe(seq: int, sent: int) -> bytes:
    return encode(Probe("r", seq, sent))


async def test_the_time_ends_when_everything_told_before_is_in_the_maps():
    woken, clock, held = [], Clock(), table()
    found = Propagations(held, wake=lambda: woken.append(1), now=clock)
    found.heard("paris", 7, probe(1, clock.now))
    found.land()
    found.heard("paris", 7, probe(2, clock.now))
    clock.now += SECOND  # the writer is busy with other facts
    assert found.told("paris", None).samples == 0
    found.land()
    assert len(woken) == 2
    assert found.told("paris", None).p50 == 1.0
    assert unpack(pack_key(7), held.get(pack_key(7))) == (7, 100 * SECOND, 101 * SECOND, 2)


async def test_a_probe_that_comes_again_writes_nothing():
    woken = []
    found = Propagations(table(), wake=lambda: woken.append(1))
    for _ in range(3):
        found.heard("paris", 7, probe(1, 1))
        found.land()
    assert len(woken) == 1


async def test_what_is_no_probe_is_passed_over():
    found = Propagations(table(), wake=lambda: None)
    found.heard("paris", 7, b"{}")
    assert found.told("paris", None) is None


async def test_a_full_map_is_no_sample_and_no_failure():
    class Full(DictMap):
        def put_many(self, _):
            raise MapFullError("cm_propagation", 0, applied=0)

    full = Full("x", key_size=4, value_size=24, max_entries=1, kind=MapKind.HASH)
    found = Propagations(full, wake=lambda: None)
    found.heard("paris", 7, probe(1, 1))
    found.land()
    assert found.told("paris", None) is None


async def test_a_cluster_that_left_is_forgotten():
    held = table()
    found = Propagations(held, wake=lambda: None)
    found.heard("paris", 7, probe(1, 1))
    found.land()
    found.forget("paris", 7)
    assert found.told("paris", None) is None
    assert held.get(pack_key(7)) is None


async def test_probes_are_followed_where_the_cluster_is_read():
    store = MemoryStore()
    for layout, cached in (("state", False), ("cache", True)):
        found = Propagations(table(), wake=lambda: None)
        config = ClusterConfig(id=7, capabilities=Capabilities(cached=cached))
        (run,) = found.listen("paris", config)
        task = asyncio.create_task(run(store, None))
        place = f"cilium/{layout}/clustermesh-probe/v1/paris/latest"
        for seq in (1, 2):
            await store.commit([PutOp(place, probe(seq, 1))])
            await asyncio.sleep(0.1)
            found.land()
        assert found.told("paris", None).samples == 1
        task.cancel()


def test_what_is_measured_is_a_metric_and_what_is_not_known_is_none():
    peer = RemoteStatus(
        name="paris",
        rtt=0.004,
        propagation=Propagation(p50=0.002, p99=0.009, samples=9, missed=0, age=1.0),
    )
    status = AgentStatus(
        node="n1",
        cluster="rome",
        cluster_id=1,
        version="0",
        ready=True,
        started=0.0,
        own=RemoteStatus(name="rome"),
        remotes=(peer, RemoteStatus(name="oslo")),
    )
    text = generate_latest(metrics.registry(lambda: status)).decode()
    place = 'source_cluster="rome",source_node_name="n1",target_cluster="paris"'
    assert f'clustermesh_agent_propagation_seconds{{quantile="0.99",{place}}} 0.009' in text
    assert f"clustermesh_agent_remote_cluster_rtt_seconds{{{place}}} 0.004" in text
    measured = [line for line in text.splitlines() if "rtt_seconds{" in line or "loss" in line]
    assert not any("oslo" in line for line in measured)


@virtual
async def test_nothing_is_timed_or_written_soon_after_the_start():
    held = table()
    found = Propagations(held, wake=lambda: None, delay=15)
    for at in range(15):
        found.heard("paris", 7, probe(at + 1, SECOND))
        found.land()
        await asyncio.sleep(1)
    assert held.get(pack_key(7)) is None
    for seq in (16, 17):
        found.heard("paris", 7, probe(seq, SECOND))
        found.land()
    told = found.told("paris", None)
    assert told is not None
    assert told.samples == 1
