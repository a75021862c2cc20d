"""EndpointSlices as other clusters see them (contract kvstore 2.7)."""

from clustermesh import addresses
from clustermesh.model import EndpointSlice, SliceEndpoint, SlicePort
from clustermesh.sources import objects

FAMILIES = {"IPv4": 4, "IPv6": 6}


def to_endpoint_slice(
    slice_: objects.EndpointSlice, *, cluster: str, cluster_id: int
) -> EndpointSlice | None:
    """The slice with its addresses that are of its family; None for a slice of names."""
    family = FAMILIES.get(slice_.address_type)
    if family is None:
        return None
    meta = slice_.metadata
    return EndpointSlice(
        cluster=cluster,
        cluster_id=cluster_id,
        namespace=meta.namespace,
        name=meta.name,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        address_type=slice_.address_type,
        endpoints=tuple(_endpoint(each, family) for each in slice_.endpoints or ()),
        ports=tuple(
            SlicePort(port.name, port.protocol, port.port, port.app_protocol)
            for port in slice_.ports or ()
        ),
    )


def _endpoint(endpoint: objects.Endpoint, family: int) -> SliceEndpoint:
    conditions = endpoint.conditions
    return SliceEndpoint(
        addresses=tuple(
            addresses.canonical(text)
            for text in endpoint.addresses
            if addresses.family(text) == family
        ),
        ready=conditions.ready,
        serving=conditions.serving,
        terminating=conditions.terminating,
        hostname=endpoint.hostname,
        node_name=endpoint.node_name,
        zone=endpoint.zone,
        zone_hints=tuple(zone.name for zone in endpoint.hints.for_zones),
    )
