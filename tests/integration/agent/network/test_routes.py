"""A routing table over a socket of our own, next to what iproute2 says of it."""

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from agent.network.routes import Route, Table
from agent.network.routing import Routing
from agent.network.wanted import Facts, Family
from tests.support.bpf import inside, netns

pytestmark = pytest.mark.root

NUMBER = 8472


@pytest.fixture
def node() -> Iterator[str]:
    with netns(f"cm-test-routes-{os.getpid()}") as name:
        ip(name, "link", "set", "lo", "up")
        ip(name, "link", "add", "d0", "type", "veth", "peer", "name", "far0")
        ip(name, "link", "set", "far0", "up")
        ip(name, "link", "set", "d0", "up", "addrgenmode", "none")
        ip(name, "addr", "add", "192.0.2.1/24", "dev", "d0")
        ip(name, "addr", "add", "2001:db8::1/64", "dev", "d0", "nodad")
        yield name


def ip(node: str, *words: str) -> str:
    done = subprocess.run(["ip", "-n", node, *words], check=True, capture_output=True, text=True)
    return done.stdout


def on(node: str, work: Callable[[Table, int], object]) -> object:
    link = int(ip(node, "-o", "link", "show", "d0").partition(":")[0])

    def with_table() -> object:
        with Table(NUMBER) as table:
            return work(table, link)

    return inside(with_table, namespace=node)


def test_what_is_written_is_what_iproute2_shows_and_what_is_read(node: str) -> None:
    def work(table: Table, link: int) -> None:
        routes4 = [
            Route("10.2.0.0/24", 0, link, "192.0.2.1"),
            Route("10.3.0.0/24", 7, link, "", "192.0.2.9"),
        ]
        routes6 = [Route("fd00:2::/64", 1024, link, "2001:db8::1")]
        assert table.put(4, routes4) == table.put(6, routes6) == {}
        assert table.writes == 3
        assert sorted(table.read(4), key=lambda it: it.prefix) == routes4
        assert table.read(6) == routes6

    on(node, work)
    assert [line.rstrip() for line in ip(node, "route", "show", "table", "8472").splitlines()] == [
        "10.2.0.0/24 dev d0 proto static scope link src 192.0.2.1",
        "10.3.0.0/24 via 192.0.2.9 dev d0 proto static metric 7",
    ]
    assert "fd00:2::/64 dev d0 proto static src 2001:db8::1 metric 1024" in ip(
        node, "-6", "route", "show", "table", "8472"
    )


def test_other_tables_and_an_empty_one_are_told_apart(node: str) -> None:
    ip(node, "route", "add", "10.9.0.0/16", "dev", "d0", "table", "8473")
    assert on(node, lambda table, _: (table.read(4), table.read(6))) == ([], [])


def test_what_is_refused_is_named_and_keeps_nothing_back(node: str) -> None:
    def work(table: Table, link: int) -> None:
        routes = [Route(f"10.{n >> 8}.{n & 255}.0/24", 0, link) for n in range(1000)]
        routes[300] = bad = Route("10.200.0.0/24", 0, 4242)
        assert table.put(4, routes) == {bad: "No such device"}
        assert len(table.read(4)) == 999
        assert table.drop(4, routes) == {bad: "No such process"}
        assert table.read(4) == []

    on(node, work)


def test_as_many_as_there_are_can_be_refused_and_asked_for(node: str) -> None:
    def work(table: Table, link: int) -> None:
        bad = [Route(f"10.{n >> 8}.{n & 255}.0/24", 0, 4242) for n in range(500)]
        assert len(table.put(4, bad)) == 500
        addresses = [f"192.0.2.{n}" for n in range(2, 250)]
        assert set(table.links_to(4, addresses).values()) == {link}

    on(node, work)


def test_a_route_of_another_make_is_replaced_and_removed(node: str) -> None:
    ip(node, "route", "add", "blackhole", "10.2.0.0/24", "table", "8472")

    def work(table: Table, link: int) -> None:
        (found,) = table.read(4)
        assert (found.prefix, found.link) == ("10.2.0.0/24", 0)
        assert table.put(4, [wanted := Route("10.2.0.0/24", 0, link)]) == {}
        assert table.read(4) == [wanted]
        assert table.drop(4, [wanted]) == {}

    on(node, work)
    assert ip(node, "route", "show", "table", "8472") == ""


def test_the_link_of_an_address_is_the_one_that_it_is_on(node: str) -> None:
    ip(node, "route", "add", "default", "via", "192.0.2.254")
    ip(node, "route", "add", "unreachable", "198.51.100.0/24")

    def work(table: Table, link: int) -> None:
        asked = ["192.0.2.7", "198.51.100.9", "203.0.113.1", "192.0.2.1"]
        assert table.links_to(4, asked) == {**dict.fromkeys(asked, 0), "192.0.2.7": link}

    on(node, work)


def test_a_table_that_nobody_changed_has_the_same_fingerprint(node: str) -> None:
    def work(table: Table, link: int) -> None:
        assert table.fingerprint(4) == table.fingerprint(4), "there is no table yet"
        routes = [Route(f"10.{n >> 8}.{n & 255}.0/24", 0, link) for n in range(1000)]
        table.put(4, routes)
        table.put(6, [Route("fd00:2::/64", 1024, link, "2001:db8::1")])
        prints = table.fingerprint(4), table.fingerprint(6)
        assert len(table.read(4)) == 1000
        assert (table.fingerprint(4), table.fingerprint(6)) == prints
        ip(node, "route", "change", "10.3.7.0/24", "dev", "lo", "table", "8472")
        assert table.fingerprint(4) != prints[0]
        assert table.fingerprint(6) == prints[1]
        table.put(4, routes)
        assert table.fingerprint(4) == prints[0]

    on(node, work)


class Counting(Table):
    """Says how often it was read."""

    reads = 0

    def read(self, which: Family) -> list[Route]:
        self.reads += 1
        return super().read(which)


def test_a_table_is_read_again_only_when_it_is_another(node: str) -> None:
    facts = Facts(destinations=frozenset({"10.2.0.0/24", "10.3.0.0/24", "fd00:2::/64"}))
    link = int(ip(node, "-o", "link", "show", "d0").partition(":")[0])

    def ensure(routing: Routing) -> list[str]:
        routing.doubt()
        return routing.ensure(facts, link, disposable=None)

    def work() -> None:
        with Counting(NUMBER) as table:
            routing = Routing(table)
            assert [ensure(routing) for _ in range(2)] == [[], []]
            reads, writes = table.reads, table.writes
            assert [ensure(routing) for _ in range(3)] == [[], [], []]
            assert (table.reads, table.writes) == (reads, writes)
            ip(node, "route", "del", "10.2.0.0/24", "table", "8472")
            ensure(routing)
            assert (table.reads, table.writes) == (reads + 1, writes + 1)
            ip(node, "-6", "route", "add", "fd00:9::/64", "dev", "d0", "table", "8472")
            ensure(routing)
            assert len(table.read(6)) == 1

    inside(work, namespace=node)
