"""GET /v1/premises: what this node knows that its cluster brings into a mesh."""

from collections.abc import Callable, Iterable, Sequence

from agent.facts import Me
from clustermesh.findings import Premises
from clustermesh.http import Answer, Query
from clustermesh.local import LocalService
from clustermesh.status import NodeStatus
from clustermesh.version import VERSION


def answer(
    me: Me,
    nodes: Callable[[], Sequence[NodeStatus]],
    services: Callable[[], Iterable[LocalService]],
) -> Answer:
    """Only of the own cluster: others are asked themselves."""

    def tell(_: Query) -> Premises:
        own = [node for node in nodes() if node.cluster == me.cluster]
        ranges = {cidr for node in own for cidr in (*node.ipv4_cidrs, *node.ipv6_cidrs)}
        addresses = {ip for node in own for ip in (node.ipv4, node.ipv6) if ip}
        frontends = {end.address for service in services() for end in service.frontends}
        return Premises(
            cluster=me.cluster,
            cluster_id=me.cluster_id,
            node=me.node,
            version=VERSION,
            max_clusters=me.max_clusters,
            pod_ranges=tuple(sorted(ranges)),
            node_addresses=tuple(sorted(addresses)),
            service_addresses=tuple(sorted(frontends - {""})),
        )

    return tell
