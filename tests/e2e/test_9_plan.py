"""Accidents that only a plan looks for, each of them real; a plan names them and nothing else.

Plans are made in this process, which spares a start of meshctl for each.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import yaml

from clustermesh import meshfile
from clustermesh.findings import Finding, Result
from clustermesh.lab import operate
from clustermesh.meshctl import plan
from clustermesh.meshctl.kube import members as reading
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.pki import Authority
from tests.e2e.world import World, eventually
from tests.support.bpf import inside
from tests.support.kube.members import SPACE, members
from tests.support.provoked import provokes, witnessed
from tests.support.seccomp import REFUSES_MAPS

NODES = ("node-1", "node-2")
NODE_PORT = 30881


def wrong(mesh: Mesh) -> dict[str, Finding]:
    """What a plan of all clusters of a mesh finds that is not well, by code."""
    made = plan.make(mesh, [cluster.name for cluster in mesh.clusters])
    bad = {it.code: it for it in made.findings if it.result is not Result.OK}
    witnessed(it.code for it in made.findings)
    assert all(it.seen and it.fix for it in bad.values())
    assert bad.pop("PLAINTEXT")
    return bad


def clusters(mesh: World) -> tuple[Mesh, Cluster, Cluster]:
    """The lab's mesh file and its entries."""
    loaded = meshfile.load(mesh.paths.mesh)
    a, b = loaded.clusters
    return loaded, a, b


def told(mesh: World) -> dict[str, Finding]:
    return wrong(meshfile.load(mesh.paths.mesh))


def until(what: str, mesh: World, codes: set[str]) -> dict[str, Finding]:
    """Until a plan finds exactly these."""
    found: dict[str, Finding] = {}

    def same() -> bool:
        found.clear()
        found.update(told(mesh))
        return found.keys() == codes

    eventually(what, same)
    return found


@provokes(
    "NAME_MISMATCH", "ID_MISMATCH", "ID_RANGE", "MAX_CLUSTERS", "UNASKED", "ENDPOINT_TAKEN"
)  # fmt: skip
def test_a_mesh_file_that_is_of_another_mesh(mesh: World):
    """Names, ids and size as no process has them; one address for two etcds."""
    _, a, b = clusters(mesh)
    nodes = (b.nodes[0], meshfile.Node(name="node-2"))
    other = msgspec.structs.replace(
        b, name="cluster-x", id=600, nodes=nodes, endpoints=a.endpoints, host_aliases=a.host_aliases
    )
    found = wrong(Mesh(clusters=(a, other), max_connected_clusters=511))
    assert found.keys() >= {
        "NAME_MISMATCH", "ID_MISMATCH", "ID_RANGE", "MAX_CLUSTERS", "UNASKED", "ENDPOINT_TAKEN",
    }  # fmt: skip
    assert "cluster-b" in found["NAME_MISMATCH"].seen
    assert "600" in found["ID_RANGE"].seen
    assert "node-2" in found["UNASKED"].seen


@provokes("CA_EXPIRED", "CA_UNUSABLE", "CA_EXPIRES", "ENDPOINT_NONE")
def test_authorities_that_cannot_sign(mesh: World, tmp_path: Path):
    _, a, b = clusters(mesh)
    now = datetime.now(UTC)

    def with_ca(cluster: Cluster, days: int) -> Cluster:
        """With an authority whose ten years began so long ago."""
        files = tmp_path / f"{cluster.name}-{days}.crt", tmp_path / f"{cluster.name}-{days}.key"
        Authority.create(cluster.name, now=now - timedelta(days=days)).write(*files)
        return msgspec.structs.replace(cluster, ca_cert=files[0], ca_key=files[1])

    crossed = msgspec.structs.replace(b, ca_key=a.ca_key)
    found = wrong(Mesh(clusters=(with_ca(a, 3660), crossed)))
    assert found.keys() == {"CA_EXPIRED", "CA_UNUSABLE"}
    assert found["CA_UNUSABLE"].where == str(b.ca_cert)
    found = wrong(Mesh(clusters=(with_ca(a, 3640), msgspec.structs.replace(b, endpoints=()))))
    assert found.keys() >= {"CA_EXPIRES", "ENDPOINT_NONE"}
    assert found["CA_EXPIRES"].result is Result.WARNING


def node(name: str, address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }  # fmt: skip


def service(name: str, address: str, **spec: Any) -> dict[str, Any]:
    port = {"name": "web", "protocol": "TCP", "port": 80, **spec.pop("port", {})}
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [port], **spec},
    }  # fmt: skip


