"""Operations are counted and timed by scope, also those that fail."""

import pytest
from prometheus_client import CollectorRegistry

from clustermesh.apiserver.measured import PREFIX, Measured, scope
from kvstore.client import DeleteOp, PutOp, Unavailable
from kvstore.memory import MemoryStore

COUNT = PREFIX + "kvstore_operations_duration_seconds_count"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("cilium/state/nodes/v1/paris/n1", "nodes/v1"),
        ("cilium/state/ip/v1/default/10.0.0.1", "ip/v1"),
        ("cilium/synced/paris/cilium/state/ip/v1", "paris/cilium"),
        ("cilium/cluster-config/paris", "cilium/clust"),
        ("cilium/.heartbeat", "cilium/.hear"),
        ("x", "x"),
    ],
)
def test_scopes_are_called_as_in_the_recordings(key: str, expected: str) -> None:
    assert scope(key) == expected


async def test_a_transaction_counts_once_for_each_scope_and_kind() -> None:
    registry, store = CollectorRegistry(), MemoryStore()
    measured = Measured(store, registry)
    nodes = [PutOp(f"cilium/state/nodes/v1/paris/{name}", b"{}") for name in "abc"]
    await measured.commit([*nodes, DeleteOp("cilium/state/ip/v1/default/10.0.0.1")])
    assert (await measured.get("cilium/state/nodes/v1/paris/a")) is not None
    found = {
        tuple(sample.labels[name] for name in ("scope", "kind", "action", "outcome")): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == COUNT
    }
    assert found == {
        ("nodes/v1", "set", "Update", "success"): 1,
        ("ip/v1", "delete", "Delete", "success"): 1,
        ("nodes/v1", "read", "Get", "success"): 1,
    }
    assert (measured.succeeded, measured.failed, measured.in_flight) == (2, 0, 0)


async def test_what_fails_is_an_error_of_its_scope() -> None:
    store = MemoryStore()
    measured = Measured(store, CollectorRegistry())
    store.outage()
    with pytest.raises(Unavailable):
        await measured.commit([PutOp("cilium/state/nodes/v1/paris/a", b"{}")])
    with pytest.raises(Unavailable):
        await measured.grant(900)
    assert measured.errors == {"nodes/v1": 1, "lease": 1}
    assert (measured.succeeded, measured.failed, measured.in_flight) == (0, 2, 0)
