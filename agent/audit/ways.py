"""Which prefixes must lead to other clusters, and whether they do: routes and rules [pure].

A range that a node announces needs a route, and so does a single address outside of every range.
How a prefix is reached is a word, so that an operator can read it: ``TUNNEL``, or a node's address
where packets go to it without the tunnel.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from agent.audit.addresses import Here, claimed_by_nodes, ipcache_key
from agent.audit.compare import Drift, drift
from agent.audit.reading import Told
from clustermesh.addresses import packed
from clustermesh.model import IPEntry

ROUTES: Final = "routes"
TUNNEL: Final = "into the tunnel"
RULES: Final = {4: "all IPv4 packets", 6: "all IPv6 packets"}
LOOKED_UP: Final = "look into our table"

Present = Mapping[str, str]
"""By prefix, or one of ``RULES``: where packets go. As the kernel has it."""


class Wanted(NamedTuple):
    """What must lead somewhere."""

    ranges: dict[str, frozenset[str]]
    """By prefix: every right way, of which one is enough."""
    singles: dict[str, frozenset[str]]


def differences(
    here: Here, own: Told, remotes: Sequence[Told], present: Present, *, most: int
) -> Iterator[Drift]:
    """``remotes`` without the clusters that are held out; ``most``: room for single addresses."""
    wanted = ways(here, own, remotes)
    right = wanted.ranges | wanted.singles
    for bits, rule in RULES.items():
        if any(_bits(prefix) == bits for prefix in right):
            right[rule] = frozenset({LOOKED_UP})
    crowded = len(wanted.singles) > most
    for prefix, them in sorted(right.items()):
        found = present.get(prefix, "")
        if found in them or (crowded and not found and prefix in wanted.singles):
            continue
        yield drift(ROUTES, prefix.encode(), expected=" or ".join(sorted(them)), found=found)
    for prefix in sorted(present.keys() - right.keys()):
        yield drift(ROUTES, prefix.encode(), found=present[prefix])


def ways(here: Here, own: Told, remotes: Sequence[Told]) -> Wanted:
    """Of the clusters that are followed; a node without an IPv4 address leads nowhere."""
    ranges: dict[str, frozenset[str]] = {}
    nodes = [(node.underlay(4), node) for told in remotes for node in told.nodes.values()]
    reachable = [(via, node) for via, node in nodes if via]
    for via, node in reachable:
        for cidr in node.pod_cidrs():
            ranges[cidr] = _either(here, node.cluster, cidr, via) | ranges.get(cidr, frozenset())
    inside = _Inside(ranges)
    for via, node in reachable:
        for cidr in map(_whole, node.overlay()):
            if cidr not in inside:
                either = _either(here, node.cluster, cidr, via)
                ranges[cidr] = either | ranges.get(cidr, frozenset())
    singles = dict(_singles(here, own, remotes, _Inside(ranges)))
    return Wanted(ranges, singles)


def _singles(
    here: Here, own: Told, remotes: Sequence[Told], inside: "_Inside"
) -> Iterator[tuple[str, frozenset[str]]]:
    """Who is heard first has an address: nodes, the own cluster, then others by their id."""
    taken = claimed_by_nodes(here, (own, *remotes))
    taken |= {ipcache_key(it.cidr()) for it in own.addresses.values() if _is_v4(it)}
    for told in sorted(remotes, key=lambda told: told.cluster_id):
        for entry in filter(_is_v4, told.addresses.values()):
            cidr = entry.cidr()
            key = ipcache_key(cidr)
            if key in taken or not _is_single(cidr):
                continue
            taken.add(key)
            if cidr not in inside:
                yield cidr, _either(here, told.cluster, cidr, entry.host_ip)


def _is_v4(entry: IPEntry) -> bool:
    """Such a fact is refused whose node has no IPv4 address; one may be behind nobody."""
    return len(packed(entry.host_ip)) != 16


def _either(here: Here, cluster: str, cidr: str, via: str) -> frozenset[str]:
    """A node on no link of ours is reached through the tunnel, whatever was asked for."""
    direct = cluster in here.native and _bits(cidr) == 4 and packed(via)
    return frozenset({TUNNEL, via} if direct else {TUNNEL})


def _bits(prefix: str) -> int:
    return 6 if ":" in prefix else 4


def _whole(address: str) -> str:
    return f"{address}/{8 * len(packed(address))}"


def _is_single(cidr: str) -> bool:
    address, _, ones = cidr.partition("/")
    return int(ones) == 8 * len(packed(address))


class _Inside:
    """Prefixes, asked whether one of them holds another: each as the bits that it fixes."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._fixed = {_fixed(cidr) for cidr in cidrs}

    def __contains__(self, cidr: str) -> bool:
        fixed = _fixed(cidr)
        return any(fixed[:length] in self._fixed for length in range(1, len(fixed) + 1))


def _fixed(cidr: str) -> str:
    """``4`` or ``6`` and the bits of the prefix, as text."""
    address, _, ones = cidr.partition("/")
    raw = packed(address)
    bits = f"{int.from_bytes(raw, 'big'):0{8 * len(raw)}b}"
    return f"{4 if len(raw) == 4 else 6}{bits[: int(ones)]}"
