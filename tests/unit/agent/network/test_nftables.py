"""What changes in the nftables table when facts do."""

from copy import deepcopy

from agent.network.nftables import Object, changes, keep_unheard, table
from agent.network.wanted import Facts, Place, collapsed

PLACE = Place(node_ip="192.0.2.1")
FACTS = Facts(sources=frozenset({"10.1.0.0/24"}), peers=frozenset({"192.0.2.2"}))


def test_equal_tables_need_nothing() -> None:
    wanted = table(PLACE, FACTS, device_port=8472)
    assert changes(deepcopy(wanted), wanted) == []


def test_an_absent_table_is_made_whole() -> None:
    wanted = table(PLACE, FACTS, device_port=8472)
    commands = changes(None, wanted)
    assert [next(iter(it)) for it in commands] == ["add", "delete", *["add"] * (1 + len(wanted))]


def test_other_sources_change_only_elements() -> None:
    more = Facts(sources=frozenset({"10.1.0.0/24", "10.9.0.0/24"}), peers=FACTS.peers)
    before, after = (table(PLACE, facts, device_port=8472) for facts in (FACTS, more))
    (command,) = changes(before, after)
    assert command["add"]["element"]["elem"] == [{"prefix": {"addr": "10.9.0.0", "len": 24}}]
    (command,) = changes(after, before)
    assert command["delete"]["element"]["name"] == "sources4"


def test_a_rule_that_differs_makes_the_table_anew() -> None:
    wanted = table(PLACE, FACTS, device_port=8472)
    damaged = [it for it in deepcopy(wanted) if "rule" not in it]
    assert len(changes(damaged, wanted)) > 2


def test_the_port_is_rewritten_only_where_it_differs() -> None:
    same = table(PLACE, FACTS, device_port=8472)
    other = table(PLACE, FACTS, device_port=8473)
    assert not any("mangle" in str(it) for it in same)
    assert sum("mangle" in str(it) for it in other) == 4


def test_peers_of_clusters_not_heard_yet_stay() -> None:
    present = table(PLACE, FACTS, device_port=8473)
    fewer = Facts(sources=FACTS.sources, complete=False)
    assert keep_unheard(present, fewer).peers == FACTS.peers


DIRECT = Facts(sources=FACTS.sources, direct=frozenset({"10.2.0.0/24", "10.2.9.7/32"}))


def test_pods_reached_without_the_tunnel_see_the_source_too() -> None:
    without, direct = (table(PLACE, facts, device_port=8472) for facts in (FACTS, DIRECT))
    assert not any("direct4" in str(it) for it in without)
    (rule,) = (it for it in direct if "rule" in it and "@direct4" in str(it))
    assert rule["rule"]["expr"][-1]["snat"]["family"] == "ip"


def test_prefixes_of_clusters_not_heard_yet_stay_direct() -> None:
    present = table(PLACE, DIRECT, device_port=8472)
    fewer = Facts(sources=FACTS.sources, complete=False)
    assert keep_unheard(present, fewer).direct == DIRECT.direct
    assert changes(present, table(PLACE, keep_unheard(present, fewer), device_port=8472)) == []


def test_overlapping_prefixes_are_folded() -> None:
    assert collapsed({"10.1.0.0/16", "10.1.2.0/24", "fd00::/64"}, 4) == ["10.1.0.0/16"]
    assert collapsed({"10.1.0.0/25", "10.1.0.128/25"}, 4) == ["10.1.0.0/24"]
    assert collapsed({"10.1.0.0/16", "fd00::/64"}, 6) == ["fd00::/64"]


def test_packets_of_the_balancer_get_an_address_that_the_mesh_knows() -> None:
    place = Place(node_ip="192.0.2.1", balances=True)
    facts = Facts(overlay=("10.1.0.1",), sources=FACTS.sources)
    rules = [it["rule"]["expr"] for it in table(place, facts, device_port=8472) if "rule" in it]
    *ours, last = [it for it in rules if it[0]["match"]["right"] == 0x1000]
    assert last[-1]["mangle"]["value"]["&"][1] == 0xFFFFEFFF, "nobody sees the mark afterwards"
    assert ours == rules[: len(ours)], "they decide before anybody else"
    assert [it[-1] for it in ours] == [
        {"snat": {"family": "ip", "addr": "10.1.0.1", "port": {"range": [32768, 65535]}}},
        {"masquerade": {"port": {"range": [32768, 65535]}}},
    ]
    assert not any(it[0]["match"]["right"] == 0x1000 for it in map(_expr, _rules(PLACE)))


def _rules(place: Place) -> list[Object]:
    return [it for it in table(place, FACTS, device_port=8472) if "rule" in it]


def _expr(rule: Object) -> list[Object]:
    found: list[Object] = rule["rule"]["expr"]
    return found
