"""The node's network in namespaces of its own, read back with foreign tools."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from agent.network import network
from agent.network.demand import Demand
from agent.network.network import Network, reconcile
from agent.network.wanted import Facts, Place
from tests.support.bpf import inside, netns
from tests.support.network import ask

pytestmark = pytest.mark.root

PLACE = Place(node_ip="192.0.2.1")
FACTS = Facts(
    destinations=frozenset({"10.2.1.0/24", "10.2.2.7/32", "fd00:2::/64"}),
    overlay=("10.1.0.1", "fd00:1::1"),
    sources=frozenset({"10.1.0.0/24", "10.1.1.0/24"}),
    peers=frozenset({"192.0.2.2"}),
)


def attach_nothing(_: int) -> bool:
    return False


@pytest.fixture
def node() -> Iterator[str]:
    name = f"cm-test-net-{os.getpid()}"
    with netns(name) as made:
        ip(made, "link", "add", "eth0", "mtu", "1500", "type", "veth", "peer", "name", "far0")
        ip(made, "link", "set", "far0", "up")
        ip(made, "link", "set", "eth0", "up", "addrgenmode", "none")
        ip(made, "addr", "add", "192.0.2.1/24", "dev", "eth0")
        settled(made, "eth0", "far0")
        yield made


def settled(node: str, *links: str) -> None:
    """The kernel says a moment later what state a link is in; pictures must not differ in that."""
    deadline = time.monotonic() + 30
    while not all("state UP" in ip(node, "link", "show", link) for link in links):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ip(node: str, *words: str) -> str:
    done = subprocess.run(["ip", "-n", node, *words], check=True, capture_output=True, text=True)
    return done.stdout


def nft(node: str) -> str:
    command = ["nsenter", f"--net=/run/netns/{node}", "nft", "list", "ruleset"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def everything(node: str) -> tuple[str, ...]:
    """All that a node's network consists of, as iproute2 and nft tell it."""
    return (
        ip(node, "-d", "link"),
        ip(node, "addr"),
        ip(node, "rule"),
        ip(node, "-6", "rule"),
        ip(node, "route", "show", "table", "all"),
        ip(node, "-6", "route", "show", "table", "all"),
        nft(node),
    )


def round_of(node: str, facts: Facts | None = FACTS, place: Place = PLACE) -> network.Round:
    return inside(lambda: reconcile(place, facts, attach_nothing), namespace=node)


def test_one_round_makes_all_of_it(node: str) -> None:
    done = round_of(node)
    link = ip(node, "-d", "link", "show", "cm_vxlan")
    assert "mtu 1450" in link
    assert "NOARP" in link
    assert "external" in link
    assert "dstport 8472" in link
    assert "addrgenmode none" in link
    routes = ip(node, "route", "show", "table", "8472").splitlines()
    assert [line.split(" proto")[0] for line in routes] == [
        "10.2.1.0/24 dev cm_vxlan",
        "10.2.2.7 dev cm_vxlan",
    ]
    assert all("src 10.1.0.1" in line for line in routes)
    assert "fd00:2::/64 dev cm_vxlan" in ip(node, "-6", "route", "show", "table", "8472")
    assert "472:\tfrom all lookup 8472" in ip(node, "rule")
    assert "472:\tfrom all lookup 8472" in ip(node, "-6", "rule")
    assert 'oifname "cm_vxlan" ip saddr @sources4 snat ip to ip saddr' in nft(node)
    assert [it for it in done.troubles if "forwards no" not in it] == []


def test_the_second_round_writes_nothing(node: str) -> None:
    round_of(node)
    before = everything(node)
    assert round_of(node).writes == 0
    assert everything(node) == before


def test_removal_leaves_the_node_as_it_was(node: str) -> None:
    before = everything(node)
    round_of(node)
    assert len(inside(lambda: network.remove(PLACE), namespace=node)) == 3
    assert everything(node) == before
    assert inside(lambda: network.remove(PLACE), namespace=node) == []


