"""Addresses that are meant for clients outside: served in place of kube-proxy only."""

import pytest

from agent.audit.addresses import Here
from agent.audit.frontends import Circumstances
from agent.audit.judgement import Case, judge
from agent.audit.observed import AUDITED
from agent.audit.reading import Told
from agent.services.compose import frontends
from agent.services.program import Place
from bpf.layout_lb import ServiceFlag, ServiceKey, ServiceValue, SourceRangeKey
from clustermesh.addresses import spelled
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort, Scope
from tests.support.mesh import NODE, NODE_IP, OWN, OWN_ID, Agent, contents

CLUSTER4, CLUSTER6 = "10.96.0.10", "fd00:96::a"
EXTERNAL, BALANCER = "192.0.2.1", "198.51.100.9"

HTTP = {"port": 80, "name": "http"}
SERVICE = LocalService(
    namespace="shop",
    name="cart",
    frontends=(
        Frontend(address=CLUSTER4, **HTTP),
        Frontend(address=EXTERNAL, scope=Scope.EXTERNAL_IP, **HTTP),
        Frontend(address=BALANCER, scope=Scope.LOAD_BALANCER, **HTTP),
        Frontend(port=30080, name="http", scope=Scope.NODE_PORT),
    ),
    backends=(
        LocalBackend(address="10.1.0.5", ports=(NamedPort("http", "TCP", 8080),), node="a1"),
        LocalBackend(address="10.1.1.5", ports=(NamedPort("http", "TCP", 8080),), node="a2"),
    ),
)


def replaced(**changes: object) -> LocalService:
    given = {name: getattr(SERVICE, name) for name in SERVICE.__struct_fields__}
    return LocalService(**{**given, **changes})


def places(service: LocalService, *, outside: bool) -> set[tuple[str, int]]:
    found = frontends(service, outside=outside)
    return {(spelled(place.address), place.port) for place in found}


def test_beside_kube_proxy_only_the_services_own_address_is_served():
    assert places(SERVICE, outside=False) == {(CLUSTER4, 80)}


def test_in_place_of_kube_proxy_every_address_is():
    assert places(SERVICE, outside=True) == {
        (CLUSTER4, 80),
        (EXTERNAL, 80),
        (BALANCER, 80),
        (NOWHERE4, 30080),
    }


NOWHERE4 = spelled(bytes(4))


def test_a_node_port_has_an_entry_for_each_family_of_the_service():
    both = replaced(frontends=(*SERVICE.frontends, Frontend(address=CLUSTER6, **HTTP)))
    assert {place for place in frontends(both, outside=True) if place.port == 30080} == {
        Place(bytes(4), 30080, 6),
        Place(bytes(16), 30080, 6),
    }


RANGES = ("203.0.113.0/24", " 198.51.100.7/32", "2001:db8::/32", "nonsense")


def ranges(agent: Agent, family: str = "4") -> set[tuple[int, str, int]]:
    entries = contents(agent.maps)["source_ranges" + family]
    found = map(SourceRangeKey.unpack, entries)
    return {(it.rev_nat, spelled(it.address), it.prefix) for it in found}


def test_source_ranges_are_those_of_the_balancers_address_and_of_its_family():
    agent = serving(replaced(load_balancer_source_ranges=RANGES))
    (guarded,) = (
        ServiceValue.unpack(value)
        for value in contents(agent.maps)["services4"].values()
        if ServiceFlag.SOURCE_RANGE & ServiceValue.unpack(value).flags
    )
    assert guarded.flags & ServiceFlag.LOAD_BALANCER
    assert ranges(agent) == {
        (guarded.rev_nat, "203.0.113.0", 24),
        (guarded.rev_nat, "198.51.100.7", 32),
    }
    assert ranges(agent, "6") == set()
    told = {it.frontend: it.source_ranges for it in agent.dataplane.services()}
    assert told == {
        **dict.fromkeys(told, ()), f"{BALANCER}:80/TCP": RANGES,
    }  # fmt: skip


def test_source_ranges_follow_the_service():
    agent = serving(replaced(load_balancer_source_ranges=RANGES))
    agent.local(replaced(load_balancer_source_ranges=RANGES[:1])).settle()
    ((_, address, _),) = ranges(agent)
    assert address == "203.0.113.0"
    before = contents(agent.maps)
    again = Agent(kube_proxy_replacement=True, maps=agent.maps)
    again.local(replaced(load_balancer_source_ranges=RANGES[:1])).synced("cluster-a").settle()
    assert contents(again.maps) == before
    agent.local(SERVICE).settle()
    assert ranges(agent) == set()
    assert contents(agent.maps)["services4"] == contents(serving(SERVICE).maps)["services4"]


