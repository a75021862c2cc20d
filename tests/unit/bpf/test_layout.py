"""The bytes of every entry: against contract datapath 1.17, and against the C structs."""

from dataclasses import fields, replace
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET6, inet_aton, inet_pton
from struct import pack

import pytest

from bpf.btf import Btf
from bpf.layout import (
    IpcacheKey,
    IpcacheValue,
    MetricsKey,
    MetricsValue,
    NodeValue,
    StateValue,
    TunnelKey,
    TunnelValue,
)
from bpf.layout_ct import LIFETIME, OUT, SERVICE, ConnectionBits, ConnectionKey, ConnectionValue
from bpf.layout_events import MonitorValue
from bpf.layout_lb import (
    AffinityKey,
    AffinityMatchKey,
    AffinityValue,
    BackendValue,
    ReverseNatValue,
    ReverseSocketKey,
    ReverseSocketValue,
    ServiceKey,
    ServiceValue,
    SourceRangeKey,
    pack_backend_id,
    pack_rev_nat,
    pack_table,
    unpack_backend_id,
    unpack_rev_nat,
    unpack_table,
)
from bpf.loader import image

IP4 = inet_aton("10.2.0.5")
IP6 = inet_pton(AF_INET6, "fd00:1::5")
NODE = inet_aton("192.168.1.3")
PAD = bytes(12)

VECTORS = [
    (TunnelKey(IP4, 3), IP4 + PAD + pack("<BBH", 1, 0, 3)),
    (TunnelKey(IP6, 3), IP6 + pack("<BBH", 2, 0, 3)),
    (TunnelValue(NODE, 255), NODE + PAD + pack("<BBH", 1, 255, 0)),
    (IpcacheKey(IP4, 32, 3), pack("<IHBB", 64, 3, 0, 1) + IP4 + PAD),
    (IpcacheKey(IP6, 128), pack("<IHBB", 160, 0, 0, 2) + IP6),
    (IpcacheValue(196615, NODE, 255, 1), pack("<I4sHBB", 196615, NODE, 0, 255, 1)),
    (
        ServiceKey(IP4, 80, 6, slot=2, scope=1),
        IP4 + pack(">H", 80) + pack("<HBBxx", 2, 6, 1),
    ),
    (ServiceKey(IP6, 80, 17, slot=2), IP6 + pack(">H", 80) + pack("<HBBxx", 2, 17, 0)),
    (
        ServiceValue(10800, 2, 7, 0x2050, 3),
        pack("<IH", 10800, 2) + pack(">H", 7) + pack("<BBH", 0x50, 0x20, 3),
    ),
    (
        BackendValue(IP4, 8080, 6, 2, 3, 1),
        IP4 + pack(">H", 8080) + pack("<BBHBB", 6, 2, 3, 1, 0),
    ),
    (BackendValue(IP6, 8080, 6), IP6 + pack(">H", 8080) + pack("<BBHBB", 6, 0, 0, 0, 0)),
    (ReverseNatValue(IP4, 80), IP4 + pack(">H", 80)),
    (ReverseNatValue(IP6, 80), IP6 + pack(">H", 80)),
    (AffinityMatchKey(9, 7), pack("<I", 9) + pack(">HH", 7, 0)),
    (SourceRangeKey(7, IP4, 24), pack("<I", 56) + pack(">HH", 7, 0) + IP4),
    (SourceRangeKey(7, IP6, 64), pack("<I", 96) + pack(">HH", 7, 0) + IP6),
    (AffinityKey(bytes(range(8)), 7, True), bytes(range(8)) + pack(">H", 7) + b"\1" + bytes(5)),
    (AffinityKey(IP6, 7, False), IP6 + pack(">H", 7) + bytes(6)),
    (AffinityValue(5000, 9), pack("<QII", 5000, 9, 0)),
    (ReverseSocketKey(77, IP4, 80), pack("<Q", 77) + IP4 + pack(">H", 80) + bytes(2)),
    (ReverseSocketKey(77, IP6, 80), pack("<Q", 77) + IP6 + pack(">H", 80) + bytes(6)),
    (ReverseSocketValue(IP4, 80, 7), IP4 + pack(">HH", 80, 7)),
    (ReverseSocketValue(IP6, 80, 7), IP6 + pack(">HH", 80, 7)),
    (MetricsKey(160, 2, 1, 3), pack("<BBHBxxx", 160, 2, 1, 3)),
    (MetricsValue(5, 300), pack("<QQ", 5, 300)),
    (NodeValue(3, 3 << 16, 0x3FFFF), pack("<IIII", 3, 0x30000, 0x3FFFF, 0)),
    (MonitorValue(1, 2, 3, 4, 5, 2), pack("<QQQQQII", 1, 2, 3, 4, 5, 2, 0)),
    (StateValue(1, 2, 3, 1021, 1410), pack("<QQIIII", 1, 2, 3, 1021, 1410, 0)),
]
CONNECTIONS = [
    (ConnectionKey(IP4, NODE, 40000, 80, 6, SERVICE), IP4 + NODE + pack(">HHBB", 40000, 80, 6, 4)),
    (ConnectionKey(IP6, IP6, 80, 40000, 17, OUT), IP6 + IP6 + pack(">HHBB", 80, 40000, 17, 0)),
    (
        ConnectionValue(
            pack("<QQ", 0, 9), 3, 180, 5000, ConnectionBits.SEEN_NON_SYN, 7, 2, 0x12, 0x10, 1, 8, 9
        ),
        pack("<QQQQIH", 0, 9, 3, 180, 5000, 0x10)
        + pack(">H", 7)
        + pack("<HBBIII", 2, 0x12, 0x10, 1, 8, 9),
    ),
]
"""Of the objects that balance packets only."""
VECTORS += CONNECTIONS
NAMES = [f"{type(entry).__name__}-{len(raw)}" for entry, raw in VECTORS]


