"""A whole agent on a node of its own: real etcds, real kernel, real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from agent.settings import PINS
from bpf import syscalls
from bpf.kernel_maps import KernelMap
from bpf.layout import SKIP_TUNNEL, IpcacheKey, IpcacheValue
from bpf.links import tcx_supported
from bpf.state import State
from clustermesh import keys, local
from clustermesh.addresses import packed
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort, Scope
from kvstore.client import DeleteOp, PutOp
from tests.support.agent_process import NODE_IP, Place, agent, own_cluster, place, remote_cluster
from tests.support.bpf import inside
from tests.support.bpf_services import ask, serving
from tests.support.etcd import Etcd

pytestmark = [pytest.mark.root, pytest.mark.etcd]

OWN = {"cart": ["10.1.0.9"], "empty": []}
PARIS = {"cart": ["10.7.0.9", "10.7.0.10"]}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as made:
        yield made


@pytest.fixture
def own(node: Place) -> Iterator[Etcd]:
    with node.etcd() as etcd:
        node.write(etcd, own_cluster(OWN))
        yield etcd


@pytest.fixture
def paris(node: Place) -> Iterator[Etcd]:
    with node.etcd() as etcd:
        node.write(etcd, remote_cluster("paris", 7, PARIS))
        node.configure("paris", etcd)
        yield etcd


def used(node: Place, name: str = "cart") -> set[str]:
    """Backends that new connections to a service can reach, as the agent tells."""
    rows = node.ask(f"/v1/services?name={name}")
    return {it["address"] for row in rows for it in row["backends"] if it["used"]}


BOTH = {"10.1.0.9:8080", "10.7.0.9:8080", "10.7.0.10:8080"}


def kernel(node: Place) -> tuple[str, ...]:
    """Maps, programs and links with their ids, and the network, told by foreign tools."""
    pins = sorted(str(path) for path in node.bpf.rglob("*") if not path.is_dir())
    shown = [
        subprocess.run(
            ["bpftool", "-f", "map", "show", "pinned", pin],
            check=False,
            capture_output=True,
            text=True,
        ).stdout
        for pin in pins
        if "/maps/" in pin and not pin.endswith("/cilium_metrics")  # probes are counted there
    ]
    network = [
        node.run("ip", "-d", "addr"),
        node.run("ip", "rule"),
        node.run("ip", "route", "show", "table", "all"),
        node.run("nft", "list", "ruleset"),
        node.run("bpftool", "cgroup", "show", str(node.cgroup)),
    ]
    return (*pins, *shown, *network)


def unknown(node: Place, cluster: str) -> bool:
    """Whether the agent has asked for a cluster in an etcd that does not know it."""
    told = {it["name"]: it["status"] for it in node.ask("/v1/status")["remotes"]}
    return f"no {keys.cluster_config(cluster)}" in told.get(cluster, "")


def connections(node: Place, pid: int, port: int) -> int:
    """How many a process has to a port."""
    told = node.run("ss", "-Htnp", "state", "established", "dport", "=", f":{port}")
    return sum(f"pid={pid}," in line for line in told.splitlines())


def test_a_node_serves_both_clusters(node: Place, own: Etcd, paris: Etcd) -> None:
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node) == BOTH)
        running.until(lambda: "10.7.0.0/24" in node.run("ip", "route", "show", "table", "all"))
        status = node.ask("/v1/status")
        assert status["ready"]
        assert status["trouble"] == []
        assert status["remotes"][0]["num-shared-services"] == 1
        assert {row["name"] for row in node.ask("/v1/nodes?cluster=paris")} == {"node-a"}
        assert node.ask("/v1/identities?cluster=paris")[0]["id"] == (7 << 16) + 9
        told = node.ask("/metrics")
        assert 'target_cluster="paris"} 1.0' in told
        assert 'map_pressure{map="cilium_ipcache"} 0.0' in told
        assert 'program_runs_total{program="cm_connect4"}' in told
        assert 'events_missed_total{why="no room in the ring"} 0.0' in told
        node.configure("rome", paris)  # the same etcd by another name: as behind a kvstoremesh
        running.until(lambda: unknown(node, "rome"))
        assert connections(node, running.pid, paris.port) == 1
        assert running.stop() == 0


def stamp(node: Place) -> int:
    fd = syscalls.open_pin(node.bpf / "clustermesh" / "maps" / "cm_state")
    state = State(fd)
    try:
        return state.read().stamp
    finally:
        state.close()
        os.close(fd)


def test_facts_grow_stale_only_where_somebody_else_serves_local_backends(
    node: Place, own: Etcd
) -> None:
    replacing = node.arguments(own)
    beside = [word for word in replacing if word != "--kube-proxy-replacement"]
    with agent(node, beside) as running:
        running.until(lambda: stamp(node) > 0)
        assert running.stop() == 0
    with agent(node, replacing) as running:
        running.until(lambda: used(node) == {"10.1.0.9:8080"})
        assert stamp(node) == 0


KUBE_PROXY = (
    "table ip kube_proxy_stand_in { chain output { type nat hook output priority -100;"
    " ip daddr 10.96.0.10 tcp dport 80 dnat to 10.1.0.20:8080; }; }"
)


def test_with_stale_facts_local_pods_are_left_to_kube_proxy_and_remote_ones_stay(
    node: Place, own: Etcd
) -> None:
    """Design 4: every process of ours is dead, the local pod is replaced, the service answers."""
    connect = partial(ask, "10.96.0.10", socket.SOCK_STREAM, port=80)

    def answers() -> set[str]:
        work = lambda: {connect() for _ in range(40)}  # noqa: E731  # in the pod's place
        return inside(work, namespace=node.name, cgroup=node.cgroup)

    node.run("ip", "route", "add", "10.96.0.0/16", "dev", "eth0")
    node.run("nft", KUBE_PROXY)
    for address in ("10.1.0.9", "10.1.0.20", "10.7.0.9"):
        node.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    arguments = [it for it in node.arguments(own) if it != "--kube-proxy-replacement"]
    arguments += ["--stale-after", "1s", "--stamp-interval", "200ms"]
    with node.etcd() as paris, serving(node.name, ["10.1.0.20", "10.7.0.9"]):
        node.write(paris, remote_cluster("paris", 7, {"cart": ["10.7.0.9"]}))
        node.configure("paris", paris)
        with serving(node.name, ["10.1.0.9"]), agent(node, arguments) as running:
            running.until(lambda: used(node) == {"10.1.0.9:8080", "10.7.0.9:8080"})
            running.until(lambda: answers() == {"10.1.0.9", "10.7.0.9"})
        node.run("ip", "addr", "del", "10.1.0.9/32", "dev", "lo")
        time.sleep(1.1 + (stamp(node) + 1e9 - time.monotonic_ns()) / 1e9)
        assert answers() == {"10.1.0.20", "10.7.0.9"}


def test_a_cluster_on_the_same_link_is_reached_without_the_tunnel(
    node: Place, own: Etcd, paris: Etcd
) -> None:
    with agent(node, node.arguments(own, "--native-routing", "paris")) as running:
        running.until(lambda: used(node) == BOTH)
        way = "10.7.0.0/24 via 192.0.2.7 dev eth0"
        running.until(lambda: way in node.run("ip", "route", "show", "table", "all"))
        running.until(lambda: "@direct4" in node.run("nft", "list", "ruleset"))
    ipcache = KernelMap.pinned(node.bpf / "clustermesh" / "maps" / "cilium_ipcache")
    flags = {
        IpcacheKey.unpack(key).address: IpcacheValue.unpack(value).flags
        for key, value in ipcache.items()
    }
    ipcache.close()
    assert flags[packed("10.7.0.9")] == flags[packed("10.7.0.0")] == SKIP_TUNNEL
    assert flags[packed("10.1.0.9")] == 0


def test_a_node_port_answers_on_the_node_and_its_loopback(node: Place, own: Etcd) -> None:
    service = LocalService(
        namespace="shop",
        name="ported",
        frontends=(
            Frontend(address="10.96.0.99", port=80, name="http"),
            Frontend(port=30080, name="http", scope=Scope.NODE_PORT),
        ),
        backends=(LocalBackend(address="10.1.0.9", ports=(NamedPort("http", "TCP", 8080),)),),
    )
    node.write(own, [PutOp(local.key_of(service), local.encode(service))])
    node.run("ip", "addr", "add", "10.1.0.9/32", "dev", "lo")
    with serving(node.name, ["10.1.0.9"]), agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node, "ported") == {"10.1.0.9:8080"})
        for address, port in (("10.96.0.99", 80), (NODE_IP, 30080), ("127.0.0.1", 30080)):
            connect = partial(ask, address, socket.SOCK_STREAM, port=port)
            assert inside(connect, namespace=node.name, cgroup=node.cgroup) == "10.1.0.9"


def test_a_node_alone_is_ready_and_keeps_its_network(node: Place, own: Etcd) -> None:
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: "elements = { 10.1.0.0/24 }" in node.run("nft", "list", "ruleset"))
        running.until(lambda: used(node) == {"10.1.0.9:8080"})
        assert node.ask("/v1/status")["num-global-services"] == 2


def attached(node: Place) -> list[str]:
    """Programs on our device and on the node's control group."""
    index = node.run("ip", "-o", "link", "show", "cm_vxlan").partition(":")[0]
    found = []
    for side in ("ingress", "egress"):
        if not tcx_supported():
            filters = node.run("tc", "filter", "show", "dev", "cm_vxlan", side)
            found.append(f"{side}: {'direct-action' in filters}")
            continue
        link = syscalls.open_pin(node.bpf / PINS / "links" / f"overlay_{side}")
        try:
            found.append(f"{side}: {syscalls.link_info(link).target == int(index)}")
        finally:
            syscalls.close(link)
    sockets = json.loads(node.run("bpftool", "-j", "cgroup", "show", str(node.cgroup)))
    return found + sorted(f"{it['attach_type']} {it['name']}" for it in sockets)


