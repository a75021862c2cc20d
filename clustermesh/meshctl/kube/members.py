"""A cluster as its Kubernetes tells it: name, id, how its etcd and its agents are reached."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

import msgspec

from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.kube.pods import Process
from clustermesh.meshctl.output import complain
from clustermesh.meshfile import Cluster, Mesh, Node
from clustermesh.places import secrets, service
from clustermesh.places.connection import Connection, Object, connection
from clustermesh.places.service import SERVICE

AGENTS: Final = "clustermesh-agent"
KVSTOREMESH: Final = "kvstoremesh"
LOOPBACK: Final = ("127.", "localhost", "[::1]")


def mesh_of(contexts: Sequence[str], kubeconfig: str, namespace: str) -> Mesh:
    """The clusters of some contexts. Raises ``MeshctlError`` or ``NoAnswer``."""
    found = tuple(discover(context, kubeconfig, namespace) for context in contexts)
    size = max((size_of(one) for one in found), default=255)
    for field in ("name", "id"):
        values = [str(getattr(one, field)) for one in found]
        for twice in sorted({value for value in values if values.count(value) > 1}):
            who = " and ".join(it.context for it in found if str(getattr(it, field)) == twice)
            raise MeshctlError(f"contexts {who} are clusters of the same {field} {twice}.")
    return Mesh(clusters=found, max_connected_clusters=size)


def discover(context: str, kubeconfig: str, namespace: str) -> Cluster:
    """A member that nothing but a context is known of."""
    made = connection(context, kubeconfig)
    settings, deployment = cilium_config(made, namespace), _deployment(made, namespace)
    arguments = _arguments(deployment)
    name = settings.get("cluster-name") or arguments.get("cluster-name", "")
    number = settings.get("cluster-id") or arguments.get("cluster-id", "")
    if not name or not number.isdecimal():
        raise MeshctlError(
            f"context {context}: namespace {namespace} has neither the ConfigMap cilium-config nor"
            f" the Deployment {SERVICE}; name their namespace with -n, or install the chart.",
            Exit.USAGE,
        )
    known = Cluster(
        name=name, id=int(number), context=context, kubeconfig=kubeconfig, namespace=namespace
    )
    return complete(known)


def complete(cluster: Cluster) -> Cluster:
    """What the mesh file leaves open is had from the cluster's Kubernetes."""
    made, space = connection(cluster.context, cluster.kubeconfig), cluster.namespace
    endpoints, aliases = cluster.endpoints, cluster.host_aliases
    if not endpoints:
        endpoints, found = service.etcd(made, space, cluster.name)
        aliases = dict(found)
    pods = _Pods(made, cluster)
    ours = _is_ours(_deployment(made, space))  # Cilium's apiserver has no such API
    return msgspec.structs.replace(
        cluster,
        endpoints=endpoints,
        host_aliases=aliases,
        cilium=is_cilium(made, space),
        shared_user=not lists_users(made, space),
        apiserver=cluster.apiserver or (pods.first("apiserver") if ours else ""),
        kvstoremesh=cluster.kvstoremesh or (pods.first(KVSTOREMESH) if ours else ""),
        nodes=cluster.nodes or tuple(pods.nodes()),
    )


def cilium_config(made: Connection, namespace: str) -> Mapping[str, str]:
    """What Cilium was installed with; empty where it was not."""
    found = made.get(f"/api/v1/namespaces/{namespace}/configmaps/cilium-config")
    return (found or {}).get("data") or {}


def is_cilium(made: Connection, namespace: str) -> bool:
    """Whether the control plane of the mesh there is Cilium's own."""
    return bool(cilium_config(made, namespace)) and not _is_ours(_deployment(made, namespace))


def has_kvstoremesh(made: Connection, namespace: str) -> bool:
    """Whether agents read copies of remote clusters in the own etcd."""
    spec = _deployment(made, namespace).get("spec", {}).get("template", {}).get("spec", {})
    return any(it.get("name") == KVSTOREMESH for it in spec.get("containers", []))


def is_behind_kvstoremesh(made: Connection, namespace: str) -> bool:
    """Whether the remote clusters are those of a kvstoremesh. Our chart's Secret for it may be left
    from another time; where the control plane is not ours, its being there says so.
    """
    if has_kvstoremesh(made, namespace):
        return True
    if _is_ours(_deployment(made, namespace)):
        return False
    return secrets.secret(made, namespace, secrets.FOR_KVSTOREMESH).exists()


