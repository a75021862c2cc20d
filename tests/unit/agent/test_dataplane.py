"""The node's maps through the life of a mesh, asked as a packet would ask them."""

from agent.facts import LocalKind
from clustermesh.keys import Kind
from clustermesh.local import Frontend
from clustermesh.model import Port, SliceEndpoint
from tests.support import lb
from tests.support.mesh import (
    NODE,
    NODE_IP,
    OWN,
    REMOTE_KINDS,
    VIP,
    Agent,
    backend,
    contents,
    garbage,
    node,
    offer,
    pod,
    service,
    slice_of,
    writes,
)

A1, A2, B1, B2, C1 = (f"10.{c}.0.{n}" for c, n in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1)))
WEB = (VIP, 80)


def at(*addresses: str) -> set[str]:
    return {f"{address}:8080" for address in addresses}


def mesh(maps: object = None, **settings: object) -> Agent:
    """Two clusters, one global service with a backend in each, all of it told and written."""
    agent = Agent(maps, **settings).expect("cluster-b")  # type: ignore[arg-type]
    everything(agent)
    return agent.settle()


def everything(agent: Agent) -> None:
    agent.local(service(A1)).synced(OWN)
    agent.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"))
    agent.pods("cluster-b", pod(B1, "192.168.0.2", 2 << 16 | 7))
    agent.remote(offer("cluster-b", B1)).synced("cluster-b")


# --- services ------------------------------------------------------------------------------------


def test_a_global_service_answers_from_every_cluster() -> None:
    agent = mesh()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    assert lb.slots(agent.maps, *WEB) == (at(A1, B1), set())


def test_a_service_that_is_not_global_is_left_alone() -> None:
    agent = mesh().local(service(A1, is_global=False)).settle()
    assert lb.where(agent.maps, *WEB) is None
    assert lb.broken_references(agent.maps) == []


def test_kube_proxy_replacement_serves_every_service_from_its_own_cluster() -> None:
    agent = mesh(kube_proxy_replacement=True).local(service(A1, is_global=False)).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)


def test_not_shared_there_means_not_used_here() -> None:
    agent = mesh().remote(offer("cluster-b", B1, shared=False)).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)


def test_not_shared_here_still_uses_what_is_shared_there() -> None:
    agent = mesh().local(service(A1, shared=False)).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)


def test_affinity_changes_live() -> None:
    agent = mesh()
    for affinity, used in (("local", at(A1)), ("remote", at(B1)), ("none", at(A1, B1))):
        agent.local(service(A1, affinity=affinity)).settle()
        assert lb.where(agent.maps, *WEB) == used


def test_a_synced_service_without_backends_refuses_at_once() -> None:
    agent = mesh().local(service()).remote(offer("cluster-b")).settle()
    assert lb.where(agent.maps, *WEB) == set()
    agent.local(service(A2)).settle()
    assert lb.where(agent.maps, *WEB) == at(A2)


def test_before_everybody_has_told_a_service_without_backends_passes_untouched() -> None:
    agent = Agent().expect("cluster-b").local(service()).synced(OWN).settle()
    assert lb.where(agent.maps, *WEB) is None
    agent.synced("cluster-b").settle()
    assert lb.where(agent.maps, *WEB) == set()


def test_nothing_waits_for_a_cluster_that_takes_too_long() -> None:
    agent = Agent().expect("cluster-b").local(service()).synced(OWN).settle()
    agent.dataplane.overdue("cluster-b")
    agent.settle()
    assert lb.where(agent.maps, *WEB) == set()


def test_nobody_is_sent_to_what_is_gone_while_another_cluster_is_being_added() -> None:
    agent = mesh().expect("cluster-b", "cluster-c").settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    agent.local(service()).remote(offer("cluster-b")).settle()
    assert lb.where(agent.maps, *WEB) is None, "the new one may have backends: not refused yet"
    assert garbage(agent.maps) == []
    agent.synced("cluster-c").settle()
    assert lb.where(agent.maps, *WEB) == set()


