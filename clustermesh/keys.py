"""Where each fact lives, and what makes a key and its value believable."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from clustermesh import checks, gojson, slices
from clustermesh.addresses import packed
from clustermesh.checks import BadFact
from clustermesh.model import (
    CLUSTER_LABEL,
    ClusterConfig,
    ClusterService,
    EndpointSlice,
    Fact,
    Identity,
    IPEntry,
    Node,
    ServiceExport,
)

__all__ = [
    "HEARTBEAT",
    "BadFact",
    "Fact",
    "Kind",
    "Layout",
    "Origin",
    "canaries_prefix",
    "canary",
    "cluster_config",
    "cluster_of",
    "decode",
    "decode_config",
    "decoder",
    "encode",
    "identity_range",
    "key_of",
    "name_of",
    "prefix",
]

T = TypeVar("T")
Decoder = Callable[[str, bytes], Fact]

HEARTBEAT: Final = "cilium/.heartbeat"
SHIFTS: Final = {255: 16, 511: 15}
"""Maximum number of clusters to the bits of an identity that number within one cluster."""

HOST, REMOTE_NODE, FIRST_UNRESERVED = 1, 6, 256


class Kind(StrEnum):
    """Kinds of facts, named by their word in the key."""

    NODES = "nodes"
    IDENTITIES = "identities"
    IPS = "ip"
    SERVICES = "services"
    SERVICE_EXPORTS = "serviceexports"
    ENDPOINT_SLICES = "endpointslices"


class Layout(StrEnum):
    """STATE: a cluster's own control plane wrote it. CACHE: kvstoremesh copied it."""

    STATE = "state"
    CACHE = "cache"


class Origin(msgspec.Struct, frozen=True):
    """Who is said to have written the facts, and under which layout they are read."""

    cluster: str
    cluster_id: int
    max_clusters: int = 255
    layout: Layout = Layout.STATE


# --- places (contract kvstore 1) ---------------------------------------------------------------


def prefix(kind: Kind, layout: Layout, cluster: str) -> str:
    """The prefix to follow, with its slash: facts of one kind of one cluster and nothing else."""
    root = f"cilium/{layout}/{kind}/v1/"
    if layout is Layout.STATE and kind is Kind.IPS:
        return root + "default/"
    if kind is Kind.IDENTITIES:
        return root + ("id/" if layout is Layout.STATE else f"{cluster}/id/")
    return f"{root}{cluster}/"


def canary(kind: Kind, layout: Layout, cluster: str) -> str:
    """The key that appears when the first full list of the kind has been written."""
    return f"{canaries_prefix(cluster)}cilium/{layout}/{kind}/v1"


def canaries_prefix(cluster: str) -> str:
    """Where all canaries of a cluster are."""
    return f"cilium/synced/{cluster}/"


def cluster_config(cluster: str) -> str:
    """The key of the handshake: get it by its exact name (contract kvstore 7)."""
    return f"cilium/cluster-config/{cluster}"


def name_of(fact: Fact) -> str:
    """What follows the prefix of its kind: the same in both layouts."""
    match fact:
        case Node():
            return fact.name
        case IPEntry():
            return _ip_name(fact)
        case Identity():
            return str(fact.id)
        case ClusterService() | ServiceExport() | EndpointSlice():
            return f"{fact.namespace}/{fact.name}"


def key_of(cluster: str, fact: Fact) -> str:
    """The key under which the cluster's own control plane publishes the fact."""
    return prefix(_KIND_OF[type(fact)], Layout.STATE, cluster) + name_of(fact)


_KIND_OF: Mapping[type, Kind] = {
    Node: Kind.NODES,
    Identity: Kind.IDENTITIES,
    IPEntry: Kind.IPS,
    ClusterService: Kind.SERVICES,
    ServiceExport: Kind.SERVICE_EXPORTS,
    EndpointSlice: Kind.ENDPOINT_SLICES,
}


