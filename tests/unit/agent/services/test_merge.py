"""Who is used: contract kvstore 6, contract datapath 3.9 and our composition, row by row.

A row reads: the backends there are, the rules, and the share of new connections that each gets.
Backends: ``a1`` is the first of the own cluster, ``b2`` the second of cluster-b. A mark says its
condition: none active, ``~`` terminating, ``!`` not ready.
"""

from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.services import merge, policy
from agent.services.merge import Backend, Consumer, Verdict
from agent.services.offers import Condition, Group, Offer, OfferedPort
from clustermesh.local import Frontend

CONDITIONS = {"": Condition.ACTIVE, "~": Condition.TERMINATING, "!": Condition.NOT_READY}
CLUSTERS = {"a": ("cluster-a", 0), "b": ("cluster-b", 2), "c": ("cluster-c", 3)}
HTTP = Frontend("10.96.0.1", 80, "http", "TCP")


def backends(text: str) -> list[Backend]:
    """``a1 a2~ b1`` as candidates."""
    found = []
    for word in text.split():
        label = word.rstrip("~!")
        cluster, cluster_id = CLUSTERS[label[0]]
        address = bytes([10, ord(label[0]) - ord("a") + 1, 0, int(label[1:])])
        condition = CONDITIONS[word[len(label) :]]
        found.append(Backend(address, 8080, 6, cluster_id, cluster, condition, here=label == "a1"))
    return sorted(found)


def label(backend: Backend) -> str:
    return f"{'abc'[backend.address[1] - 1]}{backend.address[3]}"


def shares(verdicts: list[Verdict]) -> dict[str, Fraction]:
    total = sum(verdict.weight for verdict in verdicts)
    return {
        label(verdict.backend): Fraction(verdict.weight, total)
        for verdict in verdicts
        if verdict.weight
    }


def expected(text: str) -> dict[str, Fraction]:
    """``a1=1/2 b1=1/2``; without numbers all get the same."""
    words = [word.partition("=") for word in text.split()]
    return {name: Fraction(share) if share else Fraction(1, len(words)) for name, _, share in words}


def chosen(there: str, *, affinity: str = "none", is_global: bool = True, **rules: str) -> str:
    """The used ones, in words."""
    found = merge.choose(backends(there), consumer(affinity, is_global=is_global, **rules))
    return " ".join(f"{name}={share}" for name, share in sorted(shares(found).items()))


def consumer(affinity: str = "none", *, is_global: bool = True, **rules: str) -> Consumer:
    annotations = {
        "service.clustermesh.io/" + key.replace("_", "-"): value for key, value in rules.items()
    }
    parsed = policy.parse(annotations, affinity=affinity, own="cluster-a")
    return Consumer(is_global=is_global, affinity=affinity, policy=parsed)


# --- contract kvstore 6.2, 6.3 and datapath 3.9 --------------------------------------------------

GLOBAL = [  # is the service global here?  backends            used
    pytest.param(True, "a1 b1", "a1 b1", id="global: both clusters"),
    pytest.param(True, "b1", "b1", id="global without local backends: the remote ones"),
    pytest.param(True, "a1", "a1", id="global, alone in the mesh"),
    pytest.param(True, "", "", id="nobody: refused at once"),
    pytest.param(False, "a1 b1", "a1", id="not global: remote ones never"),
    pytest.param(False, "b1", "", id="not global: not even when there is no other"),
]


@pytest.mark.parametrize(("is_global", "there", "used"), GLOBAL)
def test_remote_backends_need_a_global_service_here(is_global: bool, there: str, used: str) -> None:
    found = merge.choose(backends(there), Consumer(is_global=is_global))
    assert shares(found) == expected(used)


AFFINITY = [  # affinity   backends           used
    # none: all active ones of both sides
    ("none", "a1 a2 b1", "a1 a2 b1"),
    ("none", "a1~ b1", "b1"),
    ("none", "a1 b1~", "a1"),
    ("none", "a1~ b1~", "a1 b1"),
    ("none", "a1! b1", "b1"),
    ("none", "a1~ a2!", "a1"),
    # local: remote ones only when no local one is active
    ("local", "a1 b1", "a1"),
    ("local", "a1 a2~ b1", "a1"),
    ("local", "a1~ b1", "b1"),
    ("local", "a1! b1", "b1"),
    ("local", "b1 c1", "b1 c1"),
    ("local", "a1~", "a1"),
    ("local", "a1", "a1"),
    # remote: local ones only when there is no remote one, active or terminating
    ("remote", "a1 b1", "b1"),
    ("remote", "a1 b1 c1", "b1 c1"),
    ("remote", "a1", "a1"),
    ("remote", "a1~", "a1"),
    ("remote", "a1! b1", "b1"),
    ("remote", "a1 b1~", "b1"),
    ("remote", "a1~ b1", "b1"),
]