def test_without_knowing_the_configuration_an_empty_service_waits() -> None:
    agent = Agent().local(service()).synced(OWN).settle()
    assert lb.where(agent.maps, *WEB) is None
    agent.expect().settle()
    assert lb.where(agent.maps, *WEB) == set()


def test_local_backends_serve_before_any_remote_is_known() -> None:
    agent = Agent().expect("cluster-b").local(service(A1)).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)


def test_terminating_backends_keep_their_slot_and_get_nothing_new() -> None:
    agent = mesh().local(service(A1, backend(A2, state="terminating"))).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    assert lb.slots(agent.maps, *WEB) == (at(A1, B1), at(A2))


def test_terminating_backends_serve_when_they_are_the_last() -> None:
    agent = mesh().local(service(backend(A2, state="terminating"))).remote(offer("cluster-b"))
    assert lb.where(agent.settle().maps, *WEB) == at(A2)


def test_services_lead_to_a_cluster_only_when_its_nodes_and_addresses_are_known() -> None:
    agent = Agent().expect("cluster-b").local(service(A1)).synced(OWN)
    agent.remote(offer("cluster-b", B1)).synced("cluster-b", kinds=[Kind.SERVICES]).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)
    agent.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"))
    agent.synced("cluster-b", kinds=[Kind.NODES]).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)
    agent.synced("cluster-b", kinds=[Kind.IPS]).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)


def test_a_cluster_that_takes_too_long_to_tell_its_nodes_is_used_as_it_is() -> None:
    agent = Agent().expect("cluster-b").local(service(A1)).synced(OWN)
    agent.remote(offer("cluster-b", B1)).synced("cluster-b", kinds=[Kind.SERVICES])
    agent.dataplane.overdue("cluster-b")
    assert lb.where(agent.settle().maps, *WEB) == at(A1, B1)


def test_after_a_restart_services_told_before_nodes_write_nothing() -> None:
    maps = mesh().maps
    again = Agent(maps).expect("cluster-b").local(service(A1)).synced(OWN)
    again.remote(offer("cluster-b", B1)).synced("cluster-b", kinds=[Kind.SERVICES])
    before = writes(maps)
    again.settle()
    assert lb.where(maps, *WEB) == at(A1, B1)
    assert writes(maps) == before


def test_services_wait_for_the_routes_that_the_same_facts_ask_for() -> None:
    agent = Agent().expect("cluster-b")
    there: list[bool] = []
    agent.dataplane.routed = lambda: bool(there)
    everything(agent)
    assert lb.where(agent.settle().maps, *WEB) is None
    there.append(True)
    assert lb.where(agent.settle().maps, *WEB) == at(A1, B1)


def test_backends_of_slices_count_like_others() -> None:
    agent = Agent().expect("cluster-b").local(service(A1)).synced(OWN)
    first = slice_of("cluster-b", "web-1", SliceEndpoint((B1,)), SliceEndpoint((C1,), ready=False))
    second = slice_of("cluster-b", "web-2", SliceEndpoint((B2,), ready=False, serving=True))
    agent.tell("cluster-b", Kind.ENDPOINT_SLICES, {"shop/web-1": first, "shop/web-2": second})
    agent.synced("cluster-b", kinds=[Kind.NODES, Kind.IPS, Kind.ENDPOINT_SLICES]).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1, B2)
    agent.tell("cluster-b", Kind.ENDPOINT_SLICES, {"shop/web-1": None}).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B2)


def test_terminating_backends_of_slices_drain_like_local_ones() -> None:
    agent = Agent().expect("cluster-b").local(service(A1)).synced(OWN)
    leaving = SliceEndpoint((B1,), ready=False, serving=True, terminating=True)
    told = {"shop/web-1": slice_of("cluster-b", "web-1", leaving)}
    agent.tell("cluster-b", Kind.ENDPOINT_SLICES, told)
    agent.synced("cluster-b", kinds=[Kind.NODES, Kind.IPS, Kind.ENDPOINT_SLICES]).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)
    assert lb.slots(agent.maps, *WEB) == (at(A1), at(B1))
    agent.local(service()).settle()
    assert lb.where(agent.maps, *WEB) == at(B1)