def lists_users(made: Connection, namespace: str) -> bool:
    """Whether the etcd's readers are those of the ConfigMap. Helm keeps it when joining is switched
    off: our apiserver says whether it reads it.
    """
    arguments = _arguments(_deployment(made, namespace))
    if "source" in arguments and "cluster-users-config-path" not in arguments:
        return False
    return secrets.users(made, namespace).exists()


def size_of(cluster: Cluster) -> int:
    """How many clusters its mesh may have."""
    made = connection(cluster.context, cluster.kubeconfig)
    key = "max-connected-clusters"
    text = cilium_config(made, cluster.namespace).get(key) or _arguments(
        _deployment(made, cluster.namespace)
    ).get(key, "")
    return int(text) if text.isdecimal() else 255


def _deployment(made: Connection, namespace: str) -> Object:
    return made.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{SERVICE}") or {}


def _is_ours(deployment: Object) -> bool:
    """Whether the control plane is ours: it says which source it reads."""
    return "source" in _arguments(deployment)


def _arguments(workload: Object) -> dict[str, str]:
    """``--name=value`` of every container of a pod, or of a template for pods."""
    spec = workload.get("spec", {})
    spec = spec.get("template", {}).get("spec", spec)
    found: dict[str, str] = {}
    for container in spec.get("containers", []):
        for word in (*container.get("command", ()), *container.get("args", ())):
            name, equals, value = word.removeprefix("--").partition("=")
            if word.startswith("--") and equals:
                found.setdefault(name, value)
    return found


def _pods(made: Connection, namespace: str, app: str) -> list[Object]:
    """Those that run and are not about to end: beside one of a rollout its successor runs."""
    path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=k8s-app%3D{app}"
    return [
        pod
        for pod in made.items(path)
        if pod.get("status", {}).get("phase") == "Running"
        and "deletionTimestamp" not in pod["metadata"]
    ]


def logs(cluster: Cluster) -> Iterator[tuple[str, str, str]]:
    """Pod, container, and the path of its log, of all that is of the mesh. Raises ``NoAnswer``."""
    made, space = connection(cluster.context, cluster.kubeconfig), cluster.namespace
    for app in (SERVICE, AGENTS):
        for pod in _pods(made, space, app):
            name = str(pod["metadata"]["name"])
            for container in pod.get("spec", {}).get("containers", []):
                path = f"/api/v1/namespaces/{space}/pods/{name}/log?container={container['name']}"
                yield name, container["name"], path


def _node_name(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))


class _Pods:
    """The processes of a cluster's pods, and how they are asked."""

    def __init__(self, made: Connection, cluster: Cluster) -> None:
        self._made = made
        self._cluster = cluster

    def first(self, container: str) -> str:
        """The URL of one in the first pod of the control plane; empty where there is none."""
        for pod in _pods(self._made, self._cluster.namespace, SERVICE):
            return self._url(pod, container)
        return ""

    def nodes(self) -> Iterator[Node]:
        for pod in sorted(_pods(self._made, self._cluster.namespace, AGENTS), key=_node_name):
            agent = self._url(pod, "agent")
            root = _arguments(pod).get("bpf-root", "") if agent else ""
            yield Node(name=_node_name(pod), agent=agent, bpf_root=root)

    @cached_property
    def _may_exec(self) -> bool:
        space = self._cluster.namespace
        if self._made.may("get", "pods", "exec", space):
            return True
        complain(
            f"context {self._cluster.context}: you have no right to get pods/exec in namespace"
            f" {space}: its processes are asked on TCP ports, where they listen on one, and there"
            " they try no ways and change nothing."
        )
        return False

    def _url(self, pod: Object, container: str) -> str:
        """Empty where no such container is in the pod, or it cannot be asked from here."""
        chosen = [it for it in pod["spec"].get("containers", []) if it.get("name") == container]
        if not chosen:
            return ""
        given = _arguments({"spec": {"containers": chosen}})
        socket = given.get("api-socket", f"/run/clustermesh/{container}.sock")
        host, _, port = given.get("api-listen", "").rpartition(":")
        found = Process(
            context=self._made.context,
            kubeconfig=self._cluster.kubeconfig,
            namespace=self._cluster.namespace,
            pod=pod["metadata"]["name"],
            container=container,
            socket=socket if self._may_exec else "",
            port="" if not host or host.startswith(LOOPBACK) else port,
        )
        return found.url if found.socket or found.port else ""
