"""Beside others: kube-proxy's rules on the same node, other programs on the same hooks."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from bpf import syscalls
from bpf.datapath import Datapath
from bpf.errors import AttachError
from bpf.libbpf import Object
from bpf.links import CGROUP_HOOKS, TCX_EGRESS, TCX_INGRESS
from bpf.specs import DatapathSettings
from tests.support import kube_proxy
from tests.support.bpf import child_cgroup, inside, netns
from tests.support.bpf_nodes import DEVICE, Node, arrives, two_nodes
from tests.support.bpf_services import TCP, UDP, Lab, ask, serving

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
TABLE = 1021

# --- kube-proxy -----------------------------------------------------------------------------------

GLOBAL = {False: "10.96.0.10", True: "fd00:96::a"}
PRIVATE = {False: "10.96.0.11", True: "fd00:96::b"}


@dataclass
class Shared:
    """A node with kube-proxy's rules and our programs, and what answers on it."""

    node: Node
    lab: Lab
    here: str  # a pod of the host's network, which kube-proxy sends both services to
    there: str  # a pod of the other cluster
    v6: bool

    def from_pod(self, vip: str, kind: socket.SocketKind) -> str:
        return inside(lambda: ask(vip, kind), namespace=self.node.pod, cgroup=self.lab.cgroup)

    def from_host(self, vip: str, kind: socket.SocketKind) -> str:
        return inside(lambda: ask(vip, kind), namespace=self.node.namespace, cgroup=self.lab.cgroup)


@pytest.fixture(params=sorted(kube_proxy.SHAPES))
def shape(request: pytest.FixtureRequest) -> Callable[..., None]:
    return kube_proxy.SHAPES[request.param]


@contextmanager
def shared(folder: Path, shape: Callable[..., None], *, v6: bool) -> Iterator[Shared]:
    with ExitStack() as stack:
        one, two = stack.enter_context(two_nodes(folder, pod_mtu=1450))
        cgroup = stack.enter_context(child_cgroup(f"cm-test-{os.getpid()}-beside"))
        here, there = ("fd00:1::1", two.pod6) if v6 else ("10.1.0.1", two.pod4)
        nodad = ("nodad",) if v6 else ()
        one.ip("address", "add", f"{here}/{128 if v6 else 32}", "dev", "lo", *nodad)
        both = {GLOBAL[v6]: here, PRIVATE[v6]: here}
        one.run(lambda: shape(both, v6=v6))
        for vip in both:  # what a default route does for service addresses on a real node
            one.ip("route", "add", vip, "dev", "wire")
        stack.enter_context(serving(one.namespace, [here]))
        stack.enter_context(serving(two.pod, [there]))
        lab = Lab(one.datapath, one.pod, cgroup)
        one.datapath.attach_sock_lb(cgroup)
        stack.callback(one.datapath.detach_sock_lb)
        one.datapath.state.configure(cluster_id=1, stale_after=60 * 10**9)
        yield Shared(one, lab, here, there, v6)


def test_each_serves_its_own_services(tmp_path: Path, shape):
    for v6 in (False, True):
        with shared(tmp_path / str(v6), shape, v6=v6) as place:
            for kind in (TCP, UDP):
                number = place.lab.backend(place.there, kind, cluster=2)
                place.lab.service(GLOBAL[v6], kind, [number], table=[number] * TABLE, rev_nat=kind)
                assert place.from_pod(GLOBAL[v6], kind) == place.there
                assert place.from_pod(PRIVATE[v6], kind) == place.here
                assert place.from_host(PRIVATE[v6], kind) == place.here
                _what_is_no_longer_global_is_kube_proxys(place, kind)


def _what_is_no_longer_global_is_kube_proxys(place: Shared, kind: socket.SocketKind) -> None:
    vip, state = GLOBAL[place.v6], place.lab.datapath.state
    local = place.lab.backend(place.here, kind, cluster=1)
    place.lab.service(vip, kind, [local], table=[local] * TABLE, rev_nat=kind)
    state.stamp(time.monotonic_ns() - 61 * 10**9)  # our facts are stale, and the pick is local
    assert place.from_pod(vip, kind) == place.here
    assert place.from_host(vip, kind) == place.here
    state.stamp(time.monotonic_ns())
    place.lab.forget(vip, kind)
    assert place.from_pod(vip, kind) == place.here


# --- other programs -------------------------------------------------------------------------------

NEIGHBOUR = """
#include "kernel.h"
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} cm_seen SEC(".maps");
static __always_inline void see(void)
{
	__u32 zero = 0;
	__u64 *seen = bpf_map_lookup_elem(&cm_seen, &zero);

	if (seen)
		__sync_fetch_and_add(seen, 1);
}
SEC("tc") int other_tc(struct __sk_buff *skb)
{
	see();
	return -1;
}
SEC("cgroup/connect4") int other_connect4(struct bpf_sock_addr *ctx)
{
	see();
	return 1;
}
const char _license[] SEC("license") = "GPL";
"""
HEADERS = Path(__file__).parents[3] / "bpf" / "src" / "include"
FLAG_BEFORE, FLAG_AFTER = 1 << 3, 1 << 4


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = tmp_path_factory.mktemp("neighbour") / "other.o"
    command = ["clang", "-target", "bpf", "-O2", "-g", "-I", str(HEADERS), "-xc", "-", "-c"]
    subprocess.run([*command, "-o", str(made)], input=NEIGHBOUR, text=True, check=True)
    return made.read_bytes()