def test_a_cluster_that_tells_slices_now_loses_what_it_told_before() -> None:
    """Also where a slice of one service has the name of another."""
    agent = Agent().expect("cluster-b").local(service(A1)).synced(OWN)
    agent.remote(offer("cluster-b", B1)).synced("cluster-b").settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    agent.dataplane.unconfirmed("cluster-b")
    told = {"shop/web": slice_of("cluster-b", "web", SliceEndpoint((B2,)), of="api")}
    agent.tell("cluster-b", Kind.ENDPOINT_SLICES, told)
    agent.synced("cluster-b", kinds=[Kind.ENDPOINT_SLICES]).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)


def test_a_dual_stack_service_uses_each_family_for_itself() -> None:
    both = (Frontend(VIP, 80, "http", "TCP"), Frontend("fd00::80", 80, "http", "TCP"))
    agent = mesh().local(service(A1, "fd01::1", frontends=both)).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    assert lb.where(agent.maps, "fd00::80", 80) == {"[fd01::1]:8080"}


def test_a_headless_service_has_no_entry() -> None:
    agent = mesh().local(service(A1, headless=True, frontends=())).settle()
    assert lb.where(agent.maps, *WEB) is None
    assert contents(agent.maps)["backends4"] == {}


def test_protocols_are_kept_apart() -> None:
    dns = (Frontend(VIP, 53, "dns", "UDP"), Frontend(VIP, 53, "dns-tcp", "TCP"))
    agent = mesh().local(service(frontends=dns))
    ports = {"dns": Port("UDP", 5353), "dns-tcp": Port("TCP", 5354)}
    agent.remote(offer("cluster-b", B1, ports=ports)).settle()
    assert lb.where(agent.maps, VIP, 53, "UDP") == {f"{B1}:5353"}
    assert lb.where(agent.maps, VIP, 53, "TCP") == {f"{B1}:5354"}


def test_session_affinity_is_in_the_master_and_in_a_match_for_each_used_backend() -> None:
    agent = mesh().local(service(A1, session_affinity_seconds=600)).settle()
    look = lb.Looker(agent.maps, *WEB)
    master = look.entry(0)
    assert master is not None
    assert (master.backend_or_timeout, master.flags) == (600, 0x10)
    assert len(contents(agent.maps)["affinity_match"]) == 2
    agent.local(service(A1, session_affinity_seconds=600, affinity="local")).settle()
    assert len(contents(agent.maps)["affinity_match"]) == 1
    agent.local(service(A1)).settle()
    assert contents(agent.maps)["affinity_match"] == {}


def test_weights_show_in_the_table() -> None:
    weights = {"service.clustermesh.io/weights": "local=80,cluster-b=20"}
    agent = mesh().local(service(A1, annotations=weights)).settle()
    shares = lb.shares(agent.maps, *WEB)
    assert abs(shares[f"{A1}:8080"] - 0.8) < 1 / 251


def test_a_bad_annotation_is_refused_and_the_last_good_policy_stays() -> None:
    good = {"service.clustermesh.io/weights": "local=0"}
    agent = mesh().local(service(A1, annotations=good)).settle()
    agent.local(service(A1, A2, annotations={"service.clustermesh.io/weights": "all"})).settle()
    assert lb.where(agent.maps, *WEB) == at(B1)
    (refusal,) = agent.dataplane.refusals
    assert refusal.what == "service shop/web"
    assert "'all', expected CLUSTER=NUMBER" in refusal.reason
    agent.local(service(A1)).settle()
    assert agent.dataplane.refusals == []


def test_two_services_with_one_address_take_turns_by_name() -> None:
    agent = mesh().local(service(A1), service(A2, name="api")).settle()
    assert lb.where(agent.maps, *WEB) == at(A2)
    (refusal,) = agent.dataplane.refusals
    assert refusal.reason == f"{VIP} port 80 belongs to shop/api"
    agent.tell(OWN, LocalKind.SERVICES, {"shop/api": None}).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)