@pytest.mark.parametrize(("affinity", "there", "used"), AFFINITY)
def test_affinity(affinity: str, there: str, used: str) -> None:
    found = merge.choose(backends(there), Consumer(is_global=True, affinity=affinity))
    assert shares(found) == expected(used)


LOCAL_POLICY = [  # only a1 runs on this node
    ("a1 a2 b1", "a1"),
    ("a2 b1", ""),
    ("a1~ a2", "a1"),
]


@pytest.mark.parametrize(("there", "used"), LOCAL_POLICY)
def test_internal_traffic_policy_local_stays_on_the_node(there: str, used: str) -> None:
    found = merge.choose(backends(there), Consumer(is_global=True, only_here=True))
    assert shares(found) == expected(used)


# --- which backends match a frontend (contract kvstore 6.2) --------------------------------------

MATCHES = [  # frontend's name, its protocol   ports offered                     target ports
    ("http", 6, [("http", 6, 8080)], {8080}),
    ("http", 6, [("web", 6, 8080)], set()),
    ("http", 6, [("", 6, 8080)], {8080}),
    ("", 6, [("http", 6, 8080)], {8080}),
    ("", 6, [("http", 6, 8080), ("metrics", 6, 9090)], {8080, 9090}),
    ("http", 6, [("http", 17, 8080)], set()),
    ("dns", 17, [("dns", 17, 53), ("dns", 6, 53)], {53}),
    ("web", 6, [("http", 6, 8080), ("web", 6, 8080)], {8080}),
    ("http", 6, [("", 6, 8080), ("web", 6, 8080)], set()),
    ("sctp", 132, [("sctp", 132, 7)], {7}),
]


@pytest.mark.parametrize(("name", "proto", "ports", "matching"), MATCHES)
def test_backends_match_by_protocol_and_port_name(
    name: str, proto: int, ports: list[tuple[str, int, int]], matching: set[int]
) -> None:
    group = Group(tuple(OfferedPort(*p) for p in ports), Condition.ACTIVE, False, (b"\n\2\0\1",))
    frontend = Frontend("10.96.0.1", 80, name, "TCP")
    found = merge.candidates(frontend, proto, 4, [Offer("cluster-b", 2, (group,))])
    assert {backend.port for backend in found} == matching
    assert bool(merge.mismatch(frontend, proto, group)) != bool(matching)


def offered(cluster: str, cluster_id: int, *addresses: bytes) -> Offer:
    ports = (OfferedPort("http", 6, 8080),)
    return Offer(cluster, cluster_id, (Group(ports, Condition.ACTIVE, False, addresses),))


def test_backends_match_by_family() -> None:
    both = offered("cluster-b", 2, bytes([10, 2, 0, 1]), bytes(15) + b"\1")
    assert [b.address for b in merge.candidates(HTTP, 6, 4, [both])] == [bytes([10, 2, 0, 1])]
    assert [b.address for b in merge.candidates(HTTP, 6, 16, [both])] == [bytes(15) + b"\1"]


def test_of_equal_addresses_the_own_clusters_counts_then_the_lowest_cluster_id() -> None:
    same = bytes([10, 9, 0, 1])
    own, low, high = (offered(*it, same) for it in (("a", 0), ("b", 2), ("c", 3)))
    for order in permutations((own, low, high)):
        assert [b.cluster for b in merge.candidates(HTTP, 6, 4, order)] == ["a"]
    for order in permutations((low, high)):
        assert [b.cluster for b in merge.candidates(HTTP, 6, 4, order)] == ["b"]


# --- ours: weights, failover, min-local (docs/services.md) ---------------------------------------

