"""From a fact about an address or a node to the entries of the address maps that it asks for.

Contract datapath 1.1, 1.2, 5.3 and design: an address says which identity it has and behind which
node it is; a node says where its pods and its own addresses are, and that it may send to us.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from agent.facts import Me
from bpf.layout import SKIP_TUNNEL, IpcacheKey, IpcacheValue, NodeValue, TunnelKey, TunnelValue
from clustermesh.addresses import packed, prefix, spelled
from clustermesh.keys import SHIFTS
from clustermesh.model import IPEntry, Node

HOST: Final = 1
WORLD: Final = 2
HEALTH: Final = 4
REMOTE_NODE: Final = 6
INGRESS: Final = 8

IPCACHE: Final = "ipcache"
TUNNEL: Final = "tunnel"
NODES: Final = "nodes"

NOWHERE: Final = bytes(4)
"""This node, or no tunnel known (contract datapath 1.2)."""

_PAD = bytes(12)
_PREFIX4 = IpcacheKey(bytes(4), 32).pack()[:8]
_PREFIX6 = IpcacheKey(bytes(16), 128).pack()[:8]
_VALUE = IpcacheValue.FORMAT


class BadEntry(ValueError):
    """A fact that the maps cannot say; the text names the field and what was expected."""


def ip_key(name: str) -> bytes:
    """The ipcache key for ``10.7.0.44`` or ``10.7.0.0/24``, the name of an address's fact."""
    address = packed(name)
    if address:
        return address_key(address)
    ip, ones = prefix(name)
    if not ip:
        raise BadEntry(f"key: {name!r} is neither an address nor a prefix")
    return IpcacheKey(packed(ip), ones).pack()


def address_key(address: bytes) -> bytes:
    """The ipcache key of a single address of 4 or 16 bytes."""
    return _PREFIX4 + address + _PAD if len(address) == 4 else _PREFIX6 + address


def is_single(key: bytes) -> bool:
    """Whether an ipcache key stands for one address."""
    return key.startswith((_PREFIX4, _PREFIX6))


def ip_value(entry: IPEntry, own_node: bytes, *, native: bool = False) -> bytes:
    """The ipcache value. What is behind ``own_node``, our underlay address, needs no tunnel;
    what is ``native`` has one, and does without."""
    endpoint = packed(entry.host_ip) if entry.host_ip else NOWHERE
    if endpoint == own_node:
        endpoint = NOWHERE
    elif len(endpoint) != 4:
        raise BadEntry(f"HostIP: {entry.host_ip}, expected an IPv4 address: the underlay is IPv4")
    flags = _flags(entry.ip, endpoint, native=native)
    return _VALUE.pack(entry.id, endpoint, 0, entry.key, flags)


def _flags(address: str, endpoint: bytes, *, native: bool) -> int:
    """The underlay is IPv4: only IPv4 can go there without a tunnel."""
    return SKIP_TUNNEL if native and endpoint != NOWHERE and ":" not in address else 0


def ip_text(key: bytes) -> tuple[str, int]:
    """Address and length that an ipcache key stands for."""
    found = IpcacheKey.unpack(key)
    return spelled(found.address), found.prefix


class NodeInfo(NamedTuple):
    """A node, as much of it as is needed after its entries are made."""

    name: str
    cluster: str
    cluster_id: int
    underlay4: str
    underlay6: str
    cidrs: tuple[str, ...]
    overlay: tuple[str, ...]
    addresses: tuple[str, ...]
    health: tuple[str, ...]
    ingress: tuple[str, ...]
    source: str = ""

    @classmethod
    def of(cls, node: Node) -> "NodeInfo":
        """From the fact."""
        overlay = node.overlay()
        plain = (a.ip for a in node.addresses or () if a.type != "CiliumInternalIP")
        return cls(
            name=node.name,
            cluster=node.cluster,
            cluster_id=node.cluster_id,
            underlay4=node.underlay(4),
            underlay6=node.underlay(6),
            cidrs=node.pod_cidrs(),
            overlay=overlay,
            addresses=tuple(spelled(raw) for text in plain if (raw := packed(text))),
            health=tuple(ip for ip in (node.ipv4_health_ip, node.ipv6_health_ip) if packed(ip)),
            ingress=tuple(ip for ip in (node.ipv4_ingress_ip, node.ipv6_ingress_ip) if packed(ip)),
            source=node.source,
        )


Place = tuple[str, bytes]
"""A map (as in ``bpf.datapath.Maps``) and a key in it."""


def node_entries(node: NodeInfo, me: Me) -> dict[Place, bytes]:
    """Every entry that the node asks for."""
    if node.cluster == me.cluster and node.name == me.node:
        return dict(_own_entries(node))
    endpoint = packed(node.underlay4) or NOWHERE
    native = node.cluster in me.native
    return {
        **dict(_addresses_of(node.addresses, REMOTE_NODE, NOWHERE)),
        **dict(_ranges(node, endpoint, native=native)),
        **dict(_addresses_of(node.overlay, REMOTE_NODE, endpoint, native=native)),
        **dict(_addresses_of(node.health, HEALTH, endpoint, native=native)),
        **dict(_addresses_of(node.ingress, INGRESS, endpoint, native=native)),
        **dict(_trust(node, me.max_clusters)),
    }


def _own_entries(node: NodeInfo) -> Iterator[tuple[Place, bytes]]:
    """This node's own addresses are its host's; on the wire the host is a remote node (6)."""
    yield from _addresses_of((*node.addresses, *node.overlay), HOST, NOWHERE)
    yield from _addresses_of(node.health, HEALTH, NOWHERE)
    yield from _addresses_of(node.ingress, INGRESS, NOWHERE)


def _addresses_of(
    texts: tuple[str, ...], identity: int, endpoint: bytes, *, native: bool = False
) -> Iterator[tuple[Place, bytes]]:
    for text in texts:
        flags = _flags(text, endpoint, native=native)
        yield (IPCACHE, ip_key(text)), IpcacheValue(identity, endpoint, flags=flags).pack()


def _ranges(node: NodeInfo, endpoint: bytes, *, native: bool) -> Iterator[tuple[Place, bytes]]:
    """Pod ranges: prefixes of the world behind the node, and for foreign tools the tunnel map."""
    if endpoint == NOWHERE:
        return
    for cidr in node.cidrs:
        flags = _flags(cidr, endpoint, native=native)
        yield (IPCACHE, ip_key(cidr)), IpcacheValue(WORLD, endpoint, flags=flags).pack()
        base = packed(cidr.partition("/")[0])
        yield (TUNNEL, TunnelKey(base).pack()), TunnelValue(endpoint).pack()


def _trust(node: NodeInfo, max_clusters: int) -> Iterator[tuple[Place, bytes]]:
    """What comes from the node's addresses may carry the identities of its cluster."""
    value = _trusted(node.cluster_id, max_clusters)
    for text in node.addresses:
        if len(address := packed(text)) == 4:
            yield (NODES, address), value


@lru_cache(maxsize=512)
def _trusted(cluster_id: int, max_clusters: int) -> bytes:
    return NodeValue.of_cluster(cluster_id, identity_bits=SHIFTS[max_clusters]).pack()


def range_of(cidr: str) -> tuple[int, int, int]:
    """Version (4 or 6), first and last address of a canonical prefix, as numbers."""
    address, _, ones = cidr.partition("/")
    raw = packed(address)
    bits = len(raw) * 8
    first = int.from_bytes(raw, "big")
    return (4 if bits == 32 else 6), first, first + (1 << (bits - int(ones))) - 1