def test_backends_of_a_silent_data_plane_are_used_last() -> None:
    agent = mesh()
    agent.dataplane.unreachable(frozenset({"cluster-b"}))
    assert lb.where(agent.settle().maps, *WEB) == at(A1)
    agent.local(service()).settle()
    assert lb.where(agent.maps, *WEB) == at(B1)
    agent.dataplane.unreachable(frozenset())
    agent.local(service(A1)).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)


# --- addresses -----------------------------------------------------------------------------------


def test_addresses_ranges_and_nodes_are_where_packets_look() -> None:
    maps = mesh().maps
    assert lb.identity(maps, B1) == (2 << 16 | 7, "192.168.0.2")
    assert lb.identity(maps, "10.2.0.77") == (2, "192.168.0.2")
    assert lb.identity(maps, "10.2.0.254") == (6, "192.168.0.2")
    assert lb.identity(maps, "192.168.0.2") == (6, "")
    assert lb.identity(maps, "10.9.9.9") is None


def test_what_is_on_this_node_needs_no_tunnel() -> None:
    agent = mesh().nodes(node(OWN, "a1", "192.168.0.1", "10.1.0.0/24", "10.1.0.254"))
    agent.pods(OWN, pod(A1, "192.168.0.1", 1 << 16 | 9)).settle()
    assert lb.identity(agent.maps, A1) == (1 << 16 | 9, "")
    assert lb.identity(agent.maps, "10.1.0.254") == (1, "")
    assert lb.identity(agent.maps, "10.1.0.77") is None
    assert agent.dataplane.overlay_addresses() == ("10.1.0.254",)


def test_routes_lead_to_remote_ranges_and_to_addresses_outside_of_them() -> None:
    agent = mesh().nodes(node(OWN, "a2", "192.168.0.3", "10.1.1.0/24")).settle()
    agent.pods("cluster-b", pod("172.20.0.5", "192.168.0.2", 2 << 16 | 8)).settle()
    assert {(r.cidr, r.node_ip, r.cluster) for r in agent.dataplane.routes().values()} == {
        ("10.2.0.0/24", "192.168.0.2", "cluster-b"),
        ("172.20.0.5/32", "192.168.0.2", "cluster-b"),
    }
    agent.nodes(node("cluster-b", "b2", "192.168.0.4", "172.20.0.0/16")).settle()
    assert {r.cidr for r in agent.dataplane.routes().values()} == {"10.2.0.0/24", "172.20.0.0/16"}
    agent.tell("cluster-b", Kind.NODES, {"b2": None}).settle()
    assert {r.cidr for r in agent.dataplane.routes().values()} == {"10.2.0.0/24", "172.20.0.5/32"}


def test_routes_to_single_addresses_are_bounded_and_the_rest_is_said() -> None:
    agent = mesh(host_routes=2)
    for labels in (8, 9):  # an address is counted once, however often its labels change
        entries = [pod(f"172.20.0.{n}", "192.168.0.2", 2 << 16 | labels) for n in range(1, 5)]
        range_ = {"172.30.0.0/24": pod("172.30.0.0", "192.168.0.2", 2 << 16 | labels)}
        agent.pods("cluster-b", *entries).tell("cluster-b", Kind.IPS, range_).settle()
        assert len(agent.dataplane.routes()) == 1 + 2
        (sentence,) = agent.dataplane.trouble()
        assert sentence.startswith("2 addresses outside of announced pod ranges have no route")
    agent.tell("cluster-b", Kind.IPS, dict.fromkeys(("172.20.0.1", "172.20.0.2"))).settle()
    assert {r.cidr for r in agent.dataplane.routes().values()} == {
        "10.2.0.0/24", "172.20.0.3/32", "172.20.0.4/32",
    }  # fmt: skip
    assert agent.dataplane.trouble() == []