@contextmanager
def listening(command: Sequence[str]) -> Iterator[None]:
    """A process that says a line once it listens."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


LISTENS = (
    "import socket, sys, time\n"
    "with socket.create_server(('', int(sys.argv[1]))):\n"
    "    print('listens', flush=True)\n"
    "    time.sleep(600)\n"
)

ADDRESSES = {
    "NODE_ADDRESS_TAKEN", "NODE_IN_POD_CIDR", "NODE_IS_SERVICE", "SERVICE_IN_POD_CIDR",
    "NODE_PORT_TAKEN",
}  # fmt: skip


@provokes(
    "NODE_ADDRESS_TAKEN", "NODE_IN_POD_CIDR", "NODE_IS_SERVICE", "SERVICE_IN_POD_CIDR",
    "NODE_PORT_TAKEN",
)  # fmt: skip
def test_addresses_that_two_clusters_cannot_both_have(mesh: World):
    """Nodes and services that somebody adds to cluster-b while the two are apart."""
    mesh.meshctl("disconnect", "cluster-a", "cluster-b")
    pod = mesh.pod("cluster-a", "client")
    documents = [
        node(
            "twin",
            mesh.manifest("cluster-a", "Node", "node-1")["status"]["addresses"][0]["address"],
        ),
        node("in-pods", pod.ips[0]),
        node("is-service", mesh.service_ip("cluster-a", "rebel-base")),
        service("in-pods", mesh.pods("cluster-a", "rebel-base")[0].ips[0]),
        service("taken", "10.102.0.250", type="NodePort", port={"nodePort": NODE_PORT}),
    ]
    path = mesh.paths.manifests("cluster-b") / "added-by-a-test.yaml"
    command = mesh.on_node("cluster-b", "node-1", sys.executable, "-c", LISTENS, str(NODE_PORT))
    try:
        path.write_text(yaml.safe_dump_all(documents))
        with listening(command):
            found = until("every clash of addresses is named", mesh, ADDRESSES)
    finally:
        path.unlink(missing_ok=True)
    assert f"{NODE_PORT}/TCP of default/taken" in found["NODE_PORT_TAKEN"].seen
    assert "node-1" in found["NODE_PORT_TAKEN"].seen
    until("the clashes are gone", mesh, set())


def test_a_way_that_goes_one_way_only_is_named(lab: World):
    """Unicast: cluster-a reads cluster-b; no packet comes back before both do."""
    both = ("cluster-a", "cluster-b")
    lab.meshctl("disconnect", *both)  # as the test before left them: that spares a connection
    lab.meshctl("connect", *both, "--connection-mode", "unicast")
    assert (lab.paths.remotes("cluster-a") / "cluster-b").exists()
    assert not (lab.paths.remotes("cluster-b") / "cluster-a").exists()
    assert "cluster-b does not follow it" in lab.meshctl("status").stdout
    lab.meshctl("connect", *both, "--connection-mode", "bidirectional")
    assert "does not follow" not in lab.meshctl("status").stdout


@contextmanager
def otherwise(mesh: World, target: str, *wrapper: str) -> Iterator[None]:
    """An agent started again under a wrapper, such as ``env``; afterwards as it was."""
    try:
        operate.wait_restarted(
            mesh.paths, operate.restart(mesh.paths, [target], wrapper=wrapper), _quiet
        )
        yield
    finally:
        operate.wait_restarted(mesh.paths, operate.restart(mesh.paths, [target]), _quiet)


def _quiet(_: str) -> None:
    """Nothing is told of a restart."""


@provokes(
    "TUNNEL_PORT", "MTU_DIFFERS", "MTU_TOO_LARGE", "VERSION_SKEW", "REACH_UNKNOWN", "UDP_UNTRIED"
)
def test_an_agent_that_was_started_otherwise(mesh: World, tmp_path: Path):
    """With other flags, of another release, and with its API where not everything is answered."""
    (tmp_path / "sitecustomize.py").write_text(
        "import clustermesh.version\nclustermesh.version.VERSION = '0.2.0'\n"
    )
    api = "127.0.0.1:9885"
    settings = (
        "env", f"PYTHONPATH={tmp_path}", "CLUSTERMESH_MTU=1500", "CLUSTERMESH_TUNNEL_PORT=8473",
        f"CLUSTERMESH_API_LISTEN={api}",
    )  # fmt: skip
    _, a, b = clusters(mesh)
    with otherwise(mesh, "cluster-b/node-2/agent", *settings):
        found = told(mesh)
        assert found.keys() >= {"TUNNEL_PORT", "MTU_DIFFERS", "MTU_TOO_LARGE", "VERSION_SKEW"}
        assert "8472, 8473" in found["TUNNEL_PORT"].seen
        assert found["MTU_TOO_LARGE"].where == "cluster-b/node-2"
        assert found["VERSION_SKEW"].result is Result.WARNING
        only = msgspec.structs.replace(b.nodes[1], agent=f"http://{api}")
        apart = msgspec.structs.replace(b, nodes=(only,), config_dir=tmp_path)
        remote = Mesh(clusters=(a, apart))
        found = inside(
            lambda: wrong(remote), namespace=mesh.paths.node_netns("cluster-b", "node-2")
        )
        assert found["UDP_UNTRIED"].where == "cluster-a to cluster-b"
        assert "unix socket" in found["UDP_UNTRIED"].fix
        assert found["REACH_UNKNOWN"].where == "cluster-b/node-2 to cluster-a"
    assert told(mesh) == {}


@provokes("KERNEL_LACKS")
def test_a_kernel_that_refuses_what_the_programs_need(mesh: World):
    """A seccomp filter lets no map be made, as a kernel does that does not know the kind."""
    with otherwise(mesh, "cluster-b/node-2/agent", *REFUSES_MAPS):
        found = told(mesh)
    assert found.keys() == {"KERNEL_LACKS"}
    assert "ring buffers (Linux 5.8)" in found["KERNEL_LACKS"].seen


@provokes("UDP_TRANSLATED")
def test_nodes_behind_a_translation(mesh: World):
    """What the node sends on the overlay's port leaves from another of its addresses."""

    def run(*words: str) -> None:
        subprocess.run(mesh.on_node("cluster-b", "node-1", *words), check=True)

    other = "172.30.2.200"
    run("ip", "address", "add", f"{other}/16", "dev", "eth0")
    try:
        run("nft", "add table ip translated")
        run("nft", "add chain ip translated out { type nat hook postrouting priority 100; }")
        run("nft", f"add rule ip translated out udp dport 8472 snat to {other}")
        found = told(mesh)
    finally:
        run("ip", "address", "del", f"{other}/16", "dev", "eth0")
        run("nft", "delete table ip translated")
    assert found.keys() == {"UDP_TRANSLATED"}
    assert other in found["UDP_TRANSLATED"].seen
    assert found["UDP_TRANSLATED"].where.startswith("cluster-b/node-1 to cluster-a/")
    assert told(mesh) == {}