@pytest.mark.parametrize(("entry", "raw"), VECTORS, ids=NAMES)
def test_an_entry_has_the_bytes_of_the_contract(entry, raw):
    assert entry.pack() == raw


@pytest.mark.parametrize(("entry", "raw"), VECTORS, ids=NAMES)
def test_an_entry_is_read_back(entry, raw):
    assert type(entry).unpack(raw) == entry


def c_name(entry, raw: bytes) -> str:
    names = getattr(type(entry), "C_NAMES", None)
    if names is None:
        return type(entry).C_NAME
    return names[0] if len(raw) == type(entry).FORMATS[0].size else names[1]


OTHER_NAMES = {
    "backend_or_timeout": "backend_id",
    "prefix": "prefixlen",
    "size": "bytes",
    "named": "frontend",
}
"""Where the Python word is plainer than the C one."""


def flipped(value):
    """Another value of the same kind and size, different in every byte where that is possible."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, bytes):
        return bytes(byte ^ 0xFF for byte in value)
    return value ^ 1


@pytest.fixture(scope="module")
def structs() -> list[Btf]:
    return [Btf(image(name)) for name in ("maps", "overlay", "sock_lb", "lb_maps", "lb")]


@pytest.mark.parametrize(("entry", "raw"), VECTORS, ids=NAMES)
def test_every_object_has_the_struct_with_this_size_and_these_offsets(structs, entry, raw):
    name = c_name(entry, raw)
    for btf in structs[-2:] if (entry, raw) in CONNECTIONS else structs:
        assert btf.size(name) == len(raw)
        members = btf.members(name)
        for field in fields(entry):
            member = members[OTHER_NAMES.get(field.name, field.name)]
            changed = replace(entry, **{field.name: flipped(getattr(entry, field.name))}).pack()
            places = {at for at, (a, b) in enumerate(zip(raw, changed, strict=True)) if a != b}
            assert places, f"{field.name} is not written"
            assert places <= set(range(member.offset, member.offset + member.size)), field.name


def test_no_two_members_of_a_struct_overlap_but_in_unions(structs):
    members = sorted(structs[0].members("lb4_backend").values(), key=lambda member: member.offset)
    ends = [member.offset + member.size for member in members]
    assert [member.offset for member in members] == [0, *ends[:-1]]
    assert ends[-1] == structs[0].size("lb4_backend")


def test_numbers_used_as_keys_have_the_right_byte_order():
    assert pack_backend_id(9) == pack("<I", 9)
    assert unpack_backend_id(pack_backend_id(70_000)) == 70_000
    assert pack_rev_nat(7) == pack(">H", 7)
    assert unpack_rev_nat(pack_rev_nat(65_534)) == 65_534


def test_a_lifetime_is_read_without_the_rest_of_its_entry():
    entry, raw = CONNECTIONS[2]
    assert LIFETIME.unpack(raw) == (entry.lifetime,)


def test_a_selection_table_is_a_row_of_ids_in_host_order():
    assert pack_table([1, 2, 70_000]) == pack("<III", 1, 2, 70_000)
    assert unpack_table(pack_table([1, 2, 70_000])) == (1, 2, 70_000)


def test_an_ipcache_key_of_a_network_has_no_host_bits():
    assert IpcacheKey.of(IPv4Network("10.2.0.0/16")) == IpcacheKey(inet_aton("10.2.0.0"), 16)
    assert IpcacheKey.of(IPv6Network("fd00::/8"), 3).pack()[:8] == pack("<IHBB", 40, 3, 0, 2)


@pytest.mark.parametrize(
    ("cluster", "bits", "low", "high"),
    [(3, 16, 0x30000, 0x3FFFF), (0, 16, 256, 65535), (511, 15, 511 << 15, (512 << 15) - 1)],
)
def test_a_node_may_use_the_identities_of_its_cluster(cluster, bits, low, high):
    value = NodeValue.of_cluster(cluster, identity_bits=bits)
    assert (value.identity_low, value.identity_high) == (low, high)


def test_an_address_of_no_known_length_is_refused():
    with pytest.raises(ValueError, match="4 or 16 bytes, got 5"):
        TunnelKey(bytes(5)).pack()