def test_a_range_of_nobodys_frontend_goes_when_all_is_known():
    maps = serving(SERVICE).maps
    before = contents(maps)
    maps.source_ranges4.put_many([(SourceRangeKey(999, bytes(4), 0).pack(), b"\0")])
    again = Agent(kube_proxy_replacement=True, maps=maps)
    again.local(SERVICE).synced("cluster-a").settle()
    assert contents(maps) == before


def masters(service: LocalService, *, every: bool) -> dict[tuple[str, int], ServiceValue]:
    agent = Agent(kube_proxy_replacement=every).local(service).synced("cluster-a").settle()
    found = {}
    for raw, value in agent.maps.services4.items():
        key = ServiceKey.unpack(raw)
        if key.slot == 0:
            found[spelled(key.address), key.port] = ServiceValue.unpack(value)
    return found


def test_each_kind_of_address_has_its_flags():
    flags = {
        place: ServiceFlag(value.flags) for place, value in masters(SERVICE, every=True).items()
    }
    assert flags == {
        (CLUSTER4, 80): ServiceFlag(0),
        (EXTERNAL, 80): ServiceFlag.EXTERNAL_IP | ServiceFlag.ROUTABLE,
        (BALANCER, 80): ServiceFlag.LOAD_BALANCER | ServiceFlag.ROUTABLE,
        (NOWHERE4, 30080): ServiceFlag.NODE_PORT,
    }


def test_without_the_option_a_global_service_has_no_outside_either():
    assert set(masters(replaced(is_global=True), every=False)) == {(CLUSTER4, 80)}


@pytest.mark.parametrize("policy", ["Local", "Cluster"])
def test_the_internal_policy_is_one_for_the_services_own_address(policy: str):
    found = masters(replaced(internal_traffic_policy=policy), every=True)
    assert found[CLUSTER4, 80].count == (1 if policy == "Local" else 2)
    assert {value.count for place, value in found.items() if place[0] != CLUSTER4} == {2}


def by_scope(agent: Agent) -> dict[tuple[str, int], tuple[int, ServiceFlag]]:
    """Address and scope to how many backends are used, and the flags."""
    found = {}
    for raw, value in agent.maps.services4.items():
        key, master = ServiceKey.unpack(raw), ServiceValue.unpack(value)
        if key.slot == 0:
            found[spelled(key.address), key.scope] = master.count, ServiceFlag(master.flags)
    return found


def serving(service: LocalService) -> Agent:
    return Agent(kube_proxy_replacement=True).local(service).synced("cluster-a").settle()


def test_the_external_policy_parts_clients_outside_from_those_inside():
    found = by_scope(serving(replaced(external_traffic_policy="Local")))
    assert found.pop((CLUSTER4, 0)) == (2, ServiceFlag(0))
    assert {place: count for place, (count, _) in found.items()} == {
        (address, scope): 2 if scope else 1
        for address in (EXTERNAL, BALANCER, NOWHERE4)
        for scope in (0, 1)
    }
    parted = ServiceFlag.EXT_LOCAL | ServiceFlag.TWO_SCOPES
    assert all(flags & parted == parted for _, flags in found.values())


def test_a_policy_that_is_taken_back_leaves_one_scope():
    agent = serving(replaced(external_traffic_policy="Local"))
    agent.local(SERVICE).settle()
    assert {scope for _, scope in by_scope(agent)} == {0}
    assert by_scope(agent) == by_scope(serving(SERVICE))
    for name in ("services4", "reverse_nat4", "tables4"):
        left, fresh = (len(contents(it.maps)[name]) for it in (agent, serving(SERVICE)))
        assert left == fresh, name


@pytest.mark.parametrize("inside", ["Cluster", "Local"])
@pytest.mark.parametrize("outside", ["Cluster", "Local"])
def test_the_audit_wants_what_the_agent_writes(inside: str, outside: str):
    service = replaced(
        internal_traffic_policy=inside, external_traffic_policy=outside, session_affinity_seconds=9
    )
    written = contents(serving(service).maps)
    found = {name: entries for name, entries in written.items() if name in AUDITED}
    case = Case(
        here=Here(OWN, OWN_ID, NODE, NODE_IP),
        given=Circumstances(True, NODE),
        own=Told(cluster=OWN, cluster_id=OWN_ID, services={"shop/cart": service}),
        remotes=[],
        absent={},
        names={OWN_ID: OWN},
        found=found,
        table_size=251,
    )
    assert judge(case).drifts == []
    for key in found["services4"]:
        less = {**found["services4"]}
        del less[key]
        damaged = case._replace(found={**found, "services4": less})
        assert key in {it.key for it in judge(damaged).drifts}