def test_one_address_in_two_clusters_belongs_to_the_lower_id_whatever_came_first() -> None:
    for order in (("cluster-b", "cluster-c"), ("cluster-c", "cluster-b")):
        agent = mesh().expect("cluster-b", "cluster-c")
        for cluster in order:
            identity = 2 << 16 | 8 if cluster == "cluster-b" else 3 << 16 | 8
            agent.pods(cluster, pod("172.20.0.5", "192.168.0.2", identity)).settle()
        assert lb.identity(agent.maps, "172.20.0.5") == (2 << 16 | 8, "192.168.0.2")
        (refusal,) = agent.dataplane.refusals
        assert refusal.what == "address 172.20.0.5/32 of cluster-c"
        assert refusal.reason == "cluster-b has it, whose word goes before"
        agent.tell("cluster-b", Kind.IPS, {"172.20.0.5": None}).settle()
        assert lb.identity(agent.maps, "172.20.0.5") == (3 << 16 | 8, "192.168.0.2")


def test_the_later_of_two_clusters_with_one_range_is_left_out_until_that_ends() -> None:
    agent = mesh().expect("cluster-b", "cluster-c")
    agent.nodes(node("cluster-c", "c1", "192.168.0.9", "10.2.0.128/25"))
    agent.pods("cluster-c", pod("172.16.0.1", "192.168.0.9", 3 << 16 | 1))
    agent.remote(offer("cluster-c", C1)).synced("cluster-c").settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    assert lb.identity(agent.maps, "172.16.0.1") is None
    assert {r.cluster for r in agent.dataplane.routes().values()} == {"cluster-b"}
    (sentence,) = agent.dataplane.trouble()
    assert "cluster cluster-c: its range 10.2.0.128/25 overlaps 10.2.0.0/24" in sentence
    agent.nodes(node("cluster-c", "c1", "192.168.0.9", "10.3.0.0/24")).settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1, C1)
    assert lb.identity(agent.maps, "172.16.0.1") == (3 << 16 | 1, "192.168.0.9")
    assert agent.dataplane.trouble() == []


def test_a_range_over_our_own_nodes_is_left_out() -> None:
    agent = mesh().nodes(node(OWN, "a2", "192.168.0.3"))
    agent.nodes(node("cluster-b", "b2", "192.168.0.4", "192.168.0.0/24")).settle()
    (sentence,) = agent.dataplane.trouble()
    assert "cluster cluster-b: its range 192.168.0.0/24 overlaps 192.168.0.3/32" in sentence


def test_a_range_over_a_node_of_any_cluster_is_left_out_until_that_ends() -> None:
    agent = mesh().expect("cluster-b", "cluster-c").synced("cluster-c")
    agent.nodes(node("cluster-b", "b2", "172.16.0.7", "172.16.0.0/24")).settle()
    (sentence,) = agent.dataplane.trouble()
    assert "cluster cluster-b: its range 172.16.0.0/24 covers 172.16.0.7" in sentence
    assert lb.where(agent.maps, *WEB) == at(A1)
    agent.nodes(node("cluster-b", "b2", "192.168.0.4", "172.16.0.0/24")).settle()
    assert agent.dataplane.trouble() == []
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    agent.nodes(node("cluster-c", "c1", "172.16.0.7")).settle()
    (sentence,) = agent.dataplane.trouble()  # of the two the later one
    assert "cluster cluster-c: its node 172.16.0.7 lies in 172.16.0.0/24 of cluster" in sentence
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    agent.dataplane.drain("cluster-c")
    assert agent.settle().dataplane.trouble() == []


