"""What is asked of a mesh whose agents read remote clusters from a cache."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clustermesh import keys
from clustermesh.keys import Kind, Layout
from tests.e2e import checks
from tests.e2e.world import World

KINDS = (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)


@contextmanager
def traffic(mesh: World) -> Iterator[list[dict[str, Any]]]:
    """Clients at work in cluster-a during the block; afterwards what they saw."""
    client, service = mesh.pod("cluster-a", "client"), mesh.service_ip("cluster-a", "rebel-base")
    server = mesh.pod("cluster-b", "rebel-base")
    seen: list[dict[str, Any]] = []
    with (
        mesh.going_on("hold", client, "tcp", server.ips[0], "8080") as held,
        mesh.going_on("knock", client, "tcp", service, "80", "5") as knocked,
    ):
        yield seen
    seen += [{"held": held["result"]}, {"knocked": knocked["result"]}]


def nobody_noticed(seen: list[dict[str, Any]]) -> None:
    """A connection that stood goes on, and every new one was answered."""
    held, knocked = seen[0]["held"], seen[1]["knocked"]
    assert held["errors"] == []
    assert held["answered"] > 0
    assert set(Counter(one.get("error", "answered") for one in knocked)) == {"answered"}, knocked


def answering_pods(mesh: World, cluster: str, *, of: str) -> set[str]:
    """The pods of one cluster that answer in another."""
    client, service = mesh.pod(cluster, "client"), mesh.service_ip(cluster, "rebel-base")
    answers = mesh.ask(client, service, count=60)
    return {answer["pod"] for answer in answers if answer.get("cluster") == of}


def agents_read_the_cache(mesh: World) -> None:
    """What an agent knows of a remote cluster is a copy in its own cluster's etcd."""
    for name, agent in mesh.json("status")["agents"].items():
        own = agent["own"]["status"].partition("ID: ")[2]
        assert own, name
        for remote in agent["remotes"]:
            assert remote["config"]["kvstoremesh"], (name, remote)
            assert remote["status"].endswith(own), (name, remote["status"])


def wipe(mesh: World, cluster: str) -> None:
    """Its etcd loses everything; whoever writes into it notices by itself."""
    mesh.lab("kill", f"{cluster}/etcd")
    shutil.rmtree(mesh.paths.cluster(cluster) / "etcd")
    mesh.lab("restart", f"{cluster}/etcd")


def copied(mesh: World, cluster: str, *, of: str) -> bool:
    """Whether the cache holds, byte for byte, what the other cluster publishes."""
    return all(
        _values(mesh, cluster, keys.prefix(kind, Layout.CACHE, of))
        == _values(mesh, of, keys.prefix(kind, Layout.STATE, of))
        for kind in KINDS
    )


def _values(mesh: World, cluster: str, prefix: str) -> dict[str, str]:
    lines = mesh.etcd(cluster, "get", "--prefix", prefix).splitlines()
    return {
        key.removeprefix(prefix): value for key, value in zip(lines[::2], lines[1::2], strict=True)
    }


def everything_is_right(mesh: World) -> None:
    """The short list, and caches that equal their sources."""
    for cluster in sorted(checks.BOTH):
        checks.settled(mesh, cluster, checks.BOTH)
    mesh.meshctl("status", "--wait", "--timeout", "60")
    checks.the_short_list(mesh)
    for here, there in (("cluster-a", "cluster-b"), ("cluster-b", "cluster-a")):
        assert copied(mesh, here, of=there), here