@pytest.mark.parametrize(
    "damage",
    [
        ["ip", "link", "del", "cm_vxlan"],
        ["ip", "link", "set", "cm_vxlan", "down"],
        ["ip", "link", "set", "cm_vxlan", "mtu", "1300"],
        ["ip", "link", "set", "cm_vxlan", "arp", "on"],
        ["ip", "addr", "flush", "dev", "cm_vxlan"],
        ["ip", "route", "flush", "table", "8472"],
        ["ip", "route", "replace", "10.2.1.0/24", "dev", "eth0", "table", "8472"],
        ["ip", "route", "add", "10.99.0.0/16", "dev", "eth0", "table", "8472"],
        ["ip", "route", "add", "10.2.1.0/24", "dev", "eth0", "table", "8472", "metric", "7"],
        ["ip", "rule", "del", "table", "8472"],
        ["ip", "rule", "add", "table", "8472", "priority", "99"],
        ["nft", "delete", "table", "inet", "clustermesh"],
        ["nft", "flush", "chain", "inet", "clustermesh", "keep-source"],
        ["nft", "add", "element", "inet", "clustermesh", "sources4", "{ 10.77.0.0/16 }"],
    ],
    ids=" ".join,
)
def test_whatever_is_damaged_is_mended(node: str, damage: list[str]) -> None:
    round_of(node)
    before = _stable(node)
    subprocess.run(["nsenter", f"--net=/run/netns/{node}", *damage], check=True)
    assert round_of(node).writes > 0
    assert _stable(node) == before


def _stable(node: str) -> list[str]:
    """Everything but what a device made anew has of its own: number and hardware address."""
    lines = "\n".join(everything(node)).splitlines()
    kept = (line.partition(": ")[2] if line[:1].isdigit() else line for line in lines)
    return sorted(line.strip() for line in kept if "link/ether" not in line)


def test_facts_that_go_take_their_routes_along(node: str) -> None:
    round_of(node)
    fewer = Facts(destinations=frozenset({"10.2.1.0/24"}), overlay=("10.1.0.1",))
    round_of(node, fewer)
    assert ip(node, "route", "show", "table", "8472").count("cm_vxlan") == 1
    assert ip(node, "-6", "route", "show", "table", "8472") == ""
    assert "8472" not in ip(node, "-6", "rule")
    assert "fd00:1::1" not in ip(node, "addr", "show", "cm_vxlan")


def test_routes_of_clusters_not_heard_yet_stay(node: str) -> None:
    round_of(node)
    partial = Facts(destinations=frozenset({"10.2.1.0/24"}), overlay=("10.1.0.1",), complete=False)
    round_of(node, partial)
    assert "10.2.2.7" in ip(node, "route", "show", "table", "8472")
    disposable = frozenset({"10.2.2.7/32"})
    work = lambda: reconcile(PLACE, partial, attach_nothing, disposable=disposable)  # noqa: E731
    inside(work, namespace=node)
    assert "10.2.2.7" not in ip(node, "route", "show", "table", "8472")
    assert "fd00:2::/64" in ip(node, "-6", "route", "show", "table", "8472")


NATIVE = msgspec.structs.replace(
    FACTS,
    gateways=frozenset({("10.2.1.0/24", "192.0.2.7"), ("10.2.2.7/32", "198.51.100.9")}),
    direct=frozenset({"10.2.1.0/24", "10.2.2.7/32"}),
)


def off_link(done: network.Round) -> list[str]:
    return [it for it in done.troubles if "not on a link of this node" in it]


def test_pods_on_a_node_of_our_link_are_reached_through_it(node: str) -> None:
    round_of(node)
    (trouble,) = off_link(round_of(node, NATIVE))
    assert trouble.startswith("node 198.51.100.9 is not")
    routes = ip(node, "route", "show", "table", "8472").splitlines()
    assert [line.split(" proto")[0] for line in routes] == [
        "10.2.1.0/24 via 192.0.2.7 dev eth0",
        "10.2.2.7 dev cm_vxlan",
    ]
    assert all("src 10.1.0.1" in line for line in routes)
    assert "fd00:2::/64 dev cm_vxlan" in ip(node, "-6", "route", "show", "table", "8472")
    assert round_of(node, NATIVE).writes == 0