def test_a_restart_beside_a_cluster_that_is_left_out_writes_nothing() -> None:
    def told(agent: Agent) -> Agent:
        agent.expect("cluster-b", "cluster-c")
        agent.nodes(node("cluster-c", "c1", "192.168.0.9", "10.2.0.128/25", "10.2.0.200"))
        agent.pods("cluster-c", pod("172.16.0.1", "192.168.0.9", 3 << 16 | 1))
        agent.nodes(node(OWN, NODE, NODE_IP, "10.1.0.0/24", "10.1.0.254"))
        agent.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"))
        agent.local(service(A1)).remote(offer("cluster-b", B1), offer("cluster-c", C1))
        return agent.synced(OWN, "cluster-b", "cluster-c").settle()

    agent = told(Agent())
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    before = writes(agent.maps)
    told(Agent(agent.maps))
    assert writes(agent.maps) == before


def test_a_node_that_cannot_be_reached_is_said() -> None:
    agent = mesh().nodes(node("cluster-b", "b9", "fd00::9", "10.9.0.0/24")).settle()
    assert lb.identity(agent.maps, "10.9.0.1") is None
    (refusal,) = agent.dataplane.refusals
    assert (refusal.what, refusal.reason) == (
        "node cluster-b/b9",
        "IPAddresses: expected an IPv4 address",
    )


def test_an_address_the_maps_cannot_say_is_refused_alone() -> None:
    agent = mesh().pods(
        "cluster-b", pod(B2, "fd00::2", 2 << 16 | 8), pod(C1, "192.168.0.2", 131080)
    )
    assert lb.identity(agent.settle().maps, C1) == (131080, "192.168.0.2")
    (refusal,) = agent.dataplane.refusals
    assert refusal.what == f"address {B2} of cluster-b"
    assert "HostIP: fd00::2, expected an IPv4 address" in refusal.reason


# --- outages, restarts, removal ------------------------------------------------------------------


def test_an_outage_changes_nothing_and_the_next_full_list_sweeps() -> None:
    agent = mesh()
    before = contents(agent.maps)
    agent.dataplane.unsynced("cluster-b")
    agent.dataplane.unconfirmed("cluster-b")
    assert contents(agent.settle().maps) == before
    agent.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"))
    agent.pods("cluster-b", pod(B2, "192.168.0.2", 2 << 16 | 7)).remote(offer("cluster-b", B2))
    agent.synced("cluster-b").settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B2)
    assert lb.identity(agent.maps, B1) == (2, "192.168.0.2")
    assert lb.identity(agent.maps, B2) == (2 << 16 | 7, "192.168.0.2")


def test_hearing_everything_again_writes_nothing() -> None:
    agent = mesh()
    before = writes(agent.maps)
    everything(agent)
    agent.settle()
    assert writes(agent.maps) == before


def test_a_restart_with_right_maps_writes_nothing() -> None:
    agent = mesh()
    before = writes(agent.maps)
    again = mesh(agent.maps)
    assert writes(agent.maps) == before
    assert again.dataplane.map_writes == 0


def test_a_restart_in_any_order_of_facts_writes_nothing() -> None:
    agent = mesh()
    before = writes(agent.maps)
    again = Agent(agent.maps).settle()
    again.remote(offer("cluster-b", B1)).settle()
    again.local(service(A1)).settle().synced(OWN).settle()
    again.expect("cluster-b").settle()
    again.pods("cluster-b", pod(B1, "192.168.0.2", 2 << 16 | 7)).settle()
    again.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254")).settle()
    again.synced("cluster-b").settle()
    assert writes(agent.maps) == before


def test_after_a_restart_a_change_that_does_not_matter_writes_nothing() -> None:
    agent = mesh()
    before = writes(agent.maps)
    again = mesh(agent.maps)
    again.local(service(backend(A1, zone="eu-1"), backend(A2, state="starting"))).settle()
    assert writes(agent.maps) == before


def test_a_restart_beside_a_dead_peer_keeps_its_backends() -> None:
    agent = mesh()
    again = Agent(agent.maps).expect("cluster-b").local(service(A1)).synced(OWN).settle()
    again.dataplane.overdue("cluster-b")
    again.settle()
    assert lb.where(agent.maps, *WEB) == at(A1, B1)
    again.local(service(A2)).settle()
    assert lb.where(agent.maps, *WEB) == at(A2, B1)
    assert lb.identity(agent.maps, B1) == (2 << 16 | 7, "192.168.0.2")
    again.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24"))
    again.remote(offer("cluster-b", B2)).synced("cluster-b").settle()
    assert lb.where(agent.maps, *WEB) == at(A2, B2)
    assert lb.identity(agent.maps, B1) == (2, "192.168.0.2")


