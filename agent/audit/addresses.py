"""What the address maps must hold: ipcache, tunnel map and trusted nodes [pure].

Contract datapath 1.1, 1.2 and 5.3. Several may speak of one address. The own cluster is heard
before others, a lower cluster id before a higher; what a node says of its addresses before what the
cluster says of addresses; of two nodes the first by name.
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from struct import pack
from typing import Final, NamedTuple

from agent.audit.reading import Told
from clustermesh.addresses import packed, prefix, spelled
from clustermesh.model import IPEntry, Node

HOST: Final = 1
WORLD: Final = 2
HEALTH: Final = 4
REMOTE_NODE: Final = 6
INGRESS: Final = 8
NONE: Final = bytes(4)
SKIP_TUNNEL: Final = 1

Entries = dict[bytes, bytes]
Network = IPv4Network | IPv6Network


class Here(NamedTuple):
    """This node, as it was configured."""

    cluster: str
    cluster_id: int
    node: str
    node_ip: str
    max_clusters: int = 255
    native: frozenset[str] = frozenset()
    """Clusters to whose IPv4 pods packets go without the tunnel."""


class AddressMaps(NamedTuple):
    """By key: what each map must hold."""

    ipcache: Entries
    tunnel: Entries
    nodes: Entries


def address_maps(here: Here, mesh: Sequence[Told]) -> AddressMaps:
    """``mesh`` without the clusters that are held out."""
    maps = AddressMaps({}, {}, {})
    for told in sorted(
        mesh, key=lambda told: (told.cluster_id != here.cluster_id, told.cluster_id)
    ):
        for name in sorted(told.nodes):
            _node(here, told.nodes[name], maps)
        for entry in told.addresses.values():
            _address(here, told.cluster, entry, maps)
    return maps


def claimed_by_nodes(here: Here, mesh: Iterable[Told]) -> set[bytes]:
    """Keys of the ipcache about which nodes have spoken."""
    nodes = (node for told in mesh for node in told.nodes.values())
    return {ipcache_key(cidr) for node in nodes for cidr, *_ in _claims(here, node)}


def _address(here: Here, cluster: str, entry: IPEntry, maps: AddressMaps) -> None:
    endpoint = packed(entry.host_ip)
    if len(endpoint) == 16:
        return  # the underlay is IPv4: such a fact is refused
    if endpoint == packed(here.node_ip):
        endpoint = NONE
    cidr, endpoint = entry.cidr(), endpoint or NONE
    flags = _flags(here, cluster, cidr, endpoint)
    value = _ipcache_value(entry.id, endpoint, entry.key, flags)
    maps.ipcache.setdefault(ipcache_key(cidr), value)


def _flags(here: Here, cluster: str, cidr: str, endpoint: bytes) -> int:
    return SKIP_TUNNEL if cluster in here.native and endpoint != NONE and ":" not in cidr else 0


def _node(here: Here, node: Node, maps: AddressMaps) -> None:
    for cidr, identity, endpoint in reversed(list(_claims(here, node))):
        flags = _flags(here, node.cluster, cidr, endpoint)
        maps.ipcache.setdefault(ipcache_key(cidr), _ipcache_value(identity, endpoint, 0, flags))
    if _is_here(here, node):
        return
    node_ip = _behind(here, node)
    for cidr in node.pod_cidrs() if node_ip != NONE else ():
        maps.tunnel.setdefault(_tunnel_key(cidr), _tunnel_value(node_ip))
    for address in filter(_is_v4, _plain(node)):
        maps.nodes.setdefault(packed(address), _trust(node.cluster_id, here.max_clusters))


def _is_here(here: Here, node: Node) -> bool:
    return (node.cluster, node.name) == (here.cluster, here.node)


def _behind(here: Here, node: Node) -> bytes:
    return NONE if _is_here(here, node) else packed(node.underlay(4)) or NONE


def _claims(here: Here, node: Node) -> Iterator[tuple[str, int, bytes]]:
    """Prefix, identity and tunnel endpoint; what comes later goes before what came earlier."""
    ours, node_ip = _is_here(here, node), _behind(here, node)
    for address in _plain(node):
        yield _host(address), HOST if ours else REMOTE_NODE, NONE
    for cidr in node.pod_cidrs() if node_ip != NONE else ():
        yield cidr, WORLD, node_ip
    for address in node.overlay():
        yield _host(address), HOST if ours else REMOTE_NODE, node_ip
    for address in filter(packed, (node.ipv4_health_ip, node.ipv6_health_ip)):
        yield _host(address), HEALTH, node_ip
    for address in filter(packed, (node.ipv4_ingress_ip, node.ipv6_ingress_ip)):
        yield _host(address), INGRESS, node_ip


def _plain(node: Node) -> list[str]:
    """Its addresses outside of the mesh."""
    known = node.addresses or ()
    return [it.ip for it in known if it.type != "CiliumInternalIP" and packed(it.ip)]


def _is_v4(address: str) -> bool:
    return len(packed(address)) == 4


def _host(address: str) -> str:
    raw = packed(address)
    return f"{spelled(raw)}/{8 * len(raw)}"


# --- bytes (contract datapath 1.17) --------------------------------------------------------------


def ipcache_key(cidr: str) -> bytes:
    """From ``10.7.0.0/24``."""
    network, ones = prefix(cidr)
    raw = packed(network)
    return pack("<IHBB16s", 32 + ones, 0, 0, 1 if len(raw) == 4 else 2, raw)


def _ipcache_value(identity: int, endpoint: bytes, key: int = 0, flags: int = 0) -> bytes:
    return pack("<I4sHBB", identity, endpoint, 0, key, flags)


def _tunnel_key(cidr: str) -> bytes:
    raw = packed(cidr.partition("/")[0])
    return pack("<16sBBH", raw, 1 if len(raw) == 4 else 2, 0, 0)


def _tunnel_value(node_ip: bytes) -> bytes:
    return pack("<16sBBH", node_ip, 1, 0, 0)


def _trust(cluster_id: int, max_clusters: int) -> bytes:
    """Which identities may come from the node: those of its cluster (contract kvstore 3)."""
    bits = 16 if max_clusters == 255 else 15
    first = cluster_id << bits
    return pack("<IIII", cluster_id, max(first, 256), first + (1 << bits) - 1, 0)


# --- clusters that cannot be told apart ----------------------------------------------------------


def overlapping(here: Here, mesh: Iterable[Told]) -> set[str]:
    """Remote clusters with a pod range that the own cluster, or one with a lower id, has too; and
    of two clusters of which one has a tunnelled range over the end of a tunnel to the other, the
    later one.

    Of two networks that share an address one contains the other: so looking up what contains a
    network, and what it contains, in those accepted so far finds every overlap.
    """
    accepted: set[Network] = set()
    above: set[Network] = set()
    tunnelled: set[Network] = set()
    over_ends: set[Network] = set()
    held: set[str] = set()
    for told in sorted(
        mesh, key=lambda told: (told.cluster_id != here.cluster_id, told.cluster_id)
    ):
        own = told.cluster == here.cluster
        ranges = {ip_network(cidr) for node in told.nodes.values() for cidr in node.pod_cidrs()}
        if own:
            ranges |= {ip_network(_host(ip)) for n in told.nodes.values() for ip in _plain(n)}
        parents = {parent for it in ranges for parent in _containing(it)}
        through = set() if own or told.cluster in here.native else ranges
        ends = set() if own else _over_ends(told)
        if not own and (
            ranges & above or parents & accepted or through & (over_ends | ends) or tunnelled & ends
        ):
            held.add(told.cluster)
            continue
        accepted |= ranges
        above |= parents
        tunnelled |= through
        over_ends |= ends
    return held


def _over_ends(told: Told) -> set[Network]:
    """Every network that covers the end of a tunnel to the cluster."""
    ends = filter(None, (node.underlay(4) for node in told.nodes.values()))
    return {parent for end in ends for parent in _containing(ip_network(end))}


def _containing(network: Network) -> Iterator[Network]:
    """The network itself and everything that contains it."""
    for ones in range(network.prefixlen + 1):
        yield network.supernet(new_prefix=ones)
