"""Lists from the agents, as text."""

from clustermesh.meshctl.lists import identity_table, node_table, service_table
from clustermesh.status import BackendStatus, IdentityStatus, NodeStatus, ServiceStatus

HEADER = "Name IPv4 Address Endpoint CIDR IPv6 Address Endpoint CIDR Source"


def test_services_are_sorted_by_id_with_a_line_per_backend():
    services = [
        ServiceStatus(id=9, namespace="d", name="empty", frontend="10.96.0.11:80/TCP"),
        ServiceStatus(
            id=7,
            namespace="default",
            name="web",
            frontend="10.96.0.10:80/TCP",
            is_global=True,
            backends=(
                BackendStatus(id=1, address="10.1.0.5:8080", cluster="cluster-a"),
                BackendStatus(
                    id=2,
                    address="10.2.0.5:8080",
                    cluster="cluster-b",
                    used=False,
                    why="affinity local",
                ),
            ),
        ),
    ]
    lines = service_table(services).splitlines()
    assert lines[0].split("   ")[0] == "ID"
    assert lines[1].startswith("7 ")
    assert "default/web (global)" in lines[1]
    assert lines[1].endswith("1 => 10.1.0.5:8080 (active) cluster-a")
    assert lines[2].strip() == "2 => 10.2.0.5:8080 (active) cluster-b unused: affinity local"
    assert lines[3].startswith("9 ")


def test_nodes_are_called_by_cluster_and_name():
    nodes = [
        NodeStatus(name="b", cluster="two", ipv4="172.30.2.11", ipv4_cidrs=("10.2.1.0/24",)),
        NodeStatus(name="a", cluster="one", source="kvstore"),
    ]
    lines = node_table(nodes).splitlines()
    assert " ".join(lines[0].split()) == HEADER
    assert [line.split()[0] for line in lines[1:]] == ["one/a", "two/b"]
    assert "10.2.1.0/24" in lines[2]


def test_identities_have_a_line_per_label():
    identities = [IdentityStatus(id=70000, cluster="one", labels=("k8s:app=web", "k8s:x=y"))]
    assert identity_table(identities).splitlines() == [
        "ID      LABELS",
        "70000   k8s:app=web",
        "        k8s:x=y",
    ]
