"""What a node's maps say of an address."""

from ipaddress import ip_network

import pytest

from agent.explain.trace import admitted, looked
from bpf.datapath import Maps, maps_in_memory
from bpf.layout import IpcacheKey, IpcacheValue, NodeValue
from clustermesh.status import IdentityStatus
from clustermesh.tracing import Looked

LABELS = ("k8s:app=cart",)
NODE = bytes([192, 0, 2, 11])


def identities(number: int) -> IdentityStatus | None:
    return IdentityStatus(id=number, cluster="b", labels=LABELS) if number == 131073 else None


@pytest.fixture
def maps() -> Maps:
    made = maps_in_memory()
    entries = {"10.2.0.0/16": 2, "10.2.0.7/32": 131073, "fd00:2::7/128": 131073}
    made.ipcache.put_many([
        (IpcacheKey.of(ip_network(cidr)).pack(), IpcacheValue(identity, NODE).pack())
        for cidr, identity in entries.items()
    ])  # fmt: skip
    made.nodes.put_many([(NODE, NodeValue(2, 131072, 196607).pack())])
    return made


@pytest.mark.parametrize(
    ("address", "identity", "labels"),
    [("10.2.0.7", 131073, LABELS), ("fd00:2::7", 131073, LABELS), ("10.2.9.9", 2, ())],
)
def test_the_longest_prefix_counts(maps: Maps, address: str, identity: int, labels):
    found = looked(maps, address, identities)
    assert (found.identity, found.labels) == (identity, labels)
    assert found.tunnel_endpoint == "192.0.2.11"


def test_what_is_in_no_prefix_is_not_found(maps: Maps):
    assert looked(maps, "10.9.9.9", identities) == Looked(address="10.9.9.9")


def test_a_node_is_admitted_with_its_identities(maps: Maps):
    found = admitted(maps, "192.0.2.11")
    assert (found.found, found.cluster_id, found.low, found.high) == (True, 2, 131072, 196607)
    assert not admitted(maps, "192.0.2.12").found
    assert not admitted(maps, "fd00::1").found
