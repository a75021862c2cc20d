"""A connected UDP socket is told when its backend is gone, instead of talking to nobody."""

from tests.e2e import checks
from tests.e2e.world import World


def test_an_established_udp_socket_lets_go_of_a_backend_that_is_gone(mesh: World):
    address = mesh.service_ip("cluster-a", "rebel-base")
    pod = mesh.pod("cluster-a", "client")
    with mesh.going_on("hold", pod, "udp", address, "80") as seen:
        cluster = seen["first"]["cluster"]
        mesh.lab("scale", f"{cluster}/rebel-base", "0")
        try:
            checks.settled(mesh, "cluster-a", checks.BOTH - {cluster})
        finally:
            mesh.lab("scale", f"{cluster}/rebel-base", "2")
    errors = seen["result"]["errors"]
    assert any("ConnectionAborted" in it or "Destination address" in it for it in errors), errors
    checks.settled(mesh, "cluster-a", checks.BOTH)
