"""Where a lab keeps its things, and what its things are called."""

import os
from pathlib import Path

ROOT_VARIABLE = "CLUSTERMESH_LAB_ROOT"
DEFAULT_ROOT = Path("/run/clustermesh")


def lab_root() -> Path:
    """The directory with one directory per lab."""
    return Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)


class Paths:
    """The files, namespaces and cgroups of one lab.

    A lab's name has no ``-``, so that no lab's prefix is the beginning of another's.
    """

    def __init__(self, lab: str, root: Path | None = None) -> None:
        self.lab = lab
        self.root = root or lab_root()
        self.top = self.root / lab
        self.lock = self.root / f".{lab}.lock"
        self.state = self.top / "state.json"
        self.mesh = self.top / "mesh.yaml"

    @property
    def prefix(self) -> str:
        return f"cm-{self.lab}-"

    @property
    def underlay_netns(self) -> str:
        return f"{self.prefix}underlay"

    def control_plane_netns(self, cluster: str) -> str:
        return f"{self.prefix}{cluster}.control-plane"

    def node_netns(self, cluster: str, node: str) -> str:
        return f"{self.prefix}{cluster}.{node}"

    def pod_netns(self, cluster: str, pod: str) -> str:
        return f"{self.prefix}{cluster}.pod.{pod}"

    def cgroup(self, mount: Path) -> Path:
        return mount / f"cm-{self.lab}"

    def control_plane_cgroup(self, mount: Path, cluster: str) -> Path:
        return self.cgroup(mount) / f"{cluster}.control-plane"

    def node_cgroup(self, mount: Path, cluster: str, node: str) -> Path:
        return self.cgroup(mount) / f"{cluster}.{node}"

    def cluster(self, cluster: str) -> Path:
        return self.top / "clusters" / cluster

    def pki(self, cluster: str) -> Path:
        return self.cluster(cluster) / "pki"

    def manifests(self, cluster: str) -> Path:
        return self.cluster(cluster) / "manifests"

    def remotes(self, cluster: str) -> Path:
        """The directory with one etcd client file per remote cluster."""
        return self.cluster(cluster) / "clustermesh"

    def agent_remotes(self, cluster: str) -> Path:
        """The same for the agents, where a kvstoremesh stands between them and the remotes."""
        return self.cluster(cluster) / "clustermesh-agents"

    def kvstoremesh_socket(self, cluster: str) -> Path:
        return self.cluster(cluster) / "kvstoremesh.sock"

    def users(self, cluster: str) -> Path:
        return self.cluster(cluster) / "users.yaml"

    def apiserver_socket(self, cluster: str) -> Path:
        return self.cluster(cluster) / "apiserver.sock"

    def node(self, cluster: str, node: str) -> Path:
        return self.cluster(cluster) / "nodes" / node

    def agent_socket(self, cluster: str, node: str) -> Path:
        return self.node(cluster, node) / "agent.sock"

    def bpf(self, cluster: str, node: str) -> Path:
        return self.node(cluster, node) / "bpf"

    def log(self, target: str) -> Path:
        """``cluster-a/node-1/agent`` logs to ``clusters/cluster-a/logs/node-1.agent.log``."""
        cluster, _, rest = target.partition("/")
        return self.cluster(cluster) / "logs" / f"{rest.replace('/', '.')}.log"