def test_weights_and_failover_know_the_name_of_a_cluster_that_only_the_maps_remember() -> None:
    agent = mesh()
    weighed = service(A1, annotations={"service.clustermesh.io/weights": "cluster-b=0"})
    for names, answering in (({}, at(A1, B1)), ({2: "cluster-b"}, at(A1))):
        again = Agent(agent.maps, names=names).expect("cluster-b").local(weighed).synced(OWN)
        again.dataplane.overdue("cluster-b")
        again.settle()
        assert lb.where(agent.maps, *WEB) == answering


def test_a_remembered_cluster_that_is_still_asked_keeps_its_backends() -> None:
    agent = mesh()
    again = Agent(agent.maps, names={2: "cluster-b"}).expect("cluster-b")
    again.local(service(A1, A2)).synced(OWN).settle()
    again.remote(offer("cluster-b", B1)).settle()
    assert B1 in str(lb.where(agent.maps, *WEB))


def test_a_remembered_name_that_comes_back_with_another_id_is_forgotten() -> None:
    agent = mesh()
    before = service(A1, annotations={"service.clustermesh.io/weights": "cluster-c=0"})
    again = Agent(agent.maps, names={2: "cluster-c"}).expect("cluster-b", "cluster-c")
    again.local(before).synced(OWN, "cluster-c").settle()  # cluster-c has the id 3
    assert lb.where(agent.maps, *WEB) == at(A1, B1)


def test_a_checkpoint_stands_in_for_a_dead_peer() -> None:
    agent = mesh()
    again = Agent(agent.maps).expect("cluster-b")
    again.remote(offer("cluster-b", B1))
    again.dataplane.unconfirmed("cluster-b")
    again.local(service(A2)).synced(OWN).settle()
    assert lb.where(agent.maps, *WEB) == at(A2, B1)
    again.synced("cluster-b", kinds=REMOTE_KINDS).settle()
    assert lb.where(agent.maps, *WEB) == at(A2)


def test_services_that_went_while_the_agent_was_down_are_removed() -> None:
    agent = mesh()
    Agent(agent.maps).expect("cluster-b").synced(OWN).settle()
    assert lb.where(agent.maps, *WEB) is None
    assert contents(agent.maps)["backends4"] == {}


def test_what_is_left_of_clusters_that_are_not_configured_goes() -> None:
    agent = mesh()
    Agent(agent.maps).expect().local(service(A1)).synced(OWN).settle()
    assert lb.where(agent.maps, *WEB) == at(A1)
    assert lb.identity(agent.maps, B1) is None
    assert contents(agent.maps)["nodes"] == {}
    assert contents(agent.maps)["tunnel"] == {}


def test_nothing_of_a_configured_cluster_is_pruned_before_its_list() -> None:
    agent = mesh()
    Agent(agent.maps).expect("cluster-b", "cluster-c").synced(OWN, "cluster-c").settle()
    assert lb.identity(agent.maps, B1) == (2 << 16 | 7, "192.168.0.2")
    assert lb.identity(agent.maps, "10.2.0.77") == (2, "192.168.0.2")


def test_removing_a_cluster_takes_everything_of_it_without_asking_it() -> None:
    agent = mesh()
    agent.dataplane.drain("cluster-b")
    agent.expect().settle()
    assert lb.where(agent.maps, *WEB) == at(A1)
    now = contents(agent.maps)
    assert [len(now[name]) for name in ("ipcache", "tunnel", "nodes", "backends4")] == [0, 0, 0, 1]
    assert agent.dataplane.routes() == {}


