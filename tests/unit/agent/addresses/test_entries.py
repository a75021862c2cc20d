"""What each fact asks of the maps, byte for byte (contract datapath 1.17)."""

from struct import pack

import pytest

from agent.addresses.entries import BadEntry, NodeInfo, ip_key, ip_value, node_entries, range_of
from agent.facts import Me
from clustermesh.addresses import packed
from clustermesh.model import IPEntry, NodeAddress
from tests.support.mesh import node

ME = Me("cluster-a", 1, "a1", "192.168.0.1")
Z12 = bytes(12)


def key4(address: str, ones: int = 32) -> bytes:
    return pack("<IHBB", 32 + ones, 0, 0, 1) + packed(address) + Z12


def value(
    identity: int,
    endpoint: str = "0.0.0.0",  # noqa: S104 - no socket
    key: int = 0,
    flags: int = 0,
) -> bytes:
    return pack("<I4sHBB", identity, packed(endpoint), 0, key, flags)


KEYS = [
    ("10.7.0.44", key4("10.7.0.44")),
    ("10.7.0.0/24", key4("10.7.0.0", 24)),
    ("0.0.0.0/0", key4("0.0.0.0", 0)),  # noqa: S104 - no socket
    ("fd00::1", pack("<IHBB", 160, 0, 0, 2) + packed("fd00::1")),
    ("fd00::/64", pack("<IHBB", 96, 0, 0, 2) + packed("fd00::")),
]


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_keys(name: str, key: bytes) -> None:
    assert ip_key(name) == key


@pytest.mark.parametrize("name", ["", "10.7.0", "10.7.0.0/33", "cart"])
def test_what_is_no_address_has_no_key(name: str) -> None:
    with pytest.raises(BadEntry, match="neither an address nor a prefix"):
        ip_key(name)


VALUES = [
    (IPEntry(ip="10.7.0.44", host_ip="192.168.0.2", id=470123), value(470123, "192.168.0.2")),
    (IPEntry(ip="10.7.0.44", host_ip="192.168.0.1", id=470123), value(470123)),
    (IPEntry(ip="10.7.0.44", host_ip="", id=2), value(2)),
    (IPEntry(ip="10.7.0.44", host_ip="192.168.0.2", id=9, key=255), value(9, "192.168.0.2", 255)),
]


@pytest.mark.parametrize(("entry", "expected"), VALUES)
def test_values(entry: IPEntry, expected: bytes) -> None:
    assert ip_value(entry, packed(ME.node_ip)) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (VALUES[0][0], value(470123, "192.168.0.2", flags=1)),
        (VALUES[1][0], value(470123)),
        (IPEntry(ip="fd00::1", host_ip="192.168.0.2", id=9), value(9, "192.168.0.2")),
    ],
)
def test_what_is_reached_without_the_tunnel_says_so(entry: IPEntry, expected: bytes) -> None:
    assert ip_value(entry, packed(ME.node_ip), native=True) == expected


def test_a_node_reached_without_the_tunnel_keeps_it_for_ipv6() -> None:
    far = NodeInfo.of(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.1"))
    far = far._replace(cidrs=(*far.cidrs, "fd00:2::/64"))
    native = ME._replace(native=frozenset({"cluster-b"}))
    before, after = node_entries(far, ME), node_entries(far, native)
    changed = {place for place in before if before[place] != after[place]}
    assert changed == {("ipcache", ip_key("10.2.0.0/24")), ("ipcache", ip_key("10.2.0.1"))}
    assert all(after[place] == before[place][:-1] + b"\1" for place in changed)


def entries(*args: object, **more: object) -> dict[tuple[str, bytes], bytes]:
    return node_entries(NodeInfo.of(node(*args, **more)), ME)  # type: ignore[arg-type]


def test_a_remote_node_brings_its_addresses_its_range_and_our_trust() -> None:
    found = entries("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254")
    assert found == {
        ("ipcache", key4("192.168.0.2")): value(6),
        ("ipcache", key4("10.2.0.254")): value(6, "192.168.0.2"),
        ("ipcache", key4("10.2.0.0", 24)): value(2, "192.168.0.2"),
        ("tunnel", packed("10.2.0.0") + Z12 + pack("<BBH", 1, 0, 0)): (
            packed("192.168.0.2") + Z12 + pack("<BBH", 1, 0, 0)
        ),
        ("nodes", packed("192.168.0.2")): pack("<IIII", 2, 2 << 16, (3 << 16) - 1, 0),
    }


def test_this_node_is_the_host_and_has_no_tunnel() -> None:
    found = entries("cluster-a", "a1", "192.168.0.1", "10.1.0.0/24", "10.1.0.254")
    assert found == {
        ("ipcache", key4("192.168.0.1")): value(1),
        ("ipcache", key4("10.1.0.254")): value(1),
    }


def test_another_node_of_the_own_cluster_is_a_remote_node() -> None:
    found = entries("cluster-a", "a2", "192.168.0.3", "10.1.1.0/24")
    assert found["ipcache", key4("10.1.1.0", 24)] == value(2, "192.168.0.3")
    assert ("nodes", packed("192.168.0.3")) in found


def test_health_and_ingress_addresses_have_their_identities() -> None:
    from msgspec.structs import replace

    fact = replace(
        node("cluster-b", "b1", "192.168.0.2"),
        ipv4_health_ip="10.2.0.9",
        ipv4_ingress_ip="10.2.0.8",
    )
    found = node_entries(NodeInfo.of(fact), ME)
    assert found["ipcache", key4("10.2.0.9")] == value(4, "192.168.0.2")
    assert found["ipcache", key4("10.2.0.8")] == value(8, "192.168.0.2")


def test_every_underlay_address_may_send_to_us() -> None:
    found = entries(
        "cluster-b", "b1", "192.168.0.2", "", "", NodeAddress("ExternalIP", "203.0.113.9"),
        NodeAddress("Hostname", "b1.example"), NodeAddress("InternalIP", "fd01::2"),
    )  # fmt: skip
    trusted = {key for name, key in found if name == "nodes"}
    assert trusted == {packed("192.168.0.2"), packed("203.0.113.9")}


def test_a_mesh_of_511_trusts_15_bits() -> None:
    wide = ME._replace(max_clusters=511)
    fact = NodeInfo.of(node("cluster-b", "b1", "192.168.0.2"))._replace(cluster_id=300)
    found = node_entries(fact, wide)["nodes", packed("192.168.0.2")]
    assert found == pack("<IIII", 300, 300 << 15, (301 << 15) - 1, 0)


def test_ranges_as_numbers() -> None:
    assert range_of("10.0.0.0/8") == (4, 10 << 24, (11 << 24) - 1)
    assert range_of("10.0.0.7/32") == (4, (10 << 24) + 7, (10 << 24) + 7)
    assert range_of("fd00::/127") == (6, 0xFD << 120, (0xFD << 120) + 1)