COMPOSITION = [
    # weights: between clusters by weight, within a cluster equally
    ("none", {"weights": "local=80,cluster-b=20"}, "a1 b1", "a1=4/5 b1=1/5"),
    ("none", {"weights": "local=80,cluster-b=20"}, "a1 a2 b1", "a1=2/5 a2=2/5 b1=1/5"),
    ("none", {"weights": "local=80,cluster-b=20"}, "a1 b1 b2", "a1=4/5 b1=1/10 b2=1/10"),
    ("none", {"weights": "cluster-a=80,cluster-b=20"}, "a1 b1", "a1=4/5 b1=1/5"),
    ("none", {"weights": "cluster-b=300"}, "a1 b1", "a1=1/4 b1=3/4"),
    ("none", {"weights": "cluster-b=1,*=3"}, "a1 b1 c1", "a1=3/7 b1=1/7 c1=3/7"),
    ("none", {"weights": "local=80,cluster-b=20,*=0"}, "a1 b1 c1", "a1=4/5 b1=1/5"),
    ("none", {"weights": "cluster-b=0"}, "a1 b1", "a1"),
    ("none", {"weights": "cluster-b=0"}, "b1", ""),
    ("none", {"weights": "local=0"}, "a1 b1", "b1"),
    ("none", {"weights": "local=80,cluster-b=20"}, "b1", "b1"),
    ("none", {"weights": "local=1,cluster-b=3"}, "a1~ b1", "b1"),
    # affinity before weights; a drained cluster counts as if it had no backend
    ("local", {"weights": "local=80,cluster-b=20"}, "a1 b1", "a1"),
    ("local", {"weights": "local=0"}, "a1 b1", "b1"),
    ("local", {"weights": "cluster-b=1,cluster-c=3"}, "b1 c1", "b1=1/4 c1=3/4"),
    ("remote", {"weights": "cluster-b=0"}, "a1 b1", "a1"),
    # failover: the first tier with a usable backend
    ("none", {"failover": "local,cluster-b,*"}, "a1 b1 c1", "a1"),
    ("none", {"failover": "local,cluster-b,*"}, "a1~ b1 c1", "b1"),
    ("none", {"failover": "local,cluster-b,*"}, "c1", "c1"),
    ("none", {"failover": "local,cluster-b,*"}, "a1~ c1~", "a1"),
    ("none", {"failover": "cluster-c,local"}, "a1 b1 c1", "c1"),
    ("none", {"failover": "cluster-c,local"}, "a1 b1", "a1"),
    ("none", {"failover": "cluster-c,local"}, "b1", ""),
    ("none", {"failover": "*,local"}, "a1 b1 c1", "b1 c1"),
    ("none", {"failover": "*"}, "a1 b1 c1", "a1 b1 c1"),
    # affinity before failover
    ("local", {"failover": "cluster-b,local,*"}, "a1 b1 c1", "a1"),
    ("local", {"failover": "local,cluster-c,cluster-b"}, "b1 c1", "c1"),
    ("remote", {"failover": "local,cluster-b"}, "a1 b1 c1", "b1"),
    # failover before weights: drained clusters are passed over, weights count within the tier
    ("none", {"failover": "local,*", "weights": "local=0,cluster-b=1,*=3"}, "a1 b1 c1",
     "b1=1/4 c1=3/4"),
    ("none", {"failover": "*", "weights": "cluster-b=3,*=1"}, "a1 b1", "a1=1/4 b1=3/4"),
    # min-local: enough local ones take all; fewer take their part, the rest spills
    ("none", {"min_local": "2"}, "a1 a2 b1", "a1 a2"),
    ("none", {"min_local": "2"}, "a1 b1", "a1=1/2 b1=1/2"),
    ("none", {"min_local": "4"}, "a1 b1 b2", "a1=1/4 b1=3/8 b2=3/8"),
    ("none", {"min_local": "3"}, "b1", "b1"),
    ("none", {"min_local": "3"}, "a1", "a1"),
    ("none", {"min_local": "1"}, "a1 b1", "a1"),
    ("none", {"min_local": "50%"}, "a1 a2! a3! b1", "a1=1/2 b1=1/2"),
    ("none", {"min_local": "30%"}, "a1 a2! a3! b1", "a1"),
    ("none", {"min_local": "100%"}, "a1 a2~ b1", "a1=1/2 b1=1/2"),
    # what spills goes where all would go without local backends
    ("local", {"min_local": "2"}, "a1 b1", "a1=1/2 b1=1/2"),
    ("none", {"min_local": "2", "failover": "local,cluster-b,*"}, "a1 b1 c1", "a1=1/2 b1=1/2"),
    ("none", {"min_local": "2", "failover": "local,cluster-b,*"}, "a1 c1", "a1=1/2 c1=1/2"),
    ("none", {"min_local": "2", "failover": "cluster-b,local"}, "a1 b1", "b1"),
    ("none", {"min_local": "2", "failover": "local"}, "a1 b1", "a1"),
    ("none", {"min_local": "2", "weights": "cluster-b=1,cluster-c=3"}, "a1 b1 c1",
     "a1=1/2 b1=1/8 c1=3/8"),
    ("none", {"min_local": "2", "weights": "cluster-b=0"}, "a1 b1", "a1"),
]  # fmt: skip


