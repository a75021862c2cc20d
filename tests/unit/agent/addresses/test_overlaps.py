"""Clusters whose ranges collide: who is left out, and what is said about it."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from agent.addresses.overlaps import Claim, overlaps

OWN = Claim("cluster-a", 5, ["10.1.0.0/16", "192.168.0.1/32"])


def held(*remotes: tuple[str, int, list[str]]) -> set[str]:
    return set(overlaps(OWN, [Claim(*remote) for remote in remotes]))


def test_ranges_apart_are_fine() -> None:
    assert held(("b", 2, ["10.2.0.0/16"]), ("c", 3, ["10.3.0.0/16", "fd00::/64"])) == set()


def test_the_own_cluster_goes_first_whatever_its_id() -> None:
    assert held(("b", 2, ["10.1.200.0/24"])) == {"b"}


def test_of_two_remotes_the_higher_id_is_left_out() -> None:
    assert held(("b", 2, ["10.2.0.0/16"]), ("c", 3, ["10.2.3.0/24"])) == {"c"}
    assert held(("b", 9, ["10.2.0.0/16"]), ("c", 3, ["10.2.3.0/24"])) == {"b"}


def test_one_that_is_left_out_leaves_nobody_out() -> None:
    remotes = ("b", 2, ["10.1.0.0/24", "10.2.0.0/16"]), ("c", 3, ["10.2.3.0/24"])
    assert held(*remotes) == {"b"}


def test_ranges_of_one_cluster_may_lie_in_each_other() -> None:
    assert held(("b", 2, ["10.2.0.0/16", "10.2.3.0/24", "10.2.0.0/16"])) == set()


def test_families_are_apart() -> None:
    assert held(("b", 2, ["::a01:0/112"])) == set()


def test_the_reason_names_both_ranges() -> None:
    reasons = overlaps(OWN, [Claim("b", 2, ["192.168.0.0/24"])])
    assert reasons["b"] == (
        "its range 192.168.0.0/24 overlaps 192.168.0.1/32 of cluster cluster-a: all of b is left "
        "out until one of the two changes"
    )


def test_a_range_over_the_end_of_a_tunnel_is_left_out() -> None:
    """What is sent to that node, its tunnel included, would be routed into the tunnel."""
    c = Claim("c", 3, ["10.3.0.0/24", "172.16.0.0/24"])
    for b in (Claim("b", 2, [], ["172.16.9.9", "172.16.0.2"]), Claim("b", 2, [], ["172.16.9.9"])):
        expected = {"c"} if "172.16.0.2" in b.hosts else set()
        assert set(overlaps(OWN, [b, c])) == expected
    native = Claim("c", 3, c.cidrs, native=True)
    assert overlaps(OWN, [Claim("b", 2, [], ["172.16.0.2"]), native]) == {}  # sent as it is
    own_end = Claim("c", 3, c.cidrs, ["172.16.0.2"])
    assert overlaps(OWN, [own_end]) == {
        "c": "its range 172.16.0.0/24 covers 172.16.0.2, a node of c: all of c is left out until "
        "one of the two changes"
    }


def test_nobody_puts_out_a_cluster_before_it_by_naming_a_node() -> None:
    b = Claim("b", 2, ["172.16.0.0/24"], ["192.168.0.2"])
    c = Claim("c", 3, ["10.3.0.0/24"], ["172.16.0.7"])
    assert overlaps(OWN, [b, c]) == {
        "c": "its node 172.16.0.7 lies in 172.16.0.0/24 of cluster b: all of c is left out until "
        "one of the two changes"
    }


networks = st.builds(
    lambda base, ones: str(ipaddress.ip_network(f"10.{base}.0.0/{ones}", strict=False)),
    st.integers(0, 7),
    st.integers(12, 18),
)


@given(st.dictionaries(st.integers(1, 6), st.lists(networks, max_size=4), max_size=5))
def test_it_is_the_plain_rule(ranges: dict[int, list[str]]) -> None:
    """Compared with every pair, checked one by one by the standard library."""
    accepted = [(OWN.cluster, cidr) for cidr in OWN.cidrs]
    expected = set()
    for cluster_id in sorted(ranges):
        nets = [ipaddress.ip_network(cidr) for cidr in ranges[cluster_id]]
        others = [ipaddress.ip_network(cidr) for _, cidr in accepted]
        if any(net.overlaps(other) for net in nets for other in others):
            expected.add(f"c{cluster_id}")
        else:
            accepted += [(f"c{cluster_id}", cidr) for cidr in ranges[cluster_id]]
    claims = [Claim(f"c{n}", n, cidrs) for n, cidrs in reversed(ranges.items())]
    assert set(overlaps(OWN, claims)) == expected
