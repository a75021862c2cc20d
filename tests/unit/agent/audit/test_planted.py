"""Every planted error is found, in every map, and nothing is found where nothing was planted."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from agent.audit import kernel, repair
from agent.audit.addresses import Here
from agent.audit.compare import Drift
from agent.audit.frontends import Circumstances
from agent.audit.judgement import Case, judge
from agent.audit.observed import AUDITED
from agent.audit.reading import Told
from bpf.datapath import Maps
from clustermesh.audit import EXTRA, MISSING, WRONG
from clustermesh.keys import Kind
from clustermesh.local import Frontend, LocalService, Scope
from clustermesh.model import ClusterService, IPEntry, Node
from tests.support.mesh import (
    IDS,
    NODE,
    NODE_IP,
    OWN,
    OWN_ID,
    Agent,
    backend,
    contents,
    node,
    offer,
    pod,
    service,
)

Entries = dict[str, dict[bytes, bytes]]


@dataclass
class Mesh:
    """The same facts twice: told to an agent, and as an audit reads them."""

    local: list[LocalService] = field(default_factory=list)
    offers: list[ClusterService] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    pods: dict[str, list[IPEntry]] = field(default_factory=dict)
    unreachable: frozenset[str] = frozenset()

    @property
    def clusters(self) -> set[str]:
        named = {it.cluster for it in (*self.offers, *self.nodes)} | set(self.pods)
        return named - {OWN}

    def agent(self) -> Agent:
        agent = Agent(kube_proxy_replacement=True).expect(*self.clusters)
        agent.nodes(*self.nodes).local(*self.local).remote(*self.offers)
        for cluster, entries in self.pods.items():
            agent.pods(cluster, *entries)
        agent.synced(OWN, *sorted(self.clusters))
        agent.dataplane.unreachable(self.unreachable)
        return agent.settle()

    def told(self, cluster: str) -> Told:
        mine = [it for it in self.offers if it.cluster == cluster]
        own = self.local if cluster == OWN else []
        return Told(
            cluster=cluster,
            cluster_id=IDS[cluster],
            nodes={it.name: it for it in self.nodes if it.cluster == cluster},
            addresses={it.ip: it for it in self.pods.get(cluster, ())},
            offers={f"{it.namespace}/{it.name}": it for it in mine},
            services={f"{it.namespace}/{it.name}": it for it in own},
        )

    def audit(self, found: Mapping[str, Mapping[bytes, bytes]], **more: object) -> list[Drift]:
        return judge(self.case(found, **more)).drifts

    def case(self, found: Mapping[str, Mapping[bytes, bytes]], **more: object) -> Case:
        given: dict[str, object] = {
            "here": Here(OWN, OWN_ID, NODE, NODE_IP),
            "given": Circumstances(True, NODE, self.unreachable),
            "own": self.told(OWN),
            "remotes": [self.told(it) for it in sorted(self.clusters)],
            "absent": {},
            "names": {IDS[it]: it for it in self.clusters},
            "found": found,
            "table_size": 251,
        }
        return Case(**(given | more))


def busy_mesh() -> Mesh:
    """Both families, three clusters, session affinity, backends in every role."""
    six = Frontend("fd00:96::1", 80, "http", "TCP")
    four = Frontend("10.96.0.1", 80, "http", "TCP")
    web = service(
        backend("10.1.0.1"), backend("10.1.0.2", state="terminating"), "fd00:1::1",
        frontends=(four, six), session_affinity_seconds=60, affinity="local",
    )  # fmt: skip
    cart = service(
        "10.1.0.7", "fd00:1::7", name="cart",
        frontends=(
            Frontend("10.96.0.2", 80, "http", "TCP"),
            Frontend("192.0.2.80", 80, "http", "TCP", Scope.LOAD_BALANCER),
            Frontend("2001:db8::80", 80, "http", "TCP", Scope.LOAD_BALANCER),
        ),
        load_balancer_source_ranges=("198.51.100.0/24", "203.0.113.9/32", "2001:db8:f::/48"),
    )  # fmt: skip
    return Mesh(
        local=[web, cart],
        offers=[
            offer("cluster-b", "10.2.0.1", "fd00:2::1"),
            offer("cluster-b", "10.2.0.8", "10.2.0.9", name="cart"),
            offer("cluster-c", "10.3.0.9", name="cart"),
        ],
        nodes=[
            node(OWN, NODE, NODE_IP, "10.1.0.0/24", "10.1.0.254"),
            node(OWN, "a2", "192.168.0.9", "10.1.1.0/24", "10.1.1.254"),
            node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"),
            node("cluster-c", "c1", "192.168.0.3", "10.3.0.0/24", "10.3.0.254"),
        ],
        pods={
            OWN: [pod("10.1.0.1", NODE_IP, 1 << 16 | 7), pod("10.1.1.4", "192.168.0.9", 70000)],
            "cluster-b": [pod("10.2.0.1", "192.168.0.2", 2 << 16 | 7)],
        },
    )


MESH = busy_mesh()


@pytest.fixture(scope="module")
def right() -> Entries:
    """What the agent wrote, every audited map."""
    return {
        name: entries for name, entries in contents(MESH.agent().maps).items() if name in AUDITED
    }


def test_what_the_agent_wrote_is_right(right: Entries) -> None:
    assert all(right.values()), "a map of this mesh is empty: nothing can be planted in it"
    assert MESH.audit(right) == []


def planted(right: Entries, change: Callable[[Entries], None]) -> Entries:
    copy = {name: dict(entries) for name, entries in right.items()}
    change(copy)
    return copy


@pytest.mark.parametrize("member", AUDITED)
def test_a_missing_entry_is_found(right: Entries, member: str) -> None:
    for key in right[member]:
        found = planted(right, lambda maps, key=key: maps[member].pop(key))
        assert (member, key, MISSING) in {it.identity for it in MESH.audit(found)}


def mutations(value: bytes) -> Iterator[bytes]:
    """The value with one byte of it changed, for each byte that says something."""
    for at in range(len(value)):
        yield value[:at] + bytes([value[at] ^ 0x11]) + value[at + 1 :]


SILENT = {"ipcache": (8, 9), "tunnel": (18, 19), "backends4": (11,), "backends6": (23,)}
"""Padding, which says nothing; programs do not read it."""


@pytest.mark.parametrize("member", [it for it in AUDITED if not it.startswith("tables")])
def test_a_wrong_byte_is_found_wherever_it_is(right: Entries, member: str) -> None:
    for key, value in right[member].items():
        for at, wrong in enumerate(mutations(value)):
            if at in SILENT.get(member, ()):
                continue
            found = planted(right, lambda maps, k=key, w=wrong: maps[member].update({k: w}))
            assert MESH.audit(found), f"{member} {key.hex()}: byte {at} was not found"


@pytest.mark.parametrize("member", ["tables4", "tables6"])
def test_a_wrong_table_is_found(right: Entries, member: str) -> None:
    for key, table in right[member].items():
        ids = {table[at : at + 4] for at in range(0, len(table), 4)}
        moved = table[4:] + table[:4]
        swapped = (max(ids) * 4 + table)[: len(table)] if len(ids) > 1 else bytes(len(table))
        for wrong in {swapped, table[:-4], bytes(len(table)), moved} - {table}:
            found = planted(right, lambda maps, k=key, w=wrong: maps[member].update({k: w}))
            kinds = {it.identity for it in MESH.audit(found)}
            assert (member, key, WRONG) in kinds


def test_places_in_a_table_matter_only_to_a_thorough_audit(right: Entries) -> None:
    (key, table), *_ = ((k, t) for k, t in right["tables4"].items() if len(set(t)) > 3)
    found = planted(right, lambda maps: maps["tables4"].update({key: table[4:] + table[:4]}))
    assert MESH.audit(found)
    assert not MESH.audit(found, thorough=False)


STRANGERS: dict[str, list[tuple[bytes, bytes]]] = {
    "ipcache": [(bytes.fromhex("4000000000000001") + bytes([10, 9, 9, 9]) + bytes(12), bytes(12))],
    "tunnel": [(bytes([10, 9, 0, 0]) + bytes(12) + b"\1\0\0\0", bytes(16) + b"\1\0\0\0")],
    "nodes": [(bytes([192, 168, 0, 99]), bytes(16))],
    "services4": [
        (bytes([10, 96, 9, 9, 0, 80]) + b"\0\0\6\0\0\0", bytes(4) + b"\0\0\0\x99" + bytes(4)),
        (bytes([10, 96, 0, 1, 0, 80]) + b"\x63\0\6\0\0\0", b"\1\0\0\0" + b"\0\0\0\1" + bytes(4)),
        (bytes([10, 96, 0, 1, 0, 80]) + b"\0\0\6\1\0\0", bytes(12)),
    ],
    "services6": [(bytes(16) + b"\0\x50" + b"\0\0\6\0\0\0", bytes(12))],
    "backends4": [(b"\x99\0\0\0", bytes([10, 1, 0, 1, 31, 144, 6, 0, 0, 0, 0, 0]))],
    "backends6": [(b"\x99\0\0\0", bytes(24))],
    "reverse_nat4": [(b"\x00\x99", bytes(6))],
    "reverse_nat6": [(b"\x00\x99", bytes(18))],
    "tables4": [(b"\x00\x99", bytes(251 * 4))],
    "tables6": [(b"\x00\x99", bytes(251 * 4))],
    "source_ranges4": [
        (b"\x38\0\0\0\0\x99\0\0" + bytes([198, 51, 100, 0]), b"\0"),
        (b"\x38\0\0\0\0\1\0\0" + bytes([198, 51, 100, 0]), b"\0"),
    ],
    "source_ranges6": [(b"\x50\0\0\0\0\x99\0\0" + bytes(16), b"\0")],
    "affinity_match": [(b"\x99\0\0\0\0\x99\0\0", b"\0")],
}


@pytest.mark.parametrize("member", AUDITED)
def test_an_entry_too_many_is_found(right: Entries, member: str) -> None:
    for key, value in STRANGERS[member]:
        found = planted(right, lambda maps, k=key, v=value: maps[member].update({k: v}))
        drifts = MESH.audit(found)
        assert (member, key, EXTRA) in {it.identity for it in drifts}
        assert all(it.what.sentence() for it in drifts)


def plant(maps: Maps, member: str, key: bytes, value: bytes | None) -> None:
    target = getattr(maps, member)
    if member.startswith("tables"):
        target.drop([key]) if value is None else target.swap([key], value)
    elif value is None:
        target.drop_many([key])
    else:
        target.put_many([(key, value)])


def mend(agent: Agent) -> None:
    """As the auditor does it, without a loop."""
    drifts = MESH.audit(kernel.read(agent.maps))
    repair.remove(agent.maps, drifts)
    repair.write(agent.maps, drifts)
    agent.dataplane.rewrite({it.what.service for it in drifts if it.what.service})
    agent.settle()


@pytest.mark.parametrize("member", AUDITED)
def test_what_was_planted_is_mended(right: Entries, member: str) -> None:
    agent = MESH.agent()
    before = contents(agent.maps)
    for key, value in list(before[member].items()):
        for wrong in (None, bytes([value[0] ^ 0x11]) + value[1:]):
            plant(agent.maps, member, key, wrong)
            mend(agent)
            assert contents(agent.maps) == before, f"{member} {key.hex()} {wrong!r}"
    for key, value in STRANGERS[member]:
        plant(agent.maps, member, key, value)
        mend(agent)
        assert contents(agent.maps) == before, f"{member} {key.hex()}"


def test_a_cluster_that_cannot_be_read_keeps_what_it_has(right: Entries) -> None:
    """Its entries are named as not audited; those of others are judged as ever."""
    for away in sorted(MESH.clusters):
        remotes = [MESH.told(it) for it in sorted(MESH.clusters - {away})]
        judgement = judge(MESH.case(right, remotes=remotes, absent={away: "its etcd is down"}))
        assert judgement.drifts == []
        assert judgement.unaudited == (f"cluster {away}: its etcd is down",)
        found = planted(right, lambda maps: maps["services4"].popitem())
        assert MESH.audit(found, remotes=remotes, absent={away: "its etcd is down"})


def test_a_value_that_cannot_be_read_excuses_what_hangs_on_it(right: Entries) -> None:
    told = MESH.told("cluster-b")
    del told.addresses["10.2.0.1"]
    told.bad = {(str(Kind.IPS), "10.2.0.1"): "ID: 5", (str(Kind.SERVICES), "shop/cart"): "no JSON"}
    judgement = judge(MESH.case(right, remotes=[told, MESH.told("cluster-c")]))
    assert judgement.drifts == []
    assert len(judgement.unaudited) == 3
