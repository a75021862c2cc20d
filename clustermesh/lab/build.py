"""Build a lab: namespaces and links, certificates, etcds, apiservers, agents, pods."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from clustermesh import meshfile
from clustermesh.lab import host, preflight, processes
from clustermesh.lab.clusters import ClusterFiles
from clustermesh.lab.errors import LabError
from clustermesh.lab.manifests import Pod
from clustermesh.lab.network import Network
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import Process
from clustermesh.lab.state import Phase, State, load, locked
from clustermesh.lab.teardown import Report, remains, tear_down, uninterrupted
from clustermesh.lab.topology import Addresses, Cluster, Topology
from clustermesh.meshctl import api

READY_TIMEOUT = 60.0
START_TIMEOUT = 10.0
POLL = 0.05
LISTEN_POLL = 0.005


def up(
    paths: Paths, topology: Topology, report: Report, *, timeout: float = READY_TIMEOUT
) -> State:
    """A lab that is ready. What an interrupted run left is removed first; an error or Ctrl-C
    removes what was made. Raises ``LabError``.
    """
    mount = preflight.check()
    with locked(paths):
        if is_up(paths):
            raise LabError(
                f"the lab {paths.lab!r} is already up: look at it with `meshctl lab status`,"
                " or remove it with `meshctl lab down` and start anew."
            )
        if left := remains(paths):
            report(f"removing what is left of an earlier lab ({', '.join(left)})")
            tear_down(paths, report)
        try:
            return _Builder(paths, topology, mount, report).build(timeout)
        except BaseException:
            with uninterrupted():
                report("taking down what was made")
                tear_down(paths, report)
            raise


def is_up(paths: Paths) -> bool:
    """Whether the lab was built to its end and all of it is still there; its processes may be
    dead, since killing them is what a lab is for.
    """
    state = load(paths)
    return state is not None and state.phase is Phase.UP and _whole(paths, state)


def place(topology: Topology, cluster: Cluster) -> Iterator[Pod]:
    """The pods of a cluster at its start: each workload's replicas over the nodes in turn."""
    taken: list[Pod] = []
    for workload in cluster.workloads:
        for number in range(1, workload.replicas + 1):
            pod = new_pod(topology, cluster, workload.name, number, taken)
            taken.append(pod)
            yield pod


def new_pod(
    topology: Topology, cluster: Cluster, workload: str, number: int, others: list[Pod]
) -> Pod:
    """Replica ``number`` (from 1) of a workload, at a free address of its node."""
    node = 1 + (number - 1) % cluster.nodes
    used = {pod.slot for pod in others if (pod.cluster, pod.node) == (cluster.name, node)}
    slot = next(slot for slot in range(len(used) + 1) if slot not in used)
    addresses = Addresses(topology)
    namespace = next(w.namespace for w in cluster.workloads if w.name == workload)
    return Pod(
        cluster=cluster.name,
        node=node,
        slot=slot,
        name=f"{workload}-{number}",
        workload=workload,
        namespace=namespace,
        ips=tuple(addresses.pod(cluster.name, node, slot, f) for f in addresses.families()),
    )