def test_removing_a_cluster_after_a_restart_beside_its_dead_etcd() -> None:
    agent = mesh()
    again = Agent(agent.maps).expect("cluster-b").local(service(A1)).synced(OWN)
    again.dataplane.overdue("cluster-b")
    again.settle().expect().settle()
    assert lb.where(agent.maps, *WEB) == at(A1)
    assert contents(agent.maps)["ipcache"] == {}


def test_a_new_id_is_a_new_cluster() -> None:
    agent = mesh()
    agent.dataplane.drain("cluster-b")
    agent.dataplane.identify("cluster-b", 9)
    moved = offer("cluster-b", B2)
    agent.dataplane.apply("cluster-b", Kind.SERVICES, [("shop/web", moved)])
    for kind in REMOTE_KINDS:
        agent.dataplane.synced("cluster-b", kind)
    assert lb.where(agent.settle().maps, *WEB) == at(A1, B2)


# --- what it says --------------------------------------------------------------------------------


def test_every_backend_has_a_reason() -> None:
    agent = mesh().local(service(A1, backend(A2, state="starting"), affinity="local")).settle()
    (status,) = agent.dataplane.services()
    assert status.frontend == "10.96.0.1:80/TCP"
    assert status.id == 1
    assert {b.address: b.why for b in status.backends} == {
        f"{A1}:8080": "",
        f"{A2}:8080": "not ready",
        f"{B1}:8080": "affinity local: there are local backends",
    }


def test_backends_that_do_not_match_are_explained_too() -> None:
    agent = mesh().remote(offer("cluster-b", B1, ports={"web": Port("TCP", 8080)})).settle()
    (status,) = agent.dataplane.services()
    assert {b.why for b in status.backends if b.cluster == "cluster-b"} == {
        "its ports are named web, the frontend's http"
    }


def test_counts_are_what_was_told_and_what_is_in_the_maps() -> None:
    agent = mesh()
    told = [agent.dataplane.count("cluster-b", kind) for kind in REMOTE_KINDS]
    assert told == [1, 0, 1, 1]
    now = contents(agent.maps)
    for name, target in (("ipcache", "cilium_ipcache"), ("services4", "cilium_lb4_services_v2")):
        assert agent.dataplane.counts()[target].entries == len(now[name])


def test_what_the_network_and_the_probes_need_of_nodes() -> None:
    agent = Agent()
    agent.nodes(
        node(OWN, "a2", "192.168.0.2", "10.1.2.0/24", "10.1.2.1"),
        node("cluster-b", "b1", "192.168.0.3", "10.2.1.0/24", "10.2.1.1"),
        node("cluster-b", "b2", "192.168.0.4", "10.2.2.0/24"),
        node("cluster-c", "c1", "192.168.0.5", "10.3.1.0/24"),
    ).settle()
    assert list(agent.dataplane.own_ranges) == ["10.1.2.0/24"]
    assert list(agent.dataplane.take_overlays()) == [("cluster-b", "b1", "10.2.1.1")]
    agent.nodes(node("cluster-b", "b2", "192.168.0.4", "10.2.2.0/24", "10.2.2.1"))
    agent.tell("cluster-b", Kind.NODES, {"b1": None}).settle()
    assert set(agent.dataplane.take_overlays()) == {
        ("cluster-b", "b1", ""), ("cluster-b", "b2", "10.2.2.1"),
    }  # fmt: skip
    agent.dataplane.drain("cluster-b")
    assert list(agent.dataplane.take_overlays()) == [("cluster-b", "b2", "")]


def test_nobody_waits_for_the_way_to_a_cluster_that_is_still_being_told() -> None:
    agent = Agent().expect("cluster-b")
    agent.nodes(node("cluster-b", "b1", "192.168.0.3", "10.2.1.0/24"))
    assert agent.dataplane.unused("cluster-b")
    agent.synced("cluster-b", kinds=[Kind.NODES])
    assert agent.dataplane.unused("cluster-b")
    agent.synced("cluster-b", kinds=[Kind.IPS])
    assert not agent.dataplane.unused("cluster-b")
