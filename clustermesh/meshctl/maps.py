"""What the nodes' maps hold, in the words and columns of cilium-dbg (contract datapath 7).

Each function takes raw entries, as the kernel gives them, and gives pairs of cells, sorted so that
two lists can be compared. [pure]
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import TypeVar

from bpf.counters import LINES, REASONS, File, Line, Reason
from bpf.layout import IpcacheKey, IpcacheValue, MetricsKey, NodeValue, TunnelKey, TunnelValue
from bpf.layout_lb import (
    BackendValue,
    ReverseNatValue,
    ServiceFlag,
    ServiceKey,
    ServiceValue,
    SourceRangeKey,
    unpack_backend_id,
    unpack_rev_nat,
    unpack_table,
)

Entries = Iterable[tuple[bytes, bytes]]
K = TypeVar("K", TunnelKey, IpcacheKey, ServiceKey)
V = TypeVar("V")
Cells = list[tuple[str, str]]

PROTOCOLS: Mapping[int, str] = {0: "ANY", 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
DIRECTIONS: Mapping[int, str] = {0: "UNKNOWN", 1: "INGRESS", 2: "EGRESS", 3: "SERVICE"}
SKIP_TUNNEL = 1

_TYPES = (
    (ServiceFlag.EXTERNAL_IP, "ExternalIPs"),
    (ServiceFlag.NODE_PORT, "NodePort"),
    (ServiceFlag.LOAD_BALANCER, "LoadBalancer"),
    (ServiceFlag.HOST_PORT, "HostPort"),
    (ServiceFlag.LOCAL_REDIRECT, "LocalRedirect"),
)
_WORDS = (
    (ServiceFlag.EXT_LOCAL, "Local"),
    (ServiceFlag.INT_LOCAL, "InternalLocal"),
    (ServiceFlag.TWO_SCOPES, "two-scopes"),
    (ServiceFlag.SESSION_AFFINITY, "sessionAffinity"),
)
_LATER_WORDS = (
    (ServiceFlag.SOURCE_RANGE, "check source-range"),
    (ServiceFlag.NAT_46X64, "46x64"),
    (ServiceFlag.L7_LB, "l7-load-balancer"),
    (ServiceFlag.LOOPBACK_HOST_PORT, "loopback"),
    (ServiceFlag.QUARANTINED, "quarantined"),
)
_CILIUMS_WORDS: Mapping[int, str] = {
    Reason.FORWARDED: "Success",
    Reason.LB_NO_SLOT: "LB: Failed to find a backend slot",
    Reason.LB_NO_BACKEND: "LB: Failed to find a backend",
    Reason.LB_REVERSE_FULL: "LB: Failed to update a reverse entry",
    Reason.LB_REVERSE_STALE: "LB: Stale reverse entry",
    Reason.DROP_INVALID_SOURCE: "Invalid source ip",
    Reason.DROP_INVALID_PACKET: "Invalid packet",
    Reason.DROP_UNKNOWN_L3: "Unsupported L3 protocol",
    Reason.DROP_NOT_WRITTEN: "Error writing to packet",
    Reason.DROP_NO_TUNNEL_KEY: "Error retrieving tunnel key",
    Reason.DROP_UNROUTABLE: "Stale or unroutable IP",
    Reason.DROP_NO_ROOM: "CT: Map insertion failed",
    Reason.DROP_NO_SERVICE: "Service backend not found",
    Reason.DROP_NO_ENDPOINT: "No tunnel/encapsulation endpoint (datapath BUG!)",
    Reason.DROP_INVALID_IDENTITY: "Invalid identity",
    Reason.DROP_SOURCE_RANGE: "Denied by LB src range check",
    Reason.DROP_INVALID_CLUSTER: "Invalid ClusterID",
}
_FILES: Mapping[int, str] = {
    File.BALANCE: "lb.bpf.c",
    File.OVERLAY: "overlay.bpf.c",
    File.SOCK: "sock_lb.bpf.c",
}


def tunnel(entries: Entries) -> Cells:
    """``10.2.0.0@3`` and ``192.168.1.3:255``."""
    rows = []
    for key, value in _sorted(entries, TunnelKey.unpack, TunnelValue.unpack):
        rows.append((_at(_ip(key.address), key.cluster_id), f"{_ip(value.address)}:{value.key}"))
    return rows


def ipcache(entries: Entries) -> Cells:
    """``10.2.0.5/32@3`` and ``identity=196615 encryptkey=255 tunnelendpoint=..., flags=...``."""
    rows = []
    for key, value in _sorted(entries, IpcacheKey.unpack, IpcacheValue.unpack):
        flags = "skiptunnel" if value.flags & SKIP_TUNNEL else "<none>"
        what = f"identity={value.identity} encryptkey={value.key}"
        where = f"tunnelendpoint={_ip(value.tunnel_endpoint)}, flags={flags}"
        prefix = _at(f"{_ip(key.address)}/{key.prefix}", key.cluster_id)
        rows.append((prefix, f"{what} {where}"))
    return rows


def services(entries: Entries, backends: Entries) -> Cells:
    """``bpf lb list``: masters with their flags, slots with their backends' addresses."""
    known = {unpack_backend_id(key): BackendValue.unpack(value) for key, value in backends}
    rows = []
    for key, value in _sorted(entries, ServiceKey.unpack, ServiceValue.unpack):
        if key.slot == 0:
            anywhere = endpoint(bytes(len(key.address)), 0)
            rows.append((_frontend(key), f"{anywhere} ({value.rev_nat}) (0) [{_flags(value)}]"))
            continue
        backend = known.get(value.backend_or_timeout)
        if backend is None:
            rows.append((_frontend(key), f"backend {value.backend_or_timeout} not found"))
        else:
            where = endpoint(backend.address, backend.port)
            rows.append((_frontend(key), f"{where} ({value.rev_nat}) ({key.slot})"))
    return rows