DAMAGES = (
    "bpftool link detach pinned {links}/overlay_ingress",
    "bpftool link detach pinned {links}/sock_connect4",
    "rm {links}/overlay_egress {links}/sock_connect6",
    "for n in 1 2 3; do ip link del cm_vxlan || true; sleep 0.1; done",
    "ip link del cm_vxlan; ip link add cm_vxlan type vxlan id 7 dev lo dstport 9",
    "nft flush ruleset; ip route flush table 8472; ip rule del table 8472",
)


def test_what_somebody_takes_off_a_running_node_comes_back(
    node: Place, own: Etcd, paris: Etcd
) -> None:
    before: list[str] = []

    def whole() -> bool:
        with suppress(subprocess.CalledProcessError, OSError):  # the device may be on its way
            return (
                before in ([], attached(node))
                and "external" in node.run("ip", "-d", "link", "show", "cm_vxlan")
                and "lookup 8472" in node.run("ip", "rule")
                and "10.7.0.0/24" in node.run("ip", "route", "show", "table", "8472")
                and "10.1.0.0/24" in node.run("nft", "list", "ruleset")
            )
        return False

    with agent(node, node.arguments(own, "--network-interval", "0.5")) as running:
        running.until(lambda: used(node) == BOTH)
        running.until(whole)
        before = attached(node)
        assert len(before) > 4
        for damage in DAMAGES:
            os.kill(running.pid, signal.SIGSTOP)
            node.run("sh", "-ec", damage.format(links=node.bpf / PINS / "links"))
            assert not whole(), damage
            os.kill(running.pid, signal.SIGCONT)
            began = time.monotonic()
            running.until(whole)
            print(f"{damage}: whole again after {time.monotonic() - began:.1f} s")


