"""Two ways to work out the same: the agent's and the audit's agree on whatever they are given."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent.audit import placement
from agent.audit.addresses import Here, overlapping
from agent.audit.reading import Told
from agent.audit.sharing import (
    ACTIVE,
    LOCAL,
    NOT_READY,
    TERMINATING,
    Endpoint,
    Misspelt,
    shares,
    wish,
)
from agent.services import merge, policy, table
from agent.services.merge import Consumer
from agent.services.offers import Condition
from tests.support.mesh import IDS, NODE, NODE_IP, OWN, OWN_ID, Agent, node

CONDITIONS = {
    ACTIVE: Condition.ACTIVE, TERMINATING: Condition.TERMINATING, NOT_READY: Condition.NOT_READY,
}  # fmt: skip
NAMES = ["", "local", "cluster-a", "cluster-b", "cluster-c", "*", "Cluster", "-", "b=1"]

words = st.sampled_from(NAMES)
weights = st.lists(st.tuples(words, st.sampled_from(["0", "1", "30", "10000", "10001", "x", ""])))
annotations = st.fixed_dictionaries(
    {},
    optional={
        "service.clustermesh.io/weights": weights.map(
            lambda pairs: ",".join(f"{name}={number}" for name, number in pairs)
        ),
        "service.clustermesh.io/failover": st.lists(words, max_size=4).map(",".join),
        "service.clustermesh.io/min-local": st.sampled_from(
            ["0", "1", "3", "50%", "100%", "101%", "0%", "%", "x", ""]
        ),
        "service.clustermesh.io/waits": st.just("a typing error"),
        "example.com/other": st.just("somebody else's"),
    },
)
affinities = st.sampled_from(["none", "local", "remote"])
clusters = st.sampled_from([(0, LOCAL), (2, "cluster-b"), (3, "cluster-c")])
endpoints = st.lists(
    st.builds(
        lambda number, cluster, condition, here: Endpoint(
            bytes([10, cluster[0], 0, number]), 8080, 6, *cluster, condition,
            here and not cluster[0],
        ),
        st.integers(0, 5), clusters, st.sampled_from(list(CONDITIONS)), st.booleans(),
    ),
    max_size=8,
    unique_by=lambda it: it.address,
)  # fmt: skip


@given(endpoints, annotations, affinities, st.booleans(), st.sets(st.sampled_from(NAMES[3:5])))
def test_the_same_endpoints_serve_with_the_same_shares(known, said, affinity, only_here, silent):
    try:
        theirs = policy.parse(said, affinity=affinity, own=OWN)
    except policy.BadPolicy:
        theirs = None
    try:
        ours = wish(said, own=OWN, affinity=affinity, only_here=only_here)
    except Misspelt:
        ours = None
    assert (ours is None) == (theirs is None), (ours, theirs)
    if ours is None or theirs is None:
        return
    backends = [
        merge.Backend(
            it.address, it.port, it.proto, it.cluster_id, OWN if it.ours else it.cluster,
            CONDITIONS[it.condition], it.here,
        )
        for it in known
    ]  # fmt: skip
    consumer = Consumer(True, affinity, only_here, theirs)
    verdicts = merge.choose(backends, consumer, frozenset(silent))
    total = sum(verdict.weight for verdict in verdicts)
    expected = {v.backend.address: Fraction(v.weight, total) for v in verdicts if v.weight}
    found = {it.address: share for it, share in shares(known, ours, frozenset(silent)).items()}
    assert found == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_tables_have_the_same_entries_in_the_same_places(numbers):
    total = sum(numbers)
    quotas = placement.quotas([Fraction(it, total) for it in numbers], 251)
    assert quotas == tuple(table.quotas(numbers, 251))
    names = tuple(bytes([10, 1, 0, at]) for at in range(len(numbers)))
    assert list(placement.placed(names, quotas)) == list(table.table(names, quotas))


ranges = st.builds(
    lambda ones, address: f"{address}/{ones}", st.integers(8, 32), st.ip_addresses(v=4).map(str)
)
near = st.builds(
    lambda a, b, ones: f"10.{a}.{b}.0/{ones}", *[st.integers(0, 3)] * 2, st.integers(14, 26)
)


@given(
    st.dictionaries(st.sampled_from(sorted(IDS)), st.lists(near | ranges, max_size=3)),
    st.sampled_from(["172.31", "172.31", "10.1"]),
)
def test_the_same_clusters_are_held_out(mesh, underlay):
    nodes = [
        node(
            cluster,
            f"n{at}",
            NODE_IP if cluster == OWN else f"{underlay}.{IDS[cluster]}.{at}",
            cidr,
        )
        for cluster, cidrs in mesh.items()
        for at, cidr in enumerate(cidrs)
    ]
    agent = Agent().expect(*mesh).nodes(*nodes).synced(OWN, *mesh).settle()
    told = [
        Told(
            cluster=name,
            cluster_id=IDS[name],
            nodes={it.name: it for it in nodes if it.cluster == name},
        )
        for name in {OWN, *mesh}
    ]
    held = overlapping(Here(OWN, OWN_ID, NODE, NODE_IP), told)
    sentences = [it for it in agent.dataplane.trouble() if "is left out" in it]
    assert {it.split(":")[0].removeprefix("cluster ") for it in sentences} == held
