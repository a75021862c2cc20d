"""Wait until nodes agree with what was configured: a peer synced, or a peer drained."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import msgspec

from bpf.errors import BpfError
from bpf.layout import IpcacheValue
from bpf.layout_lb import BackendValue
from clustermesh.findings import ProbeAnswer
from clustermesh.meshctl import api, pins
from clustermesh.meshctl.bpf import PINS
from clustermesh.meshctl.peering import Peering
from clustermesh.meshfile import Mesh, Node, full_name
from clustermesh.status import AgentStatus, RemoteStatus

POLL = 0.05


class Outcome(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One node and one peer: whether it is as wanted; ``why`` not, or what was seen."""

    node: str
    peer: str
    done: bool
    reached: bool = True
    why: str = ""


class Pair(NamedTuple):
    """A node that ought to see, or no longer see, a peer."""

    node: str
    entry: Node
    peer: str
    peer_id: int
    identity_bits: int


Judge = Callable[[Pair], Outcome]


def pairs(mesh: Mesh, peerings: Sequence[Peering]) -> list[Pair]:
    """Every node of every reader, with the source it follows."""
    bits = 16 if mesh.max_connected_clusters == 255 else 15
    return [
        Pair(full_name(p.reader, node), node, p.source.name, p.source.id, bits)
        for p in peerings
        for node in p.reader.nodes
        if node.agent or node.bpf_root
    ]


def until(
    wanted: Sequence[Pair], judge: Judge, *, timeout: float, report: Callable[[str], None]
) -> list[Outcome]:
    """Ask again until all are done or the time is over; the last outcome of each."""
    deadline = time.monotonic() + timeout
    with ThreadPoolExecutor(max_workers=api.AT_ONCE) as pool:
        while True:
            outcomes = list(pool.map(judge, wanted))
            open_ones = [outcome for outcome in outcomes if not outcome.done]
            if not open_ones or time.monotonic() >= deadline:
                return outcomes
            first = open_ones[0]
            done = len(outcomes) - len(open_ones)
            report(f"{done} of {len(outcomes)}; {first.node} and {first.peer}: {first.why}")
            time.sleep(POLL)


def synced(pair: Pair) -> Outcome:
    """Whether a node has everything of its peer, and in its maps."""
    try:
        agent = api.fetch(pair.entry.agent, "/v1/status", AgentStatus)
    except api.NoAnswer as error:
        return _outcome(pair, done=False, reached=False, why=str(error))
    remote = _of(pair, agent)
    if remote is None:
        return _outcome(pair, done=False, why="not noticed yet")
    if not remote.ready:
        why = remote.last_failure_reason or remote.status or "not synced yet"
        return _outcome(pair, done=False, why=why)
    if not agent.written:
        return _outcome(pair, done=False, why="synced, but not yet in the maps")
    return _outcome(
        pair,
        done=True,
        why=f"{remote.num_nodes} nodes, {remote.num_endpoints} endpoints,"
        f" {remote.num_identities} identities, {remote.num_shared_services} services",
    )


def answering(pair: Pair) -> Outcome:
    """Whether nodes of the peer answer a node's probes through the overlay, one is enough."""
    path = f"/v1/probes/now?cluster={pair.peer}"
    try:
        found = api.fetch(pair.entry.agent, path, tuple[ProbeAnswer, ...])
    except api.NoAnswer as error:
        return _outcome(pair, done=False, reached=False, why=str(error))
    if not found:
        return _outcome(pair, done=True, why="not probed: no node of it has an overlay address")
    times = [it.rtt for it in found if it.rtt is not None]
    silent = ", ".join(it.address for it in found if it.rtt is None)
    if not times:
        why = f"no packet comes back through the overlay from {silent}"
        return _outcome(pair, done=False, why=why)
    why = f"{len(times)} of {len(found)} nodes answer, in {min(times) * 1000:.1f} ms"
    return _outcome(pair, done=True, why=f"{why}; not {silent}" if silent else why)


def drained(pair: Pair) -> Outcome:
    """Whether a node has nothing of its peer any more, in its agent and in its maps."""
    reached = True
    try:
        if _of(pair, api.fetch(pair.entry.agent, "/v1/status", AgentStatus)) is not None:
            return _outcome(pair, done=False, why="still draining")
    except api.NoAnswer:
        reached = False
    try:
        addresses, backends = left_in_maps(pair)
    except (OSError, BpfError, api.NoAnswer) as error:
        why = f"its maps cannot be read ({error})"
        why = f"its agent has nothing left; {why}" if reached else why
        return _outcome(pair, done=True, reached=reached, why=why)
    if addresses or backends:
        why = f"{addresses} addresses and {backends} backends left in its maps"
        return _outcome(pair, done=not reached, reached=reached, why=why)
    return _outcome(pair, done=True, reached=reached, why="0 addresses and 0 backends left")


def left_in_maps(pair: Pair) -> tuple[int, int]:
    """Entries that carry the peer's cluster id: in the ipcache, and among the backends.

    Raises ``OSError``, ``BpfError``, ``NoAnswer``.
    """
    addresses = sum(
        IpcacheValue.unpack(value).identity >> pair.identity_bits == pair.peer_id
        for value in _values(pair.entry, "cilium_ipcache")
    )
    backends = sum(
        BackendValue.unpack(value).cluster_id == pair.peer_id
        for family in (4, 6)
        for value in _values(pair.entry, f"cilium_lb{family}_backends_v3")
    )
    return addresses, backends


def _values(node: Node, name: str) -> list[bytes]:
    with suppress(FileNotFoundError):
        return [value for _, value in pins.of(node).entries(PINS / name)]
    return []


def _of(pair: Pair, agent: AgentStatus) -> RemoteStatus | None:
    return next((remote for remote in agent.remotes if remote.name == pair.peer), None)


def _outcome(pair: Pair, *, done: bool, why: str, reached: bool = True) -> Outcome:
    return Outcome(node=pair.node, peer=pair.peer, done=done, reached=reached, why=why)