def test_pins_for_foreign_tools_come_and_go_with_the_setting(node: Place, own: Etcd) -> None:
    there = node.bpf / "tc" / "globals"
    for _ in range(2):  # the second start finds its own
        with agent(node, node.arguments(own, "--cilium-pins")):
            assert (there / "cilium_lb4_services_v2").exists()
    with agent(node, node.arguments(own)):
        assert list(there.iterdir()) == []


def test_a_stopped_agent_leaves_everything_and_the_next_one_writes_nothing(
    node: Place, own: Etcd, paris: Etcd
) -> None:
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node) == BOTH)
        running.until(lambda: "10.7.0.0/24" in node.run("ip", "route", "show", "table", "all"))
        running.until(lambda: "10.1.0.0/24" in node.run("nft", "list", "ruleset"))
        assert running.stop() == 0
    before, changes = kernel(node), running.words().count("network changed")
    assert changes > 0
    with agent(node, node.arguments(own)) as again:
        again.until(lambda: used(node) == BOTH)
        again.until(lambda: again.words().count('"settled"') == 2)
        assert node.ask("/v1/status")["map-writes"] == 0
        assert again.stop() == 0
        assert again.words().count("network changed") == changes
    assert kernel(node) == before


def test_the_double_failure_keeps_remote_backends_through_a_local_change(
    node: Place, own: Etcd, paris: Etcd
) -> None:
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node) == BOTH)
        running.until((node.folder / "state" / "remotes" / "paris.facts").exists)
        assert running.stop() == 0
    paris.kill()
    with agent(node, node.arguments(own, "--sync-timeout", "2")) as again:
        node.write(own, own_cluster({"cart": ["10.1.0.8"], "empty": []}))
        again.until(lambda: used(node) == {"10.1.0.8:8080", "10.7.0.9:8080", "10.7.0.10:8080"})
        assert "10.7.0.0/24" in node.run("ip", "route", "show", "table", "all")


