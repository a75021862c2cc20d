"""What may differ between a recording of Cilium 1.17 and our keys: here, and nowhere else.

Every difference is named by the recordings' README, by contract kvstore 12, or by a decision.
"""

from collections.abc import Iterable, Mapping

import msgspec

from clustermesh import gojson, keys, model
from clustermesh.keys import Kind, Layout
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject

IGNORED_KEYS = frozenset(
    {
        keys.HEARTBEAT,
        # The lab API server's own service (README).
        "cilium/state/services/v1/cl1/default/kubernetes",
        # Two endpoints with one address: last write wins there, first claim here (README).
        "cilium/state/ip/v1/default/10.1.0.11",
        # An address that is none (README, contract kvstore 12.endpoints).
        "cilium/state/ip/v1/default/<nil>",
    }
)
# The propagation probe is ours alone (decision 0009).
IGNORED_PREFIXES = ("cilium/synced/", "clustermesh/local/", "cilium/state/clustermesh-probe/")

_services = gojson.Reader(model.ClusterService)
_nodes = gojson.Reader(model.Node)
_ips = gojson.Reader(model.IPEntry)
_exports = gojson.Reader(model.ServiceExport)


def comparable(found: Mapping[str, bytes], world: Iterable[KubernetesObject]) -> dict[str, bytes]:
    """Keys and values reduced to what both releases say."""
    ending = _ending_addresses(world)
    return {
        key: reduced(key, value, ending)
        for key, value in found.items()
        if key not in IGNORED_KEYS and not key.startswith(IGNORED_PREFIXES)
    }


def reduced(key: str, value: bytes, ending: frozenset[str] = frozenset()) -> bytes:
    """One value reduced to what both releases say; ``ending`` backends are left out."""
    if key.startswith(keys.prefix(Kind.SERVICES, Layout.STATE, "cl1")):
        service = _services.decode(value)
        # 1.20 exports endpoints that end but still serve, omits empty hostnames, adds zones.
        return _changed(
            service,
            backends={ip: p for ip, p in service.backends.items() if ip not in ending},
            hostnames=service.hostnames or model.OMITTED,
            zones=model.OMITTED_ZONES,
        )
    if key.startswith(keys.prefix(Kind.NODES, Layout.STATE, "cl1")):
        # Only 1.17 has NodeIdentity.
        return _changed(_nodes.decode(value), node_identity=msgspec.UNSET)
    if key.startswith(keys.prefix(Kind.IPS, Layout.STATE, "cl1")):
        # Only 1.20 has K8sServiceAccount.
        return _changed(_ips.decode(value), service_account="")
    if key.startswith(keys.prefix(Kind.SERVICE_EXPORTS, Layout.STATE, "cl1")):
        # Three fields came after 1.17 and are to be sent (contract kvstore 2.6; decision 0005).
        return _changed(
            _exports.decode(value),
            export_creation_timestamp="",
            ip_families=(),
            internal_traffic_policy=None,
            traffic_distribution=None,
        )
    return value


def _changed(fact: msgspec.Struct, **fields: object) -> bytes:
    return model.encode_json(msgspec.structs.replace(fact, **fields))


def _ending_addresses(world: Iterable[KubernetesObject]) -> frozenset[str]:
    return frozenset(
        address
        for slice_ in world
        if isinstance(slice_, objects.EndpointSlice)
        for endpoint in slice_.endpoints or ()
        if endpoint.conditions.ready is False
        and endpoint.conditions.serving
        and endpoint.conditions.terminating
        for address in endpoint.addresses
    )