def test_a_link_that_goes_down_leaves_the_tunnel_and_back(node: str) -> None:
    facts = msgspec.structs.replace(NATIVE, gateways=frozenset({("10.2.1.0/24", "192.0.2.7")}))
    assert off_link(round_of(node, facts)) == []
    ip(node, "route", "add", "default", "via", "192.0.2.254")
    ip(node, "addr", "del", "192.0.2.1/24", "dev", "eth0")
    ip(node, "addr", "add", "192.0.2.1/32", "dev", "eth0")
    assert len(off_link(round_of(node, facts))) == 1
    assert "10.2.1.0/24 dev cm_vxlan" in ip(node, "route", "show", "table", "8472")
    ip(node, "addr", "add", "192.0.2.2/24", "dev", "eth0")
    assert off_link(round_of(node, facts)) == []
    assert "10.2.1.0/24 via 192.0.2.7" in ip(node, "route", "show", "table", "8472")
    round_of(node)
    assert "10.2.1.0/24 dev cm_vxlan" in ip(node, "route", "show", "table", "8472")


def test_without_facts_only_the_device_is_kept(node: str) -> None:
    round_of(node)
    before = everything(node)
    assert round_of(node, None).writes == 0
    assert everything(node) == before


def test_an_overlay_address_of_another_device_stays_there(node: str) -> None:
    ip(node, "addr", "add", "10.1.0.1/32", "dev", "lo")
    round_of(node)
    assert "10.1.0.1" not in ip(node, "addr", "show", "cm_vxlan")
    assert "src 10.1.0.1" in ip(node, "route", "show", "table", "8472")


def flannel(node: str) -> None:
    how = ["id", "1", "local", "192.0.2.1", "dstport", "8472", "nolearning"]
    ip(node, "link", "add", "flannel.1", "type", "vxlan", *how)


def test_a_port_that_another_device_has_is_left_to_it(node: str) -> None:
    flannel(node)
    ip(node, "link", "set", "flannel.1", "up")
    round_of(node)
    assert "dstport 8473" in ip(node, "-d", "link", "show", "cm_vxlan")
    rules = nft(node)
    assert "ip saddr @peers4 udp dport 8472 notrack udp dport set 8473" in rules
    assert "ip daddr @peers4 udp dport 8473 notrack udp dport set 8472" in rules
    assert round_of(node).writes == 0


def test_a_device_that_comes_later_gets_its_port(node: str) -> None:
    round_of(node)
    flannel(node)
    refused = subprocess.run(["ip", "-n", node, "link", "set", "flannel.1", "up"], check=False)
    assert refused.returncode != 0
    round_of(node)
    ip(node, "link", "set", "flannel.1", "up")
    assert round_of(node).writes == 0
    assert "dstport 8473" in ip(node, "-d", "link", "show", "cm_vxlan")


