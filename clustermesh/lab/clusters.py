"""One cluster of a lab as files and command lines: certificates, configuration, processes."""

import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from clustermesh import meshfile
from clustermesh.lab import echo, manifests
from clustermesh.lab.manifests import Manifest, Pod
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import command
from clustermesh.lab.topology import ECHO_PORT, ETCD_PORT, Addresses, Cluster, Topology
from clustermesh.pki import MESH_DOMAIN, Authority, write_private

USERS_RECHECK = "0.2"
PROPAGATION_INTERVAL = "1"
JOIN_PORT = 9882
KVSTOREMESH_DRAIN_WAIT = "2s"
PYTHON = (sys.executable, "-P", "-m")


class ClusterFiles:
    """Writes what a cluster's processes read, and says how to start them."""

    def __init__(self, paths: Paths, topology: Topology, cluster: Cluster, cgroup: Path) -> None:
        self.paths = paths
        self.topology = topology
        self.cluster = cluster
        self._cgroup = cgroup
        self._addresses = Addresses(topology)
        self._pki = paths.pki(cluster.name)

    def write(self, pods: Iterable[Pod]) -> None:
        """Everything; the directories as well."""
        name = self.cluster.name
        remotes = (self.paths.remotes(name), self.paths.agent_remotes(name))
        for directory in (self._pki, self.paths.manifests(name), *remotes):
            directory.mkdir(parents=True, exist_ok=True)
        self._certificates()
        self._client("admin", f"https://127.0.0.1:{ETCD_PORT}")
        control_plane = _host(self._addresses.control_plane(name))
        for user in ("agent", "local"):
            self._client(user, f"https://{control_plane}:{ETCD_PORT}")
        write_private(self.paths.users(name), b"users: []\n")
        pods = list(pods)
        self.write_manifests(manifests.standing(self.topology, self.cluster))
        mine = [pod for pod in pods if pod.cluster == name]
        self.write_manifests(manifests.for_pod(self.topology, self.cluster, pod) for pod in mine)
        self.write_slices(pods)

    def write_manifests(self, documents: Iterable[Manifest]) -> None:
        """Each in a file of its own, replaced in one step."""
        for document in documents:
            path = self.paths.manifests(self.cluster.name) / manifests.file_name(document)
            write_yaml(path, document)

    def write_slices(self, pods: Iterable[Pod]) -> None:
        self.write_manifests(manifests.slices(self.cluster, pods))

    def remove_pod(self, pod: Pod) -> None:
        document = manifests.for_pod(self.topology, self.cluster, pod)
        path = self.paths.manifests(self.cluster.name) / manifests.file_name(document)
        path.unlink(missing_ok=True)

    def etcd(self) -> tuple[str, ...]:
        name, peer = self.cluster.name, "http://127.0.0.1:2380"
        address = f"https://{_host(self._addresses.control_plane(name))}:{ETCD_PORT}"
        return self._in_control_plane(
            shutil.which("etcd") or "etcd",  # this very one at every restart, whatever PATH says
            *("--name", name, "--data-dir", str(self.paths.cluster(name) / "etcd")),
            *("--listen-client-urls", f"{address},https://127.0.0.1:{ETCD_PORT}"),
            *("--advertise-client-urls", address),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            # etcd's own cluster id is made from these: two etcds must never have the same one.
            *("--initial-cluster", f"{name}={peer}", "--initial-cluster-token", str(uuid.uuid4())),
            "--client-cert-auth",
            *("--trusted-ca-file", str(self._pki / "ca.crt")),
            *("--cert-file", str(self._pki / "server.crt")),
            *("--key-file", str(self._pki / "server.key")),
            *("--auto-compaction-retention", "1", "--enable-grpc-gateway=false"),
            *("--logger", "zap", "--log-outputs", "stderr"),
        )

    def apiserver(self) -> tuple[str, ...]:
        name = self.cluster.name
        return self._in_control_plane(
            *(*PYTHON, "clustermesh.apiserver.main"),
            *("--cluster-name", name, "--cluster-id", str(self.cluster.id)),
            *("--etcd-config", str(self._client_file("admin"))),
            *("--source", "directory", "--manifests", str(self.paths.manifests(name))),
            *("--cluster-users-config-path", str(self.paths.users(name))),
            *("--state-dir", str(self.paths.cluster(name) / "apiserver")),
            *("--api-socket", str(self.paths.apiserver_socket(name))),
            *("--cluster-users-recheck", USERS_RECHECK),
            *("--join-listen", f"{_host(self._addresses.control_plane(name))}:{JOIN_PORT}"),
            *("--join-mesh", str(self.paths.mesh)),
            *("--propagation-interval", PROPAGATION_INTERVAL),
            *("--max-connected-clusters", str(self.topology.max_connected_clusters)),
            *self.topology.apiserver_flags,
        )

    def kvstoremesh(self) -> tuple[str, ...]:
        name = self.cluster.name
        return self._in_control_plane(
            *(*PYTHON, "clustermesh.kvstoremesh.main"),
            *("--cluster-name", name, "--cluster-id", str(self.cluster.id)),
            *("--etcd-config", str(self._client_file("admin"))),
            *("--clustermesh-config", str(self.paths.remotes(name))),
            *("--api-socket", str(self.paths.kvstoremesh_socket(name))),
            *("--drain-wait", KVSTOREMESH_DRAIN_WAIT),
            *("--max-connected-clusters", str(self.topology.max_connected_clusters)),
            *self.topology.kvstoremesh_flags,
        )

    def agent(self, number: int) -> tuple[str, ...]:
        name, node = self.cluster.name, f"node-{number}"
        cgroup = self.paths.node_cgroup(self._cgroup, name, node)
        program = (
            *(*PYTHON, "agent.main"),
            *("--cluster-name", name, "--cluster-id", str(self.cluster.id)),
            *("--node-name", node, "--node-ip", self._addresses.node(name, number)),
            *("--etcd-config", str(self._client_file("agent"))),
            *("--clustermesh-config", str(self._agent_remotes())),
            *("--state-dir", str(self.paths.node(name, node) / "state")),
            *("--bpf-root", str(self.paths.bpf(name, node))),
            *("--cgroup-root", str(cgroup), "--kube-proxy-replacement"),
            *("--api-socket", str(self.paths.agent_socket(name, node))),
            *("--max-connected-clusters", str(self.topology.max_connected_clusters)),
            *self.topology.agent_flags,
        )
        return command(self.paths.node_netns(name, node), cgroup, program)

    def echo(self, pod: Pod) -> tuple[str, ...]:
        program = (
            *(sys.executable, "-I", "-S", echo.__file__),
            *(pod.cluster, pod.node_name, pod.name, str(ECHO_PORT)),
        )
        cgroup = self.paths.node_cgroup(self._cgroup, pod.cluster, pod.node_name)
        return command(self.paths.pod_netns(pod.cluster, pod.name), cgroup, program)

    def mesh_entry(self) -> meshfile.Cluster:
        """The cluster as ``meshctl connect`` needs to know it."""
        name = self.cluster.name
        server = f"{name}.{MESH_DOMAIN}"
        return meshfile.Cluster(
            name=name,
            id=self.cluster.id,
            endpoints=(f"https://{server}:{ETCD_PORT}",),
            host_aliases={server: (self._addresses.control_plane(name),)},
            ca_cert=self._pki / "ca.crt",
            ca_key=self._pki / "ca.key",
            config_dir=self.paths.remotes(name),
            agent_config_dir=self._agent_remotes() if self.topology.kvstoremesh else None,
            cache_client=self._client_file("local") if self.topology.kvstoremesh else None,
            users_file=self.paths.users(name),
            apiserver=f"unix:{self.paths.apiserver_socket(name)}",
            kvstoremesh=f"unix:{self.paths.kvstoremesh_socket(name)}"
            if self.topology.kvstoremesh
            else "",
            nodes=tuple(
                meshfile.Node(
                    name=node,
                    agent=f"unix:{self.paths.agent_socket(name, node)}",
                    bpf_root=str(self.paths.bpf(name, node)),
                )
                for node in self.cluster.node_names()
            ),
        )

    def _certificates(self) -> None:
        name, pki = self.cluster.name, self._pki
        authority = Authority.create(name)
        authority.write(pki / "ca.crt", pki / "ca.key")
        families = self._addresses.families()
        ips = [self._addresses.control_plane(name, family) for family in families]
        authority.server(ips).write(pki / "server.crt", pki / "server.key")
        for user in ("admin", "agent", "local"):
            pair = authority.client(f"{user}-{name}")
            pair.write(pki / f"{user}.crt", pki / f"{user}.key")

    def _client(self, user: str, endpoint: str) -> None:
        write_yaml(
            self._client_file(user),
            {
                "endpoints": [endpoint],
                "trusted-ca-file": str(self._pki / "ca.crt"),
                "cert-file": str(self._pki / f"{user}.crt"),
                "key-file": str(self._pki / f"{user}.key"),
            },
        )

    def _agent_remotes(self) -> Path:
        name = self.cluster.name
        behind = self.topology.kvstoremesh
        return self.paths.agent_remotes(name) if behind else self.paths.remotes(name)

    def _client_file(self, user: str) -> Path:
        return self.paths.cluster(self.cluster.name) / f"etcd-{user}.yaml"

    def _in_control_plane(self, *program: str) -> tuple[str, ...]:
        netns = self.paths.control_plane_netns(self.cluster.name)
        cgroup = self.paths.control_plane_cgroup(self._cgroup, self.cluster.name)
        return command(netns, cgroup, program)


def write_yaml(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file in one step, unless it says so already."""
    content = yaml.safe_dump(document, sort_keys=False).encode()
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
