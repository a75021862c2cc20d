"""Global services: who answers, who does not, and how quickly that follows an annotation."""

import errno

import pytest

from tests.e2e.world import TOOK, World, eventually

BOTH = {"cluster-a", "cluster-b"}
SHARED, AFFINITY = "service.cilium.io/shared", "service.cilium.io/affinity"


@pytest.fixture
def annotated(mesh: World):
    """Annotate services; what was annotated is taken back."""
    undo = []

    def annotate(cluster: str, service: str, **annotations: str) -> None:
        for word, value in annotations.items():
            key = f"service.cilium.io/{word}"
            undo.append((cluster, service, key))
            mesh.lab("annotate", f"{cluster}/{service}", f"{key}={value}")

    yield annotate
    for cluster, service, key in undo:
        mesh.lab("annotate", f"{cluster}/{service}", f"{key}-")


def answering(mesh: World, cluster: str, service: str = "rebel-base", node: int = 1) -> set[str]:
    pod = mesh.pod(cluster, "client", node)
    return set(mesh.clusters(pod, mesh.service_ip(cluster, service)))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("cluster", sorted(BOTH))
@pytest.mark.parametrize("node", [1, 2])
def test_a_global_service_answers_from_both_clusters_on_every_node(
    mesh: World, cluster, node, protocol
):
    pod = mesh.pod(cluster, "client", node)
    answers = mesh.clusters(pod, mesh.service_ip(cluster, "rebel-base"), protocol=protocol)
    assert set(answers) == BOTH, answers


def test_a_client_sees_the_service_address_it_asked_for(mesh: World):
    address = mesh.service_ip("cluster-a", "rebel-base")
    for answer in mesh.ask(mesh.pod("cluster-a", "client"), address, count=10):
        assert answer["sees"] == f"{address}:80", answer


def test_a_service_that_is_not_global_gets_no_remote_backends(mesh: World):
    assert answering(mesh, "cluster-a", "private-base") == {"cluster-a"}
    assert answering(mesh, "cluster-b", "private-base") == {"cluster-b"}


def test_not_shared_keeps_the_other_from_getting_backends_and_not_the_reverse(
    mesh: World, annotated
):
    annotated("cluster-b", "rebel-base", shared="false")
    eventually("cluster-a lost the backends", lambda: answering(mesh, "cluster-a") == {"cluster-a"})
    assert answering(mesh, "cluster-b") == BOTH


def test_affinity_local_stays_at_home_while_somebody_is_there(mesh: World, annotated):
    annotated("cluster-a", "rebel-base", affinity="local")
    eventually("only local answers", lambda: answering(mesh, "cluster-a") == {"cluster-a"})
    assert answering(mesh, "cluster-b") == BOTH
    mesh.lab("scale", "cluster-a/rebel-base", "0")
    try:
        eventually("remote answers", lambda: answering(mesh, "cluster-a") == {"cluster-b"})
    finally:
        mesh.lab("scale", "cluster-a/rebel-base", "2")
    eventually("local is back", lambda: answering(mesh, "cluster-a") == {"cluster-a"})


def test_affinity_remote_prefers_the_others(mesh: World, annotated):
    annotated("cluster-a", "rebel-base", affinity="remote")
    eventually("only remote answers", lambda: answering(mesh, "cluster-a") == {"cluster-b"})
    mesh.lab("annotate", "cluster-a/rebel-base", f"{AFFINITY}=none")
    eventually("both answer", lambda: answering(mesh, "cluster-a") == BOTH)


def test_a_service_stops_being_global_and_becomes_so_again(mesh: World):
    glob = "service.cilium.io/global"
    mesh.lab("annotate", "cluster-a/rebel-base", f"{glob}=false")
    try:
        eventually("only local answers", lambda: answering(mesh, "cluster-a") == {"cluster-a"})
        eventually("it left the others", lambda: answering(mesh, "cluster-b") == {"cluster-b"})
    finally:
        mesh.lab("annotate", "cluster-a/rebel-base", f"{glob}=true")
    eventually("both answer", lambda: answering(mesh, "cluster-a") == BOTH)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_service_without_backends_refuses_at_once(mesh: World, protocol):
    pod = mesh.pod("cluster-a", "client")
    address = mesh.service_ip("cluster-a", "empty-base")
    (answer,) = mesh.ask(pod, address, protocol=protocol, timeout=20)
    assert answer.get("errno") == errno.EHOSTUNREACH, answer
    TOOK.append(f"refused after {answer['seconds']:.4f} s")
    assert answer["seconds"] < 10, "it waited for a time-out instead of refusing"


def test_a_new_pod_of_the_other_cluster_answers(mesh: World):
    pod = mesh.pod("cluster-a", "client")
    address = mesh.service_ip("cluster-a", "rebel-base")

    def pods() -> set[str]:
        answers = mesh.ask(pod, address, count=40)
        return {answer["pod"] for answer in answers if answer.get("cluster") == "cluster-b"}

    assert len(pods()) == 2
    mesh.lab("scale", "cluster-b/rebel-base", "3")
    try:
        eventually("the third pod answers", lambda: len(pods()) == 3)
    finally:
        mesh.lab("scale", "cluster-b/rebel-base", "2")
    eventually("it is gone again", lambda: len(pods()) == 2)
