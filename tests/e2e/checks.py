"""The short list: what a mesh promises, asked of every node, whatever happened before."""

import errno

from tests.e2e.world import World, eventually

BOTH = {"cluster-a", "cluster-b"}
PORT = 8080
NODES = (1, 2)


def pods_reach_pods(mesh: World) -> None:
    """By address, both ways, by both protocols, with the true source."""
    for here, there in (("cluster-a", "cluster-b"), ("cluster-b", "cluster-a")):
        for node in NODES:
            client = mesh.pod(here, "client", node)
            for server in mesh.pods(there, "rebel-base"):
                for protocol in ("tcp", "udp"):
                    (answer,) = mesh.ask(client, server.ips[0], PORT, protocol=protocol)
                    assert answer.get("pod") == server.name, (client.target, answer)
                    assert answer["peer"].startswith(client.ips[0] + ":"), answer


def answering(mesh: World, cluster: str, service: str = "rebel-base", node: int = 1) -> set[str]:
    """Clusters that answer, and errors."""
    pod = mesh.pod(cluster, "client", node)
    return set(mesh.clusters(pod, mesh.service_ip(cluster, service), count=24))


def services_answer(mesh: World) -> None:
    """The global one from both clusters on every node; the others as they should."""
    for cluster in sorted(BOTH):
        for node in NODES:
            assert answering(mesh, cluster, node=node) == BOTH, (cluster, node)
        assert answering(mesh, cluster, "private-base") == {cluster}
        empty = mesh.service_ip(cluster, "empty-base")
        (answer,) = mesh.ask(mesh.pod(cluster, "client"), empty, timeout=20)
        assert answer.get("errno") == errno.EHOSTUNREACH, answer


def maps_are_right(mesh: World) -> None:
    """Every node's maps are what the etcds say; differences are named by the failure."""
    audited = mesh.json("audit")
    assert len(audited) == 2 * len(NODES)
    for node, report in audited.items():
        assert not report["differences"], (node, report["differences"])
        assert not report["unaudited"], (node, report["unaudited"])


def settled(mesh: World, cluster: str, clusters: set[str]) -> None:
    """Soon every node of the cluster gets its answers from these clusters."""
    for node in NODES:
        eventually(
            f"{cluster} node {node} is answered by {sorted(clusters)}",
            lambda node=node: answering(mesh, cluster, node=node) == clusters,
        )


def the_short_list(mesh: World) -> None:
    pods_reach_pods(mesh)
    services_answer(mesh)
    maps_are_right(mesh)
