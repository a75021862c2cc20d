"""Change a running lab: annotate, scale, kill, start again, as could happen to any cluster."""

import difflib
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from clustermesh.lab import manifests, processes
from clustermesh.lab.build import READY_TIMEOUT, apis, new_pod, wait_listening, wait_ready
from clustermesh.lab.clusters import ClusterFiles, write_yaml
from clustermesh.lab.errors import LabError
from clustermesh.lab.manifests import Pod
from clustermesh.lab.network import Network
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import Process
from clustermesh.lab.state import State, locked, running
from clustermesh.lab.teardown import Report

STOP_TIMEOUT = 10.0
LEAVING_SECONDS = 0.5
"""How long a pod that was withdrawn goes on answering, as one with a preStop hook does."""


class Scaled(NamedTuple):
    """The pods that came and went."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def annotate(
    paths: Paths, target: str, changes: Mapping[str, str | None], *, namespace: str = "default"
) -> Path:
    """Set (or, with None, remove) annotations of ``CLUSTER/[KIND/]NAME``; the kind is ``service``
    unless given. The file that was changed, in one step.
    """
    with locked(paths):
        state = running(paths)
        path = _manifest(paths, state, target, namespace)
        document = _document(path)
        write_yaml(path, manifests.annotated(document, changes))
        return path


def scale(paths: Paths, target: str, replicas: int) -> Scaled:
    """Give the workload ``CLUSTER/NAME`` so many pods; new ones answer before they are announced,
    old ones are withdrawn before they end.
    """
    if replicas < 0:
        raise LabError(f"a workload cannot have {replicas} pods.")
    with locked(paths):
        return _Scaling(paths, running(paths), target).to(replicas)


def kill(
    paths: Paths, targets: Sequence[str], number: signal.Signals, *, all_agents: bool = False
) -> list[tuple[str, bool]]:
    """Signal processes; for each, whether it was alive."""
    with locked(paths):
        state = running(paths)
        chosen = [_process(state, target) for target in targets]
        if all_agents:
            chosen += [p for p in state.processes.values() if p.target.endswith("/agent")]
        done = [(process.target, processes.send(process, number)) for process in chosen]
        if number is signal.SIGKILL:
            processes.wait_gone(chosen, STOP_TIMEOUT)
        return done


def restart(paths: Paths, targets: Sequence[str], *, wrapper: Sequence[str] = ()) -> list[Process]:
    """Start processes again, each with exactly its recorded command line (after ``wrapper``, such
    as ``strace -f -o FILE``). Those still alive are stopped first. Without targets: all the dead.
    """
    with locked(paths):
        state = running(paths)
        chosen = [_process(state, target) for target in targets]
        if not targets:
            chosen = [p for p in state.processes.values() if not processes.alive(p)]
        stop(chosen)
        return [_start_again(paths, state, process, wrapper) for process in chosen]


def wait_restarted(paths: Paths, started: Sequence[Process], report: Report) -> None:
    """Until what lives in the clusters of these processes is ready; ``LabError`` when it is not."""
    if not started:
        return
    names = {process.target.partition("/")[0] for process in started}
    waiting = apis(paths, running(paths), sorted(names))
    wait_ready(waiting, started, report, began=time.monotonic(), timeout=READY_TIMEOUT)


def stop(chosen: Sequence[Process]) -> None:
    """SIGTERM, and SIGKILL for what does not end in time."""
    for process in chosen:
        processes.send(process, signal.SIGTERM)
    for process in processes.wait_gone(chosen, STOP_TIMEOUT):
        processes.send(process, signal.SIGKILL)
    processes.wait_gone(chosen, STOP_TIMEOUT)


def location(paths: Paths, target: str) -> tuple[str, str]:
    """Namespace and cgroup (``-``: none) of ``CLUSTER/POD``, ``CLUSTER/NODE``,
    ``CLUSTER/control-plane`` or ``underlay``.
    """
    state = running(paths)
    mount = Path(state.cgroup)
    places = {"underlay": (paths.underlay_netns, "-")}
    for cluster in state.topology.clusters:
        name = cluster.name
        group = paths.control_plane_cgroup(mount, name)
        places[f"{name}/control-plane"] = (paths.control_plane_netns(name), str(group))
        for node in cluster.node_names():
            group = paths.node_cgroup(mount, name, node)
            places[f"{name}/{node}"] = (paths.node_netns(name, node), str(group))
    for pod in state.pods.values():
        group = paths.node_cgroup(mount, pod.cluster, pod.node_name)
        places[pod.target] = (paths.pod_netns(pod.cluster, pod.name), str(group))
    if target not in places:
        raise LabError(_unknown("place", target, sorted(places)))
    return places[target]


def service_address(paths: Paths, cluster: str, name: str, *, namespace: str = "default") -> str:
    """The cluster IP of a service, as its manifest says."""
    path = _manifest(paths, running(paths), f"{cluster}/{name}", namespace)
    return str(_document(path)["spec"]["clusterIP"])


def announced(paths: Paths, cluster: str, service: str, *, namespace: str = "default") -> float:
    """When the endpoints of a service were last written, in Unix seconds."""
    target = f"{cluster}/endpointslice/{service}-v4"
    return _manifest(paths, running(paths), target, namespace).stat().st_mtime


class _Scaling:
    def __init__(self, paths: Paths, state: State, target: str) -> None:
        cluster_name, _, self._workload = target.partition("/")
        self._paths = paths
        self._state = state
        self._cluster = state.topology.cluster(cluster_name)
        known = [workload.name for workload in self._cluster.workloads]
        if self._workload not in known:
            names = [f"{cluster_name}/{name}" for name in known]
            raise LabError(_unknown("workload", target, names))
        self._files = ClusterFiles(paths, state.topology, self._cluster, Path(state.cgroup))
        self._network = Network(paths, state.topology)

    def to(self, replicas: int) -> Scaled:
        wanted = {f"{self._workload}-{number}": number for number in range(1, replicas + 1)}
        mine = {p.name: p for p in self._pods() if p.workload == self._workload}
        removed = tuple(self._remove([pod for name, pod in mine.items() if name not in wanted]))
        added = tuple(self._add([wanted[name] for name in wanted if name not in mine]))
        self._state.save(self._paths)
        return Scaled(added, removed)

    def _add(self, numbers: Sequence[int]) -> list[str]:
        fresh = [self._start(number) for number in numbers]
        for pod in fresh:
            wait_listening(self._state.processes[pod.target])
        topology, cluster = self._state.topology, self._cluster
        self._files.write_manifests(manifests.for_pod(topology, cluster, p) for p in fresh)
        self._files.write_slices(self._pods())
        return [pod.target for pod in fresh]

    def _start(self, number: int) -> Pod:
        pod = new_pod(self._state.topology, self._cluster, self._workload, number, self._pods())
        self._network.pod(pod)
        self._paths.log(pod.target).unlink(missing_ok=True)  # of an earlier pod of this name
        self._state.pods[pod.target] = pod
        self._state.processes[pod.target] = processes.start(
            pod.target, self._files.echo(pod), self._paths.log(pod.target)
        )
        self._state.save(self._paths)
        return pod

    def _remove(self, pods: Sequence[Pod]) -> list[str]:
        for pod in pods:
            del self._state.pods[pod.target]
        self._files.write_slices(self._pods())
        time.sleep(LEAVING_SECONDS if pods else 0)
        for pod in pods:
            self._files.remove_pod(pod)
            stop([self._state.processes.pop(pod.target)])
            self._network.remove_pod(pod)
        return [pod.target for pod in pods]

    def _pods(self) -> list[Pod]:
        return [pod for pod in self._state.pods.values() if pod.cluster == self._cluster.name]


def _start_again(paths: Paths, state: State, process: Process, wrapper: Sequence[str]) -> Process:
    again = processes.start(process.target, (*wrapper, *process.argv), Path(process.log))
    # The plain command line stays on record, so that the next restart is not wrapped again.
    state.processes[process.target] = Process(
        target=again.target,
        pid=again.pid,
        started=again.started,
        argv=process.argv,
        log=again.log,
    )
    state.save(paths)
    return again


def _process(state: State, target: str) -> Process:
    if target not in state.processes:
        raise LabError(_unknown("process", target, sorted(state.processes)))
    return state.processes[target]


def _manifest(paths: Paths, state: State, target: str, namespace: str) -> Path:
    cluster, _, rest = target.partition("/")
    kind, _, name = rest.rpartition("/")
    state.topology.cluster(cluster)
    directory = paths.manifests(cluster)
    for candidate in (f"{kind or 'service'}-{namespace}-{name}", f"{kind}-{name}"):
        path = directory / f"{candidate}.yaml"
        if path.is_file():
            return path
    known = sorted(path.stem for path in directory.glob(f"{kind or 'service'}-*.yaml"))
    raise LabError(
        f"{cluster} has no {kind or 'service'} {name!r} in namespace {namespace};"
        f" its manifests in {directory}: {', '.join(known) or 'none'}."
    )


def _document(path: Path) -> manifests.Manifest:
    """A manifest as it stands; somebody may have edited it badly."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not text in UTF-8: {error.reason}.") from error
    except yaml.YAMLError as error:
        raise LabError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        raise LabError(f"{path} is no manifest: it has no metadata.")
    return found


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"this lab has no {what} {name!r}.{hint} It has: {', '.join(known)}."
