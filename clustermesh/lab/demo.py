"""The proof: what the mesh does, told from sockets, from the wire and from the kernel's maps."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from subprocess import Popen
from typing import NamedTuple

from clustermesh import meshfile
from clustermesh.lab import capture, host, operate
from clustermesh.lab.asking import Answers, answers, asking, questions
from clustermesh.lab.errors import LabError
from clustermesh.lab.paths import Paths
from clustermesh.lab.state import running
from clustermesh.lab.topology import SERVICE_PORT
from clustermesh.meshctl import api, performing, watch
from clustermesh.meshctl.peering import peerings
from clustermesh.status import AgentStatus, IdentityStatus

Tell = Callable[[str], None]

SERVICE = "rebel-base"
CLIENT = "client-1"
REQUESTS = 100
CONNECT_TIMEOUT = 60.0
CAPTURE_SECONDS = 2.0
QUIET_SECONDS = 0.5
BEFORE, AFTER = 2, 3
COPIED = ("io.cilium.k8s.namespace.labels.", "policy.serviceaccount=")


class Seen(NamedTuple):
    """A packet on the underlay, and the labels of the identity it carried."""

    packet: capture.Packet
    labels: tuple[str, ...]


def announcement(paths: Paths) -> str:
    """What a lab touches, and what it leaves alone."""
    option = _option(paths)
    return (
        f"This builds a mesh out of network namespaces ({paths.prefix}*), a cgroup"
        f" ({paths.cgroup(host.cgroup_mount())})\n"
        f"and files in memory ({paths.top}). This machine's own links, routes, nftables,"
        " cgroup root and /sys/fs/bpf\n"
        f"stay as they are. Remove it all with: meshctl lab down{option}\n"
    )


def run(paths: Paths, say: Tell, progress: Tell) -> None:
    """All of it, on a lab that is up; raises ``LabError`` or ``MeshctlError``."""
    show = Demo(paths, progress)
    for step in (show.ready, show.connect, show.balance, show.wire, show.scale, show.catastrophe):
        for line in step():
            say(line)
    say(next_steps(paths))
    if show.broken:
        raise LabError(
            f"not as promised: {'; '.join(show.broken)}. The lab stays up: look into it."
        )


def next_steps(paths: Paths) -> str:
    """What to try, in two columns."""
    lab = f"{_option(paths)} "
    steps = (
        (f"meshctl lab exec{lab}cluster-a/client-1 -- sh", "a shell in a pod"),
        ("meshctl status", "how the nodes see each other"),
        ("meshctl service list --node cluster-a/node-1", "backends of both clusters"),
        ("meshctl bpf lb list --node cluster-a/node-1", "the same, from the kernel"),
        (
            f"meshctl lab annotate{lab}cluster-a/rebel-base service.cilium.io/affinity=local",
            "stay at home",
        ),
        (f"meshctl lab kill{lab}cluster-b/etcd", "and see that nothing happens"),
        ("meshctl disconnect cluster-a cluster-b", "part them again"),
        (f"meshctl lab down{_option(paths)}", "remove it all"),
    )
    wide = max(len(command) for command, _ in steps)
    told = "\n".join(f"  {command:<{wide}}  {what}" for command, what in steps)
    return f"\nThe lab stays up. Try:\n{told}"


class Demo:
    """The steps, each yielding the lines that it proves."""

    def __init__(self, paths: Paths, progress: Tell) -> None:
        self.broken: list[str] = []
        """Promises that did not hold, in words."""
        self._paths = paths
        self._progress = progress
        self._mesh = meshfile.load(paths.mesh)
        clusters = running(paths).topology.clusters
        if len(clusters) < 2:
            raise LabError("the demonstration needs a lab of two clusters.")
        self._near, self._far = clusters[:2]
        self._client = f"{self._near.name}/{CLIENT}"
        self._address = operate.service_address(paths, self._near.name, SERVICE)

    def ready(self) -> Iterator[str]:
        """Bring a lab that was played with back to its beginning."""
        self._restart()
        operate.scale(self._paths, self._workload, BEFORE)
        for cluster, seconds in sorted(running(self._paths).ready.items()):
            yield f"{cluster}: ready after {seconds:.1f} s"

    def connect(self) -> Iterator[str]:
        self._progress("connecting")
        began = time.monotonic()
        names = [self._near.name, self._far.name]
        done = performing.perform(
            performing.CONNECT, self._mesh, names, timeout=CONNECT_TIMEOUT, report=self._progress
        )
        late = [outcome for outcome in done.nodes if not outcome.done]
        if late:
            raise LabError(f"{late[0].node} does not sync with {late[0].peer}: {late[0].why}.")
        took = time.monotonic() - began
        yield f"meshctl connect {' '.join(names)}: {len(done.nodes)} nodes synced in {took:.1f} s"

    def balance(self) -> Iterator[str]:
        self._progress("asking")
        yield f"\n{REQUESTS} requests from {self._client} to {SERVICE} ({self._target}):"
        yield f"  {self._told(self._ask())}"

    def wire(self) -> Iterator[str]:
        """One packet each way, from a capture on the underlay."""
        self._progress("listening on the underlay")
        yield "\nOn the underlay meanwhile (UDP 8472):"
        for seen in self._packets():
            packet = seen.packet
            yield (
                f"  {packet.outer_source} > {packet.outer_destination}"
                f"  VNI {packet.vni} ({packet.vni:#08x})"
                f"  {packet.source}:{packet.source_port}"
                f" > {packet.destination}:{packet.destination_port}"
            )
            bits = 16 if self._mesh.max_connected_clusters == 255 else 15
            labels = " ".join(_telling(seen.labels)) or "unknown"
            yield f"    that is cluster id {packet.vni >> bits}, {labels}"

    def scale(self) -> Iterator[str]:
        self._progress("scaling")
        pod = f"{self._workload}-{AFTER}"
        options = ("--until", pod, "--pause", "0.001")
        with self._asking(*options) as process:
            began = time.time()
            operate.scale(self._paths, self._workload, AFTER)
            announced = operate.announced(self._paths, self._far.name, SERVICE)
            result = answers(process)
        if pod not in result.pods:
            raise LabError(f"{pod} did not answer within {result.seconds:.0f} s.")
        yield f"\nmeshctl lab scale {self._workload} {AFTER}:"
        yield (
            f"  {pod} answered {self._client} {result.ended - announced:.3f} s after it was"
            f" announced, {result.ended - began:.2f} s after the command;"
            f" {self._failures(result)}"
        )

    def catastrophe(self) -> Iterator[str]:
        """Everything that is not the kernel dies; traffic must not notice."""
        self._progress("waiting until every node has the new pod")
        self._wait_quiet()
        self._progress("killing")
        victims = [f"{self._far.name}/etcd", f"{self._far.name}/apiserver"]
        killed = operate.kill(self._paths, victims, signal.SIGKILL, all_agents=True)
        yield f"\nSIGKILL to {victims[0]}, {victims[1]} and every agent ({len(killed)} processes):"
        yield f"  the next {REQUESTS} requests: {self._told(self._ask())}"
        began = time.monotonic()
        self._restart()
        self._wait_synced()
        writes = sum(agent.map_writes for agent in self._agents())
        if writes:
            self.broken.append(f"restarted agents wrote {writes} map entries")
        took = time.monotonic() - began
        yield f"  started again: map writes {writes}; all ready again after {took:.1f} s"
        yield f"  {REQUESTS} more: {self._told(self._ask())}"

    def _told(self, result: Answers) -> str:
        """``cluster-a 52, cluster-b 48; failures 0``."""
        counts = ", ".join(f"{cluster} {count}" for cluster, count in result.clusters().items())
        return f"{counts or 'no answers'}; {self._failures(result)}"

    def _failures(self, result: Answers) -> str:
        if not result.failures:
            return "failures 0"
        self.broken.append(f"{len(result.failures)} requests failed ({result.failures[0]})")
        return f"failures {len(result.failures)} ({result.failures[0]})"

    @property
    def _workload(self) -> str:
        return f"{self._far.name}/{SERVICE}"

    @property
    def _target(self) -> str:
        return f"{self._address}:{SERVICE_PORT}"

    def _ask(self) -> Answers:
        count = ("--count", str(REQUESTS))
        return questions(self._paths, self._client, self._address, SERVICE_PORT, *count)

    def _asking(self, *options: str) -> AbstractContextManager[Popen[bytes]]:
        return asking(self._paths, self._client, self._address, SERVICE_PORT, *options)

    def _packets(self) -> list[Seen]:
        """The first packet there and the first one back."""
        client = running(self._paths).pods[self._client].ips[0]
        found: dict[str, capture.Packet] = {}
        with capture.capturing(self._paths.underlay_netns) as listening:
            self._ask()
            for packet in listening.packets(CAPTURE_SECONDS):
                if client in (packet.source, packet.destination):
                    found.setdefault("there" if packet.source == client else "back", packet)
                if len(found) == 2:
                    break
        if not found:
            raise LabError("no packet of the overlay was seen on the underlay.")
        labels = self._labels()
        return [Seen(packet, labels.get(packet.vni, ())) for packet in found.values()]

    def _labels(self) -> dict[int, tuple[str, ...]]:
        url = self._near_agent()
        known = api.fetch(url, "/v1/identities", tuple[IdentityStatus, ...])
        return {identity.id: identity.labels for identity in known}

    def _near_agent(self) -> str:
        return self._mesh.cluster(self._near.name).nodes[0].agent

    def _agents(self) -> list[AgentStatus]:
        return [api.fetch(n.agent, "/v1/status", AgentStatus) for _, n in self._mesh.nodes()]

    def _restart(self) -> None:
        started = operate.restart(self._paths, [])
        if started:
            self._progress(f"started again: {', '.join(process.target for process in started)}")
        operate.wait_restarted(self._paths, started, self._progress)

    def _wait_quiet(self) -> None:
        """Until no agent has written to its maps for a moment: a kill in the middle of a change
        would be made up for at the next start, and then the number of writes proves nothing.
        """
        deadline = time.monotonic() + CONNECT_TIMEOUT
        before: list[int] = []
        now = self._written()
        while now != before and time.monotonic() < deadline:
            time.sleep(QUIET_SECONDS)
            before, now = now, self._written()

    def _written(self) -> list[int]:
        return [agent.map_writes for agent in self._agents()]

    def _wait_synced(self) -> None:
        """Until every node has everything of the other cluster again."""
        names = [self._near.name, self._far.name]
        nodes = watch.pairs(self._mesh, peerings(self._mesh, names))
        done = watch.until(nodes, watch.synced, timeout=CONNECT_TIMEOUT, report=self._progress)
        for outcome in done:
            if not outcome.done:
                raise LabError(f"{outcome.node} does not sync again with {outcome.peer}.")


def _telling(labels: Sequence[str]) -> list[str]:
    """The labels that say whose identity it is, without what merely copies the namespace's."""
    return [label for label in labels if not any(word in label for word in COPIED)]


def _option(paths: Paths) -> str:
    return "" if paths.lab == "lab" else f" --name {paths.lab}"