def test_removal_drains_a_dead_peer(node: Place, own: Etcd, paris: Etcd) -> None:
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node) == BOTH)
        paris.kill()
        (node.remotes / "paris").unlink()
        running.until(lambda: used(node) == {"10.1.0.9:8080"})
        running.until(lambda: "10.7.0.0/24" not in node.run("ip", "route", "show", "table", "all"))
        assert node.ask("/v1/cluster") == {"clusters": []}


def test_a_change_of_the_peer_shows(node: Place, own: Etcd, paris: Etcd) -> None:
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node) == BOTH)
        node.write(paris, remote_cluster("paris", 7, {"cart": ["10.7.0.77"]}))
        running.until(lambda: used(node) == {"10.1.0.9:8080", "10.7.0.77:8080"})
        gone = f"{keys.prefix(keys.Kind.SERVICES, keys.Layout.STATE, 'paris')}shop/cart"
        node.write(paris, [DeleteOp(gone)])
        running.until(lambda: used(node) == {"10.1.0.9:8080"})


def test_cleanup_leaves_the_node_as_it_was(node: Place, own: Etcd, paris: Etcd) -> None:
    before = kernel(node)
    with agent(node, node.arguments(own)) as running:
        running.until(lambda: used(node) == BOTH)
        assert running.stop() == 0
    assert kernel(node) != before
    words = cleanup(node)
    assert "removed device cm_vxlan" in words
    assert kernel(node) == before
    assert cleanup(node) == "nothing was left\n"


def cleanup(node: Place) -> str:
    return node.run(
        *(sys.executable, "-W", "error", "-m", "agent.main", "cleanup"),
        *("--bpf-root", str(node.bpf), "--state-dir", str(node.folder / "state")),
    )


def refusal(node: Place, arguments: list[str]) -> str:
    """What a start that fails says; one line, no traceback."""
    command = ["nsenter", f"--net=/run/netns/{node.name}", sys.executable, "-m", "agent.main"]
    done = subprocess.run(
        [*command, *arguments], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode not in (0, 70)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_refusals_are_one_sentence(node: Place, own: Etcd) -> None:
    good = node.arguments(own)
    with agent(node, good):
        second = refusal(node, [*good, "--api-socket", str(node.folder / "other.sock")])
        assert "another clustermesh-agent uses" in second
    assert "cluster-id" in refusal(node, [*good, "--cluster-id", "400"])
    assert "mount -t bpf" in refusal(node, [*good, "--bpf-root", str(node.folder)])
    assert "--cgroup-root" in refusal(node, [*good, "--cgroup-root", str(node.folder)])


def test_a_kernel_with_maps_of_another_size_is_refused_with_the_way_out(
    node: Place, own: Etcd
) -> None:
    good = node.arguments(own)
    with agent(node, good):
        pass
    assert "differ from what is configured" in refusal(node, [*good, "--table-size", "509"])