@pytest.mark.parametrize(("affinity", "rules", "there", "used"), COMPOSITION)
def test_composition(affinity: str, rules: dict[str, str], there: str, used: str) -> None:
    found = merge.choose(backends(there), consumer(affinity, **rules))
    assert shares(found) == expected(used)


@pytest.mark.parametrize(("affinity", "there", "used"), AFFINITY)
@pytest.mark.parametrize("rules", [{"weights": "*=100"}, {"failover": "*"}])
def test_rules_that_say_nothing_change_nothing(
    affinity: str, there: str, used: str, rules: dict[str, str]
) -> None:
    found = merge.choose(backends(there), consumer(affinity, **rules))
    assert set(shares(found)) == set(expected(used))


# --- clusters that do not answer probes (design: two truths) -------------------------------------

UNREACHABLE = [
    ("none", "a1 b1", {"cluster-b"}, "a1"),
    ("none", "a1 b1 c1", {"cluster-b"}, "a1 c1"),
    ("remote", "a1 b1", {"cluster-b"}, "a1"),
    ("none", "b1", {"cluster-b"}, "b1"),
    ("none", "b1 c1", {"cluster-b", "cluster-c"}, "b1 c1"),
]


@pytest.mark.parametrize(("affinity", "there", "unreachable", "used"), UNREACHABLE)
def test_an_unreachable_cluster_is_used_only_when_nothing_else_is_left(
    affinity: str, there: str, unreachable: set[str], used: str
) -> None:
    found = merge.choose(backends(there), consumer(affinity), frozenset(unreachable))
    assert shares(found) == expected(used)


# --- laws ----------------------------------------------------------------------------------------

words = st.sampled_from(
    [f"{c}{n}{mark}" for c in "abc" for n in (1, 2, 3) for mark in ("", "~", "!")]
)
worlds = st.lists(words, max_size=8, unique_by=lambda word: word[:2]).map(" ".join)
affinities = st.sampled_from(["none", "local", "remote"])
rules = st.sampled_from(
    [{}, {"weights": "local=80,*=20"}, {"failover": "local,cluster-c,*"}, {"weights": "*=7"}]
)


@given(worlds, affinities, rules)
def test_every_backend_has_a_verdict_and_a_reason(
    there: str, affinity: str, rules: dict[str, str]
) -> None:
    found = merge.choose(backends(there), consumer(affinity, **rules))
    assert [verdict.backend for verdict in found] == backends(there)
    assert all(bool(verdict.weight) != bool(verdict.why) for verdict in found)


@given(worlds, affinities, rules)
def test_never_empty_while_any_usable_backend_exists(
    there: str, affinity: str, rules: dict[str, str]
) -> None:
    found = merge.choose(backends(there), consumer(affinity, **rules))
    usable = [b for b in backends(there) if b.condition is not Condition.NOT_READY]
    assert bool(shares(found)) == bool(usable)


@given(worlds, affinities)
def test_the_order_of_offers_does_not_matter(there: str, affinity: str) -> None:
    by_cluster: dict[str, list[bytes]] = {}
    for backend in backends(there):
        by_cluster.setdefault(label(backend)[0], []).append(backend.address)
    offers = [offered(*CLUSTERS[name], *found) for name, found in by_cluster.items()]
    answers = {
        tuple(merge.choose(merge.candidates(HTTP, 6, 4, order), consumer(affinity)))
        for order in permutations(offers)
    }
    assert len(answers) <= 1