def frontends(entries: Entries) -> Cells:
    """``10800 2[0] (7) [0x10 0x0]``: the union, count[qcount], reverse id, both flag bytes."""
    rows = []
    for key, value in _sorted(entries, ServiceKey.unpack, ServiceValue.unpack):
        low, high = value.flags & 0xFF, value.flags >> 8
        counts = f"{value.backend_or_timeout} {value.count}[{value.qcount}]"
        rows.append((_frontend(key), f"{counts} ({value.rev_nat}) [{low:#x} {high:#x}]"))
    return rows


def backends(entries: Entries) -> Cells:
    """``TCP://10.2.0.5@3``; the port is shown as well, which cilium-dbg leaves out."""
    rows = []
    for raw_key, raw_value in sorted(entries, key=lambda entry: unpack_backend_id(entry[0])):
        value = BackendValue.unpack(raw_value)
        protocol = PROTOCOLS.get(value.proto, str(value.proto))
        zone = f"[{value.zone}]" if value.zone else ""
        where = endpoint(value.address, value.port)
        cell = _at(f"{protocol}://{where}", value.cluster_id) + zone
        rows.append((str(unpack_backend_id(raw_key)), cell))
    return rows


def reverse_nat(entries: Entries) -> Cells:
    """``7`` and ``10.96.0.10:80``."""
    rows = []
    for raw_key, raw_value in sorted(entries):
        value = ReverseNatValue.unpack(raw_value)
        rows.append((str(unpack_rev_nat(raw_key)), endpoint(value.address, value.port)))
    return rows


def source_ranges(entries: Entries) -> Cells:
    """``203.0.113.0/24`` and ``7``: whom a frontend serves, by its reverse-NAT id."""
    keys = sorted(SourceRangeKey.unpack(raw) for raw, _ in entries)
    return [(f"{_ip(key.address)}/{key.prefix}", str(key.rev_nat)) for key in keys]


def tables(read: Entries, family: int) -> Cells:
    """Selection tables: ``[7]/v4`` and ``[1 2 1 ...]``, a backend id per place."""
    return [
        (
            f"[{unpack_rev_nat(key)}]/v{family}",
            f"[{' '.join(map(str, unpack_table(value)))}]",
        )
        for key, value in sorted(read)
    ]


def nodes(entries: Entries) -> list[tuple[str, str, str]]:
    """Underlay addresses that may send us packets, their cluster and its identities (our map)."""
    rows = []
    for raw_key, raw_value in sorted(entries):
        value = NodeValue.unpack(raw_value)
        allowed = f"{value.identity_low}-{value.identity_high}"
        rows.append((_ip(raw_key), str(value.cluster_id), allowed))
    return rows


def metrics(counters: Mapping[bytes, tuple[int, int]]) -> list[tuple[str, ...]]:
    """``REASON DIRECTION PACKETS BYTES LINE FILE``, sorted, and what it means here."""
    rows = []
    for raw_key, (count, size) in counters.items():
        key = MetricsKey.unpack(raw_key)
        reason = _CILIUMS_WORDS.get(key.reason, f"Unknown reason {key.reason}")
        direction = DIRECTIONS.get(key.direction, str(key.direction))
        file = _FILES.get(key.file, str(key.file))
        told = (str(count), str(size), str(key.line), file, _meaning(key))
        rows.append((reason, direction, *told))
    return sorted(rows)


def _meaning(key: MetricsKey) -> str:
    words = [
        REASONS.get(Reason(key.reason), "") if key.reason in set(Reason) else "",
        LINES.get(Line(key.line), "") if key.line in set(Line) else "",
    ]
    return "; ".join(word for word in words if word)


def _sorted(
    entries: Entries, key: Callable[[bytes], K], value: Callable[[bytes], V]
) -> list[tuple[K, V]]:
    """Unpacked; IPv4 before IPv6, then by what the key says."""
    unpacked = [(key(raw_key), value(raw_value)) for raw_key, raw_value in entries]
    return sorted(unpacked, key=lambda entry: (len(entry[0].address), entry[0]))


def _frontend(key: ServiceKey) -> str:
    protocol = f"/{PROTOCOLS.get(key.proto, key.proto)}" if key.proto else ""
    scope = "/i" if key.scope == 1 else ""
    return f"{endpoint(key.address, key.port)}{protocol}{scope} ({key.slot})"


def _flags(value: ServiceValue) -> str:
    flags = ServiceFlag(value.flags & 0x7FFF)
    kind = next((word for flag, word in _TYPES if flags & flag), "ClusterIP")
    words = [kind, *(word for flag, word in _WORDS if flags & flag)]
    if not flags & ServiceFlag.ROUTABLE:
        words.append("non-routable")
    words += [word for flag, word in _LATER_WORDS if flags & flag]
    return ", ".join(words)


def endpoint(address: bytes, port: int) -> str:
    """``10.2.0.9:8080``; an IPv6 address in brackets."""
    host = _ip(address)
    return f"[{host}]:{port}" if len(address) == 16 else f"{host}:{port}"


def _ip(address: bytes) -> str:
    return str(ip_address(address))


def _at(text: str, cluster: int) -> str:
    return f"{text}@{cluster}" if cluster else text