def _ip_name(entry: IPEntry) -> str:
    if entry.mask is None:
        return entry.ip
    ones, _ = checks.mask("Mask", entry.ip, entry.mask)
    return f"{entry.ip}/{ones}"


def encode(fact: Fact) -> bytes:
    """The value as Cilium writes it."""
    match fact:
        case Identity():
            return fact.labels.encode()
        case EndpointSlice():
            return slices.encode(fact)
        case _:
            return gojson.encode(fact)


# --- identities (contract kvstore 3) -----------------------------------------------------------


def identity_range(cluster_id: int, max_clusters: int = 255) -> range:
    """Numbers of identities that the cluster may allocate. Cluster 0 starts at 256."""
    shift = SHIFTS[max_clusters]
    first = cluster_id << shift
    return range(first or FIRST_UNRESERVED, first + (1 << shift))


def cluster_of(identity: int, max_clusters: int = 255) -> int:
    """The cluster whose range the identity is in; 0 for reserved ones and a lone cluster's."""
    return (identity >> SHIFTS[max_clusters]) & max_clusters


# --- reading -----------------------------------------------------------------------------------


def decode(kind: Kind, origin: Origin, key: str, value: bytes) -> Fact:
    """The fact at a key (as it is in etcd), after every check that a consumer makes.

    Raises ``BadFact`` saying which field is wrong. The caller keeps the old value then, until the
    next full list (contract kvstore 5.4).
    """
    return decoder(kind, origin)(key, value)


def decode_config(value: bytes) -> ClusterConfig:
    """The value of a cluster's handshake. Raises ``BadFact``; its ids are the caller's to check."""
    return _parse(_configs.forgiving, value)


@lru_cache(maxsize=4096)
def decoder(kind: Kind, origin: Origin) -> Decoder:
    """``decode`` for one kind of one origin, prepared for the hot path."""
    place = prefix(kind, origin.layout, origin.cluster)
    return _DECODERS[kind](origin, place)


_configs = gojson.Reader(ClusterConfig, fold=str.lower)
_nodes = gojson.Reader(Node, fold=str.lower)
_ips = gojson.Reader(IPEntry, fold=str.lower)
_services = gojson.Reader(ClusterService, fold=str.lower)
_exports = gojson.Reader(ServiceExport, fold=str.lower)


def _parse(read: Callable[[bytes], T], value: bytes) -> T:
    try:
        return read(value)
    except msgspec.MsgspecError as error:
        raise BadFact(str(error)) from None


def _node_decoder(origin: Origin, place: str) -> Decoder:
    def decode_node(key: str, value: bytes) -> Node:
        node = _parse(_nodes.decode, value)
        checks.said("Cluster", node.cluster, origin.cluster)
        checks.said("Name", node.name, key.removeprefix(place))
        checks.number("ClusterID", node.cluster_id, origin.cluster_id)
        checks.node_addresses(node)
        return node

    return decode_node


def _ip_decoder(origin: Origin, place: str) -> Decoder:
    own = identity_range(origin.cluster_id, origin.max_clusters)
    first, last = own[0], own[-1]
    start, read, host = len(place), _ips.decode, ""

    def decode_ip(key: str, value: bytes) -> IPEntry:
        nonlocal host
        try:
            entry = read(value)
        except msgspec.MsgspecError as error:
            raise BadFact(str(error)) from None
        ip = entry.ip
        sound = checks.is_canonical(ip) if ":" in ip else packed(ip)
        if not sound or entry.mask is not None or key[start:] != ip:
            checks.ip_key(entry, key.removeprefix(place))
        number = entry.id
        if not first <= number <= last and number >= FIRST_UNRESERVED:
            raise BadFact(
                f"ID: {number} is neither reserved (below {FIRST_UNRESERVED}) nor "
                f"in the range of cluster {origin.cluster} ({first}-{last})"
            )
        if entry.host_ip != host and entry.host_ip:
            checks.address("HostIP", entry.host_ip)
            host = entry.host_ip  # the pods of a node come one after the other
        if number == HOST:  # the peer's host is a remote node here (contract kvstore 2.3)
            return msgspec.structs.replace(entry, id=REMOTE_NODE)
        return entry

    return decode_ip