def test_a_chain_that_drops_what_is_forwarded_is_named_with_the_way_out(node: str) -> None:
    def run(*words: str) -> None:
        subprocess.run(["nsenter", f"--net=/run/netns/{node}", "nft", *words], check=True)

    run("add", "table", "ip", "filter")
    run("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
    sentence = next(it for it in round_of(node).troubles if "drops what is forwarded" in it)
    assert "iptables -t filter -I FORWARD -i cm_vxlan -j ACCEPT" in sentence
    run("add", "rule", "ip", "filter", "FORWARD", "iifname", "cm_vxlan", "accept")
    assert not any("drops what is forwarded" in it for it in round_of(node).troubles)


def test_an_address_that_the_node_does_not_have_is_refused(node: str) -> None:
    done = round_of(node, place=Place(node_ip="203.0.113.9"))
    assert done.link is None
    assert "no device of this node has the address 203.0.113.9" in done.troubles[0]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # what is waited for happens in the kernel
        await asyncio.sleep(0.02)


def live(node: str, story: Callable[[Network, Demand], object], interval: float = 30.0) -> None:
    """Run a story beside a living owner of the network."""

    async def both() -> None:
        demand = Demand()
        owner = Network(
            PLACE, demand, attach=attach_nothing, report=lambda _: None, interval=interval,
            settle=0.01,
        )  # fmt: skip
        ask(demand, FACTS)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(owner.run())
            await owner.came.wait()
            await story(owner, demand)
            task.cancel()

    inside(lambda: asyncio.run(both()), namespace=node)


@pytest.mark.parametrize(
    "damage",
    [
        ["link", "del", "cm_vxlan"],
        ["link", "set", "cm_vxlan", "down"],
        ["route", "del", "10.2.1.0/24", "table", "8472"],
        ["route", "replace", "10.2.1.0/24", "dev", "eth0", "table", "8472"],
        ["route", "add", "10.99.0.0/16", "dev", "eth0", "table", "8472"],
        ["-6", "route", "flush", "table", "8472"],
        ["addr", "del", "10.1.0.1/32", "dev", "cm_vxlan"],
        ["rule", "del", "table", "8472"],
    ],
    ids=" ".join,
)
def test_a_living_owner_notices_and_mends(node: str, damage: list[str]) -> None:
    async def story(owner: Network, demand: Demand) -> None:
        await until(lambda: "inet clustermesh" in nft(node))
        await until(lambda: not demand.lacking)
        before = _stable(node)
        ip(node, *damage)
        await until(lambda: _stable(node) == before)

    live(node, story)


def test_what_a_living_owner_writes_itself_is_no_news(node: str) -> None:
    async def story(owner: Network, demand: Demand) -> None:
        await until(lambda: not demand.lacking)
        rounds = 0

        def count() -> None:
            nonlocal rounds
            rounds += 1

        await asyncio.sleep(0.3)
        owner.on_round = count
        more = frozenset(f"10.3.{n}.0/24" for n in range(200))
        for cidr in more:
            demand.lead(cidr, "192.0.2.2")
        owner.asked()
        await until(lambda: not demand.lacking)
        assert ip(node, "route", "show", "table", "8472").count("10.3.") == 200
        await asyncio.sleep(0.3)
        assert rounds == 1
        for cidr in more:
            demand.leave(cidr)
        owner.asked()
        await until(lambda: "10.3." not in ip(node, "route", "show", "table", "8472"))

    live(node, story)


def test_route_by_route_it_comes_to_what_a_complete_comparison_wants(node: str) -> None:
    async def story(owner: Network, demand: Demand) -> None:
        await until(lambda: not demand.lacking)
        for number in range(40):
            demand.lead(f"10.3.{number}.0/24", "192.0.2.2")
            demand.lead(f"fd00:3:{number + 1}::/64", "192.0.2.2")
            if number % 3:
                demand.leave(f"10.3.{number - 1}.0/24")
            if number == 20:
                demand.leave("fd00:2::/64")
            owner.asked()
            await asyncio.sleep(0.005)
        await until(lambda: not demand.dirty and not demand.lacking)
        await asyncio.sleep(0.1)
        facts, _ = demand.all()
        assert len(facts.destinations) == 2 + 14 + 40
        done = await asyncio.to_thread(reconcile, PLACE, facts, attach_nothing)
        assert done.writes == 0

    live(node, story)


def test_a_living_owner_falls_silent_when_all_is_right(node: str) -> None:
    async def story(owner: Network, demand: Demand) -> None:
        await until(lambda: "inet clustermesh" in nft(node))
        group = 0x1 | 0x40 | 0x80
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK) as listener:
            await asyncio.sleep(0.3)
            settled = owner.writes
            listener.bind((0, group))
            await asyncio.sleep(0.5)
            with pytest.raises(BlockingIOError):
                listener.recv(65536)
        assert owner.writes == settled

    live(node, story, interval=0.1)