class Neighbour:
    """Another program on a hook of ours, which counts what it sees and lets it pass."""

    def __init__(self, image: bytes, program: str) -> None:
        self._object = Object("other", image)
        self._object.load()
        self.program = self._object.program_fd(program)
        self._links: list[int] = []

    def attach(self, target: int, kind: int, flags: int = 0) -> None:
        self._links.append(syscalls.link_create(self.program, target, kind, flags))

    def seen(self) -> int:
        value = bytes(8)
        at = syscalls.address_of(value)
        fd = self._object.map_fd("cm_seen")
        syscalls.element(syscalls.MAP_LOOKUP, fd, syscalls.address_of(bytes(4)), at)
        return int.from_bytes(value, "little")

    def close(self) -> None:
        for link in self._links:
            os.close(link)
        self._object.__exit__(None, None, None)


@pytest.fixture
def neighbours(image: bytes) -> Iterator[Callable[[str], Neighbour]]:
    with ExitStack() as stack:

        def make(program: str) -> Neighbour:
            made = Neighbour(image, program)
            stack.callback(made.close)
            return made

        yield make


def test_programs_before_and_after_ours_on_the_device_see_every_packet(tmp_path: Path, neighbours):
    with two_nodes(tmp_path) as (one, two):
        before, after = neighbours("other_tc"), neighbours("other_tc")
        index = one.ifindex()
        for kind in (TCX_INGRESS, TCX_EGRESS):
            one.run(lambda kind=kind: before.attach(index, kind, FLAG_BEFORE))
            one.run(lambda kind=kind: after.attach(index, kind, FLAG_AFTER))
        assert one.attach() is False
        assert arrives(one, two, v6=False, kind=TCP) == one.pod4
        passed = one.counted(0)
        assert before.seen() == after.seen() == passed > 0
        one.run(lambda: one.datapath.detach_overlay(index))
        assert one.attach() is True  # ours is the last now
        assert arrives(one, two, v6=True, kind=UDP) == one.pod6
        assert before.seen() == after.seen() == one.counted(0) > passed


def test_filters_after_ours_see_every_packet_where_there_is_no_tcx(tmp_path: Path, neighbours):
    after = neighbours("other_tc")
    with two_nodes(tmp_path, replace(DatapathSettings.small(), tcx=False)) as (one, two):
        index = one.ifindex()
        one.run(lambda: add_filters(index, after.program))
        assert one.attach() is False
        assert arrives(one, two, v6=False, kind=TCP) == one.pod4
        assert after.seen() == one.counted(0) > 0
        one.run(lambda: one.datapath.detach_overlay(index))
        for side in ("ingress", "egress"):
            assert "other_tc" in one.tc("filter", "show", "dev", DEVICE, side)


def add_filters(ifindex: int, program: int) -> None:
    """On both sides of a device, behind what is there."""
    with IPRoute() as ip:
        for parent in (0xFFFFFFF2, 0xFFFFFFF3):
            how = {"fd": program, "name": "other_tc", "classid": 1, "direct_action": True}
            ip.tc("add-filter", "bpf", ifindex, 1, parent=parent, prio=7, **how)


VIP, BACKEND = "10.96.0.10", "127.0.1.1"


@pytest.fixture
def sockets(datapath: Datapath) -> Iterator[Lab]:
    name = f"cm-test-{os.getpid()}-hooks"
    with netns(name), child_cgroup(name) as cgroup, serving(name, [BACKEND]):
        lab = Lab(datapath, name, cgroup)
        lab.service(VIP, TCP, [lab.backend(BACKEND, TCP)])
        yield lab
        datapath.detach_sock_lb()


def on_group(work: Callable[[int], None], group: Path) -> None:
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        work(fd)
    finally:
        os.close(fd)


def test_programs_before_and_after_ours_on_the_sockets_see_every_connection(
    sockets: Lab, datapath: Datapath, neighbours
):
    before, after = neighbours("other_connect4"), neighbours("other_connect4")
    hook = CGROUP_HOOKS["connect4"]
    on_group(lambda fd: before.attach(fd, hook), sockets.cgroup)
    datapath.attach_sock_lb(sockets.cgroup)
    on_group(lambda fd: after.attach(fd, hook), sockets.cgroup)
    assert sockets.run(lambda: ask(VIP, TCP)) == BACKEND
    assert (before.seen(), after.seen()) == (1, 1)
    datapath.detach_sock_lb()
    with pytest.raises(OSError, match="unreachable"):
        sockets.run(lambda: ask(VIP, TCP))
    assert (before.seen(), after.seen()) == (2, 2)


def test_programs_of_a_group_below_see_every_connection(
    sockets: Lab, datapath: Datapath, neighbours
):
    theirs, inner = neighbours("other_connect4"), sockets.cgroup / "pod"
    hook = CGROUP_HOOKS["connect4"]
    datapath.attach_sock_lb(sockets.cgroup)
    inner.mkdir()
    try:
        on_group(lambda fd: theirs.attach(fd, hook), inner)
        lab = Lab(datapath, sockets.namespace, inner)
        assert lab.run(lambda: ask(VIP, TCP)) == BACKEND
        assert theirs.seen() == 1
    finally:
        inner.rmdir()


def test_a_program_that_has_a_hook_for_itself_is_named_as_the_reason(
    sockets: Lab, datapath: Datapath, image: bytes, bpffs: Path
):
    with Object("other", image) as other:
        other.load()
        syscalls.pin(other.program_fd("other_connect4"), bpffs / "other")
        attach = ["bpftool", "cgroup", "attach", str(sockets.cgroup), "connect4"]
        subprocess.run([*attach, "pinned", str(bpffs / "other")], check=True)
        with pytest.raises(AttachError, match=r"sock_connect4.*for itself.*bpftool cgroup"):
            datapath.attach_sock_lb(sockets.cgroup)