@provokes("TUNNEL_PORT_TAKEN")
def test_a_device_of_somebody_else_has_the_port(mesh: World):
    """flannel was there first: ours moves aside, and the mesh works."""
    mine = mesh.on_node("cluster-a", "node-2", "ip", "link", "del", "cm_vxlan")
    flannel = ("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472",
               "dev", "eth0", "nolearning")  # fmt: skip

    def finding() -> Finding | None:
        loaded = meshfile.load(mesh.paths.mesh)
        made = plan.make(loaded, [cluster.name for cluster in loaded.clusters])
        witnessed(it.code for it in made.findings)
        return next((it for it in made.findings if it.code == "TUNNEL_PORT_TAKEN"), None)

    try:
        subprocess.run(mine, check=True)
        subprocess.run(mesh.on_node("cluster-a", "node-2", *flannel), check=True)
        found = eventually("ours has another port", finding)
        assert found.where == "cluster-a/node-2"
        assert "flannel.1" in found.seen
        assert told(mesh) == {}
    finally:
        subprocess.run(
            mesh.on_node("cluster-a", "node-2", "ip", "link", "del", "flannel.1"), check=True
        )
        subprocess.run(mine, check=True)
    eventually("ours has its port again", lambda: finding() is None)


@provokes("TUNNEL_PROTOCOL")
def test_a_cilium_that_speaks_another_tunnel(mesh: World, tmp_path: Path):
    """Told by its API server, against a real agent's device."""
    _, a, _ = clusters(mesh)
    with members(tmp_path) as (kubeconfig, _, paris):
        paris.exposed("192.0.2.2")
        paris.node("198.51.100.2", "10.9.0.0/24")
        paris.ca("cilium-ca", tmp_path)
        paris.deployment("clustermesh", "--cluster-name=$(CLUSTER_NAME)")
        settings = {"cluster-name": "paris", "cluster-id": "7", "tunnel-protocol": "geneve"}
        paris.put("ConfigMap", "cilium-config", {"data": settings})
        (member,) = reading.mesh_of(["there"], str(kubeconfig), SPACE).clusters
        found = wrong(Mesh(clusters=(a, member)))
    assert "geneve and vxlan" in found["TUNNEL_PROTOCOL"].seen
