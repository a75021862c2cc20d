"""Does the overlay's UDP port pass between nodes of two clusters? Their agents try it."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import permutations
from threading import Event
from typing import Final, NamedTuple, TypeVar

import msgspec

from clustermesh.findings import Called, Finding, Heard, Premises, Result, Underlay
from clustermesh.meshctl import api
from clustermesh.meshctl.conditions import overhead
from clustermesh.meshctl.premises import Side

T = TypeVar("T")

SAMPLE: Final = 3
"""Nodes of each cluster that try it."""
LISTEN: Final = 3.0
"""Seconds for which they listen; the calls take a third of a second."""
PATIENCE: Final = 10.0


class Station(NamedTuple):
    """A node that listens and calls."""

    name: str
    cluster: str
    agent: str
    underlay: Underlay

    @property
    def size(self) -> int:
        """Of its largest packets, as they are on the wire."""
        return self.underlay.mtu + overhead(self.underlay)


class Ear(NamedTuple):
    """What a station heard; or why it could not listen."""

    heard: tuple[Heard, ...] = ()
    why: str = ""


def judge(sides: Sequence[Side]) -> Iterator[Finding]:
    """Every sampled node calls those of the other clusters; what arrives is the proof."""
    stations = [station for side in sides for station in _sample(side)]
    if len({station.cluster for station in stations}) < 2:
        return
    ears, calls = listen_and_call(stations)
    for one, other in permutations(dict.fromkeys(station.cluster for station in stations), 2):
        callers = [it for it in stations if it.cluster == one]
        listeners = [it for it in stations if it.cluster == other]
        yield from judged(callers, listeners, ears, calls)


def listen_and_call(
    stations: Sequence[Station],
) -> tuple[dict[str, Ear], dict[str, dict[str, str]]]:
    """By station: what it heard, and the errors of its calls by address."""
    nonce = secrets.token_hex(8)
    with ThreadPoolExecutor(max_workers=2 * len(stations)) as pool:
        begun = {it.name: Event() for it in stations}
        ears = {
            it.name: pool.submit(_listen, it, stations, nonce, begun[it.name]) for it in stations
        }
        for each in begun.values():
            each.wait(PATIENCE)
        calls = {it.name: pool.submit(_call, it, stations, nonce) for it in stations}
        return _results(ears), _results(calls)


def judged(
    callers: Sequence[Station],
    listeners: Sequence[Station],
    ears: Mapping[str, Ear],
    calls: Mapping[str, Mapping[str, str]],
) -> Iterator[Finding]:
    """From the callers' cluster to that of the listeners. [pure]"""
    where = f"{callers[0].cluster} to {listeners[0].cluster}"
    deaf = {it.name: ears[it.name].why for it in listeners if ears[it.name].why}
    able = [it for it in listeners if it.name not in deaf]
    if not able:
        yield Finding(
            code="UDP_UNTRIED", result=Result.WARNING, where=where, seen=next(iter(deaf.values())),
            fix="run meshctl where the agents' unix sockets are, or by contexts with pods/exec:"
            " agents try it for nobody else",
        )  # fmt: skip
        return
    bad = [finding for one in callers for it in able for finding in _way(one, it, ears, calls)]
    yield from bad
    if not bad:
        port = callers[0].underlay.port
        tried = f"{len(callers)} nodes to {len(able)}"
        yield Finding(
            code="UDP", result=Result.OK, where=where,
            seen=f"UDP {port} passes, with the largest packets: {tried}",
        )  # fmt: skip


def _way(
    one: Station, other: Station, ears: Mapping[str, Ear], calls: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    heard = [it for it in ears[other.name].heard if it.sender == one.name]
    where, address = f"{one.name} to {other.name}", other.underlay.node_ip
    error = calls[one.name].get(address, "")
    port = one.underlay.port
    if not heard:
        seen = f"no datagram to {address}, UDP {port}, arrives" + (f": {error}" if error else "")
        fix = f"let UDP {port} pass between all nodes of both clusters, in firewalls and routes"
        yield _failed("UDP_BLOCKED", where, seen, fix)
        return
    if max(it.size for it in heard) < one.size:
        seen = f"small packets arrive, none of {one.size} bytes does" + (
            f": {error}" if error else ""
        )
        fix = f"let the way carry packets of {one.size} bytes, or lower --mtu of the agents"
        yield _failed("MTU_PATH", where, seen, fix)
    if foreign := sorted({it.source for it in heard} - {one.underlay.node_ip}):
        seen = f"packets of {one.underlay.node_ip} arrive from {', '.join(foreign)}"
        fix = "take the nodes out of NAT: the mesh drops what does not come from a node's address"
        yield _failed("UDP_TRANSLATED", where, seen, fix)


def _sample(side: Side) -> Iterator[Station]:
    agents = {f"{side.cluster.name}/{node.name}": node.agent for node in side.cluster.nodes}
    said = [(name, it) for name, it in side.nodes.items() if isinstance(it, Premises)]
    for name, premises in said[:SAMPLE]:
        if premises.underlay is not None and premises.underlay.mtu:
            yield Station(name, side.cluster.name, agents[name], premises.underlay)


def _listen(station: Station, stations: Sequence[Station], nonce: str, begun: Event) -> Ear:
    """Until everybody's largest packet came, or the time is over."""
    heard: list[Heard] = []
    missing = {(it.name, it.size) for it in stations if it.cluster != station.cluster}
    body = {"nonce": nonce, "seconds": str(LISTEN)}
    try:
        with closing(
            api.lines(station.agent, "/v1/passing/hear", timeout=PATIENCE, body=body)
        ) as lines:
            next(lines)
            begun.set()
            while missing:
                one = msgspec.json.decode(next(lines), type=Heard)
                heard.append(one)
                missing.discard((one.sender, one.size))
    except api.NoAnswer as error:
        return Ear(tuple(heard), "" if begun.is_set() else str(error))
    finally:
        begun.set()
    return Ear(tuple(heard))


def _call(station: Station, stations: Sequence[Station], nonce: str) -> dict[str, str]:
    others = [it.underlay.node_ip for it in stations if it.cluster != station.cluster]
    body = {"nonce": nonce, "addresses": ",".join(others), "size": str(station.size)}
    try:
        path, kind = "/v1/passing/call", tuple[Called, ...]
        found = api.ask(station.agent, path, body, kind, timeout=PATIENCE)
    except api.NoAnswer as error:
        return dict.fromkeys(others, str(error))
    return {it.address: it.error for it in found}


def _results(futures: Mapping[str, Future[T]]) -> dict[str, T]:
    return {name: future.result() for name, future in futures.items()}


def _failed(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.FAILED, where=where, seen=seen, fix=fix)
