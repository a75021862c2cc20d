"""Namespaces, links, mounts and cgroups of a lab on a real kernel; the host stays as it is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clustermesh.lab import ask, build, echo, host, preflight, processes, teardown
from clustermesh.lab.build import place
from clustermesh.lab.errors import LabError
from clustermesh.lab.network import Network
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import LAUNCHER, command
from clustermesh.lab.state import State, locked
from clustermesh.lab.topology import Topology, default_topology

pytestmark = pytest.mark.root

PYTHON = (sys.executable, "-I", "-S")


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def picture() -> dict[str, str]:
    """What of the host a lab must not touch, and what it must remove again, by foreign tools."""
    return {
        "links": output("ip", "-o", "link", "show"),
        "addresses": output("ip", "-o", "address", "show"),
        "routes": output("ip", "route", "show", "table", "all"),
        "rules": output("ip", "rule", "show"),
        "nftables": output("nft", "list", "ruleset"),
        "bpffs": "\n".join(sorted(str(path) for path in Path("/sys/fs/bpf").rglob("*"))),
        "cgroup root": output("bpftool", "cgroup", "show", str(host.cgroup_mount())),
    }


def traces() -> list[str]:
    """What carries the test lab's name, which no other test uses: its teardown goes by name."""
    cgroups = [path.name for path in host.cgroup_mount().glob("cm-labtest*")]
    return [*host.netns_named("cm-labtest-"), *cgroups]


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    made = Paths("labtest", tmp_path)
    before = picture()
    yield made
    teardown.tear_down(made, lambda _: None)
    assert traces() == []
    assert host.mounts_below(tmp_path) == []
    assert picture() == before


def wired(paths: Paths, topology: Topology) -> State:
    """Namespaces, links, cgroups and pods, without any control plane or agent."""
    mount = preflight.check()
    host.mount("tmpfs", paths.top, options="mode=0700")
    state = State(name=paths.lab, topology=topology, cgroup=str(mount))
    network = Network(paths, topology)
    network.underlay()
    for order, cluster in enumerate(topology.clusters, 1):
        network.control_plane(order, cluster)
        for number in range(1, cluster.nodes + 1):
            network.node(order, cluster, number)
            node = f"node-{number}"
            paths.node_cgroup(mount, cluster.name, node).mkdir(parents=True)
            host.mount("bpf", paths.bpf(cluster.name, node))
        for pod in place(topology, cluster):
            network.pod(pod)
            program = (*PYTHON, echo.__file__, pod.cluster, pod.node_name, pod.name, "8080")
            cgroup = paths.node_cgroup(mount, pod.cluster, pod.node_name)
            argv = command(paths.pod_netns(pod.cluster, pod.name), cgroup, program)
            process = processes.start(pod.target, argv, paths.log(pod.target))
            state.pods[pod.target], state.processes[pod.target] = pod, process
            state.save(paths)
    for process in state.processes.values():
        build.wait_listening(process)
    return state


def asked(paths: Paths, pod: str, address: str, *options: str) -> dict[str, int]:
    netns = paths.pod_netns(*pod.split("/"))
    argv = [*LAUNCHER, netns, "-", *PYTHON, ask.__file__, address, "8080", *options]
    told = json.loads(output(*argv))
    assert told["failures"] == []
    return told["pods"]


@pytest.mark.parametrize("ipv6", [False, True])
def test_pods_of_one_cluster_reach_each_other_and_the_host_stays_untouched(paths: Paths, ipv6):
    before = picture()
    topology = default_topology(ipv6=ipv6)
    state = wired(paths, topology)
    assert picture() == before
    for name in ("rebel-base-1", "rebel-base-2"):
        for address in state.pods[f"cluster-a/{name}"].ips:
            for options in ((), ("--udp",)):
                answers = asked(paths, "cluster-a/client-1", address, *options)
                assert answers == {f"cluster-a/{name}": 1}


def test_clusters_are_apart_until_somebody_connects_them(paths: Paths):
    state = wired(paths, default_topology())
    there = state.pods["cluster-b/rebel-base-1"].ips[0]
    netns = paths.pod_netns("cluster-a", "client-1")
    argv = [*LAUNCHER, netns, "-", *PYTHON, ask.__file__, there, "8080", "--timeout", "0.3"]
    assert json.loads(output(*argv))["pods"] == {}


def test_nodes_of_all_clusters_share_the_underlay(paths: Paths):
    wired(paths, default_topology())
    netns = paths.node_netns("cluster-a", "node-1")
    output(*LAUNCHER, netns, "-", "ping", "-c", "1", "-W", "5", "172.30.2.12")


def test_pods_are_in_their_nodes_cgroup_before_they_open_a_socket(paths: Paths):
    state = wired(paths, default_topology())
    process = state.processes["cluster-b/client-2"]
    groups = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    (own,) = [group for group in groups if group.startswith("0::")]
    assert own.endswith("/cm-labtest/cluster-b.node-2")


def test_each_node_has_a_bpf_file_system_of_its_own(paths: Paths):
    wired(paths, default_topology())
    one, other = paths.bpf("cluster-a", "node-1"), paths.bpf("cluster-a", "node-2")
    (one / "mine").mkdir()
    assert not (other / "mine").exists()
    assert host.mounted(one) == "bpf"


def test_removing_twice_is_fine_and_removing_nothing_too(paths: Paths):
    teardown.tear_down(paths, lambda _: None)
    wired(paths, default_topology(clusters=1, nodes=1))
    for _ in range(2):
        teardown.tear_down(paths, lambda _: None)
        assert teardown.remains(paths) == []


def test_a_lab_without_its_state_file_is_found_and_removed_by_name(paths: Paths):
    state = wired(paths, default_topology(clusters=1, nodes=1))
    paths.state.unlink()
    left = ", ".join(teardown.remains(paths))
    for word in ("processes", "namespaces", "mounts", "cgroup", "directory"):
        assert word in left
    teardown.tear_down(paths, lambda _: None)
    assert not any(processes.alive(process) for process in state.processes.values())


def test_another_labs_things_stay(paths: Paths, tmp_path: Path):
    other = Paths("labtest2", tmp_path)
    try:
        wired(paths, default_topology(clusters=1, nodes=1))
        wired(other, default_topology(clusters=1, nodes=1))
        teardown.tear_down(paths, lambda _: None)
        assert asked(other, "cluster-a/client-1", "10.1.1.10") == {"cluster-a/rebel-base-1": 1}
    finally:
        teardown.tear_down(other, lambda _: None)


def test_an_up_that_fails_says_why_and_takes_down_what_it_made(paths: Paths):
    broken = Topology(
        clusters=default_topology(clusters=1, nodes=1).clusters,
        agent_flags=("--no-such-flag",),
    )
    with pytest.raises(LabError, match=r"agent ended by itself; it last said: .*no-such-flag"):
        build.up(paths, broken, lambda _: None)
    assert teardown.remains(paths) == []
    assert not paths.lock.exists()


def test_a_half_built_lab_is_replaced_and_two_do_not_build_at_once(paths: Paths):
    wired(paths, default_topology(clusters=1, nodes=1))
    assert not build.is_up(paths)
    with locked(paths), pytest.raises(LabError, match="another meshctl"):
        build.up(paths, default_topology(), lambda _: None)


def test_an_error_of_ip_is_told_with_the_command():
    with pytest.raises(LabError, match=r"ip -n cm-test-none .*failed: .*cm-test-none"):
        host.ip("cm-test-none", ["link show"])
    with pytest.raises(LabError, match="no-such-program is not installed"):
        host.run("no-such-program")