def _identity_decoder(origin: Origin, place: str) -> Decoder:
    own = identity_range(origin.cluster_id, origin.max_clusters)
    wanted = f"k8s:{CLUSTER_LABEL}={origin.cluster};"

    def decode_identity(key: str, value: bytes) -> Identity:
        number = checks.decimal("key", key.removeprefix(place))
        if number not in own:
            raise BadFact(
                f"id: {number} is not in the range of cluster {origin.cluster} ({own[0]}-{own[-1]})"
            )
        try:
            labels = value.decode()
        except UnicodeDecodeError:
            raise BadFact("labels: not UTF-8") from None
        if f";{wanted}" not in f";{labels};":  # the peer writes a last ; and does not ask for it
            raise BadFact(f"labels: expected the label {wanted}")
        return Identity(number, labels)

    return decode_identity


def _service_decoder(origin: Origin, place: str) -> Decoder:
    read, cluster, number = _services.decode, origin.cluster, origin.cluster_id

    def decode_service(key: str, value: bytes) -> ClusterService:
        try:
            service = read(value)
        except msgspec.MsgspecError as error:
            raise BadFact(str(error)) from None
        namespace, name = service.namespace, service.name
        if not (
            namespace
            and name
            and key == f"{place}{namespace}/{name}"
            and service.cluster == cluster
            and service.cluster_id == number
        ):
            checks.said("cluster", service.cluster, cluster)
            checks.named(namespace, name, key.removeprefix(place))
            checks.number("clusterID", service.cluster_id, number)
        checks.addresses_of("frontends", service.frontends)
        checks.addresses_of("backends", service.backends)
        return service

    return decode_service


POLICIES: Final = ("Cluster", "Local")
DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")


def _export_decoder(origin: Origin, place: str) -> Decoder:
    def decode_export(key: str, value: bytes) -> ServiceExport:
        export = _parse(_exports.decode, value)
        checks.said("cluster", export.cluster, origin.cluster)
        checks.named(export.namespace, export.name, key.removeprefix(place))
        checks.moment("exportCreationTimestamp", export.export_creation_timestamp)
        checks.one_of("type", export.type, ("ClusterSetIP", "Headless"))
        checks.one_of("sessionAffinity", export.session_affinity, ("", "None", "ClientIP"))
        for name, word, known in (
            ("internalTrafficPolicy", export.internal_traffic_policy, POLICIES),
            ("trafficDistribution", export.traffic_distribution, DISTRIBUTIONS),
        ):
            if word is not None:
                checks.one_of(name, word, known)
        return export

    return decode_export


def _slice_decoder(origin: Origin, place: str) -> Decoder:
    def decode_slice(key: str, value: bytes) -> EndpointSlice:
        slice_ = slices.decode(value)
        checks.said("cluster", slice_.cluster, origin.cluster)
        checks.named(slice_.namespace, slice_.name, key.removeprefix(place))
        checks.number("clusterID", slice_.cluster_id, origin.cluster_id)
        checks.one_of("addressType", slice_.address_type, ("IPv4", "IPv6"))
        for endpoint in slice_.endpoints:
            for address in endpoint.addresses:
                checks.address_of_type("endpoints", address, slice_.address_type)
        return slice_

    return decode_slice


_DECODERS: Mapping[Kind, Callable[[Origin, str], Decoder]] = {
    Kind.NODES: _node_decoder,
    Kind.IPS: _ip_decoder,
    Kind.IDENTITIES: _identity_decoder,
    Kind.SERVICES: _service_decoder,
    Kind.SERVICE_EXPORTS: _export_decoder,
    Kind.ENDPOINT_SLICES: _slice_decoder,
}