class _Builder:
    def __init__(self, paths: Paths, topology: Topology, mount: Path, report: Report) -> None:
        self._paths = paths
        self._topology = topology
        self._mount = mount
        self._report = report
        self._network = Network(paths, topology)
        self._state = State(name=paths.lab, topology=topology, cgroup=str(mount))
        self._clusters = {
            cluster.name: ClusterFiles(paths, topology, cluster, mount)
            for cluster in topology.clusters
        }

    def build(self, timeout: float) -> State:
        began = time.monotonic()
        self._foundation()
        self._control_planes()
        self._nodes()
        self._pods()
        self._write_mesh()
        started = list(self._state.processes.values())
        waiting = apis(self._paths, self._state, self._clusters)
        self._state.ready = wait_ready(waiting, started, self._report, began=began, timeout=timeout)
        for pod in self._state.pods.values():
            wait_listening(self._state.processes[pod.target])
        self._state.phase = Phase.UP
        self._state.save(self._paths)
        return self._state

    def _foundation(self) -> None:
        self._report("making the underlay")
        host.mount("tmpfs", self._paths.top, options="mode=0700")
        self._state.save(self._paths)
        self._network.underlay()

    def _control_planes(self) -> None:
        for order, cluster in enumerate(self._topology.clusters, 1):
            self._report(f"{cluster.name}: certificates, etcd and clustermesh-apiserver")
            for pod in place(self._topology, cluster):
                self._state.pods[pod.target] = pod
            files = self._clusters[cluster.name]
            files.write(self._state.pods.values())
            self._network.control_plane(order, cluster)
            self._paths.control_plane_cgroup(self._mount, cluster.name).mkdir(parents=True)
            self._start(f"{cluster.name}/etcd", files.etcd())
            self._start(f"{cluster.name}/apiserver", files.apiserver())
            if self._topology.kvstoremesh:
                self._start(f"{cluster.name}/kvstoremesh", files.kvstoremesh())

    def _nodes(self) -> None:
        for order, cluster in enumerate(self._topology.clusters, 1):
            for number in range(1, cluster.nodes + 1):
                node = f"node-{number}"
                self._report(f"{cluster.name}: {node} and its clustermesh-agent")
                self._network.node(order, cluster, number)
                self._paths.node_cgroup(self._mount, cluster.name, node).mkdir(parents=True)
                host.mount("bpf", self._paths.bpf(cluster.name, node), options="mode=0700")
                argv = self._clusters[cluster.name].agent(number)
                self._start(f"{cluster.name}/{node}/agent", argv)

    def _pods(self) -> None:
        for cluster in self._topology.clusters:
            mine = [pod for pod in self._state.pods.values() if pod.cluster == cluster.name]
            self._report(f"{cluster.name}: {len(mine)} pods")
            for pod in mine:
                self._network.pod(pod)
                self._start(pod.target, self._clusters[cluster.name].echo(pod))

    def _start(self, target: str, argv: tuple[str, ...]) -> None:
        self._state.processes[target] = processes.start(target, argv, self._paths.log(target))
        self._state.save(self._paths)

    def _write_mesh(self) -> None:
        entries = tuple(files.mesh_entry() for files in self._clusters.values())
        size = self._topology.max_connected_clusters
        mesh = meshfile.Mesh(clusters=entries, max_connected_clusters=size)
        meshfile.save(mesh, self._paths.mesh)


def wait_ready(
    waiting: Mapping[str, Sequence[str]],
    started: Sequence[Process],
    report: Report,
    *,
    began: float,
    timeout: float,
) -> dict[str, float]:
    """Seconds from ``began`` (of ``time.monotonic()``) until all APIs of each cluster were ready.
    ``LabError`` when one of the processes just started ended, or the time is over.
    """
    left = {cluster: list(urls) for cluster, urls in waiting.items()}
    took: dict[str, float] = {}
    report("waiting until all are ready")
    while left:
        for cluster, urls in list(left.items()):
            urls[:] = [url for url in urls if not api.ready(url)]
            if not urls:
                del left[cluster]
                took[cluster] = round(time.monotonic() - began, 2)
                report(f"{cluster} is ready after {took[cluster]:.1f} s")
        for process in started:
            if not processes.alive(process):
                raise LabError(_ended(process))
        if left and time.monotonic() - began > timeout:
            late = ", ".join(url for urls in left.values() for url in urls)
            raise LabError(f"not ready after {timeout:.0f} s: {late}. Their logs are beside them.")
        time.sleep(POLL if left else 0)
    return took


def wait_listening(process: Process) -> None:
    """Until an echo server says that it listens; ``LabError`` when it does not."""
    deadline = time.monotonic() + START_TIMEOUT
    while "listening" not in processes.last_line(process.log):
        if not processes.alive(process) or time.monotonic() > deadline:
            raise LabError(f"{process.target} does not start; see {process.log}.")
        time.sleep(LISTEN_POLL)


def apis(paths: Paths, state: State, clusters: Collection[str]) -> dict[str, list[str]]:
    """The APIs of the clusters' processes that are alive."""
    found: dict[str, list[str]] = {name: [] for name in clusters}
    for process in state.processes.values():
        cluster, *rest = process.target.split("/")
        if cluster in found and processes.alive(process):
            if rest == ["apiserver"]:
                found[cluster].append(f"unix:{paths.apiserver_socket(cluster)}")
            elif rest == ["kvstoremesh"]:
                found[cluster].append(f"unix:{paths.kvstoremesh_socket(cluster)}")
            elif rest[-1] == "agent":
                found[cluster].append(f"unix:{paths.agent_socket(cluster, rest[0])}")
    return found


def _ended(process: Process) -> str:
    return f"{process.target} ended by itself; it last said: {processes.last_line(process.log)}"


def _whole(paths: Paths, state: State) -> bool:
    wanted = {paths.underlay_netns}
    for cluster in state.topology.clusters:
        wanted.add(paths.control_plane_netns(cluster.name))
        wanted |= {paths.node_netns(cluster.name, node) for node in cluster.node_names()}
    wanted |= {paths.pod_netns(pod.cluster, pod.name) for pod in state.pods.values()}
    return wanted <= set(host.netns_named(paths.prefix))
