"""Pods of two clusters reach each other by address, and the wire says who speaks."""

import pytest

from tests.e2e.world import World, vnis

PORT = 8080


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("here", "there"), [("cluster-a", "cluster-b"), ("cluster-b", "cluster-a")]
)
@pytest.mark.parametrize("node", [1, 2])
def test_a_pod_reaches_every_pod_of_the_other_cluster(mesh: World, here, there, protocol, node):
    client = mesh.pod(here, "client", node)
    for server in mesh.pods(there, "rebel-base"):
        (answer,) = mesh.ask(client, server.ips[0], PORT, protocol=protocol)
        assert answer.get("pod") == server.name, answer
        assert answer["cluster"] == there
        assert answer["peer"].startswith(client.ips[0] + ":"), "the source was translated"


def test_the_vni_is_the_identity_of_the_pod_that_speaks(mesh: World):
    client = mesh.pod("cluster-a", "client")
    server = mesh.pod("cluster-b", "rebel-base", 2)
    with mesh.capture() as lines:
        for protocol in ("tcp", "udp"):
            (answer,) = mesh.ask(client, server.ips[0], PORT, protocol=protocol)
            assert answer.get("pod") == server.name, answer
    seen = vnis(lines)
    ours, theirs = mesh.identity_of(client), mesh.identity_of(server)
    assert ours >> 16 == 1
    assert theirs >> 16 == 2
    assert seen[client.ips[0]] == {ours}, lines
    assert seen[server.ips[0]] == {theirs}, lines
