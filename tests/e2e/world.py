"""The lab of this run as tests speak of it: pods that ask, tools that look, faults that happen."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clustermesh import meshfile
from clustermesh.lab import processes
from clustermesh.lab import state as lab_state
from clustermesh.lab.build import apis
from clustermesh.lab.paths import Paths
from clustermesh.lab.processes import LAUNCHER
from clustermesh.meshctl import api, watch
from clustermesh.meshctl.peering import peerings
from tests.e2e.host import cgroup_root

NAME = "e2e"
CLIENT = Path(__file__).with_name("client.py")
PYTHON = (sys.executable, "-I", "-S")
MESHCTL = (sys.executable, "-P", "-m", "clustermesh.meshctl.main")
DEADLINE = (
    60.0  # generous: the machine is shared. The time it took is printed, and judged elsewhere.
)

Answer = dict[str, Any]

TOOK: list[str] = []
"""How long what was waited for took: the run prints it at its end."""


class World:
    """One running lab."""

    def __init__(self, name: str = NAME) -> None:
        self.name = name
        self.paths = Paths(name)
        self.cgroup = cgroup_root()

    # --- the program under test ------------------------------------------------------------------

    def meshctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run meshctl as an operator does. A failure shows what it printed."""
        env = {**os.environ, "MESHCTL_MESH": str(self.paths.mesh), "COLUMNS": "250"}
        done = subprocess.run(
            [*MESHCTL, *arguments], capture_output=True, text=True, env=env, timeout=150
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        if check:
            assert done.returncode == 0, f"meshctl {arguments}: {done.stdout}\n{done.stderr}"
        return done

    def lab(self, verb: str, *arguments: str, check: bool = True) -> Any:
        return self.meshctl("lab", verb, "--name", self.name, *arguments, check=check)

    def json(self, *arguments: str, check: bool = True) -> Any:
        return json.loads(self.meshctl(*arguments, "-o", "json", check=check).stdout)

    def state(self) -> lab_state.State:
        return lab_state.running(self.paths)

    def pods(self, cluster: str, workload: str) -> list[Any]:
        pods = self.state().pods.values()
        mine = [pod for pod in pods if (pod.cluster, pod.workload) == (cluster, workload)]
        return sorted(mine, key=lambda pod: pod.name)

    def pod(self, cluster: str, workload: str, node: int = 1) -> Any:
        """One pod of a workload on that node."""
        return next(pod for pod in self.pods(cluster, workload) if pod.node == node)

    def manifest(self, cluster: str, kind: str, name: str) -> dict[str, Any]:
        import yaml

        for path in self.paths.manifests(cluster).glob("*.yaml"):
            document = yaml.safe_load(path.read_text())
            if (document["kind"], document["metadata"]["name"]) == (kind, name):
                return document
        raise AssertionError(f"{cluster} has no {kind} {name}")

    def service_ip(self, cluster: str, name: str) -> str:
        return self.manifest(cluster, "Service", name)["spec"]["clusterIP"]

    def healthy(self) -> None:
        """Both clusters up, connected and synced: where every test starts."""
        if self._stands():
            return
        self.lab("restart")
        self.meshctl("connect", "cluster-a", "cluster-b", "--timeout", str(int(DEADLINE)))
        self.meshctl("status", "--wait", "--timeout", str(int(DEADLINE)))

    def _stands(self) -> bool:
        """Whether the last test left nothing to be put right: spares a second for most of them."""
        state = self.state()
        if not all(processes.alive(process) for process in state.processes.values()):
            return False
        mesh = meshfile.load(self.paths.mesh)
        names = [cluster.name for cluster in mesh.clusters]
        urls = [url for mine in apis(self.paths, state, names).values() for url in mine]
        ways = watch.pairs(mesh, peerings(mesh, names))
        return all(map(api.ready, urls)) and all(watch.synced(way).done for way in ways)

    # --- in a pod, on a node ---------------------------------------------------------------------

    def in_pod(self, pod: Any, *program: str) -> list[str]:
        """The command line that runs a program where a pod's processes run."""
        cgroup = self.paths.node_cgroup(self.cgroup, pod.cluster, pod.node_name)
        netns = self.paths.pod_netns(pod.cluster, pod.name)
        return [*LAUNCHER, netns, str(cgroup), *program]

    def on_node(self, cluster: str, node: str, *program: str) -> list[str]:
        cgroup = self.paths.node_cgroup(self.cgroup, cluster, node)
        return [*LAUNCHER, self.paths.node_netns(cluster, node), str(cgroup), *program]

    def ask(
        self,
        pod: Any,
        address: str,
        port: int = 80,
        *,
        protocol: str = "tcp",
        count: int = 1,
        timeout: float = 5.0,
    ) -> list[Answer]:
        """What echo servers told a client in this pod; failures are answers with ``error``."""
        argv = self.in_pod(
            pod, *PYTHON, str(CLIENT), "ask", protocol, address, str(port), str(count), str(timeout)
        )
        done = subprocess.run(argv, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def clusters(self, pod: Any, address: str, *, count: int = 40, **how: Any) -> Counter[str]:
        """How many of ``count`` connections each cluster answered; failures by their error."""
        answers = self.ask(pod, address, count=count, **how)
        return Counter(answer.get("cluster") or answer["error"] for answer in answers)

    @contextmanager
    def going_on(self, mode: str, pod: Any, protocol: str, *arguments: str) -> Iterator[Answer]:
        """A client at work during the block; afterwards ``result`` holds what it saw."""
        argv = self.in_pod(pod, *PYTHON, str(CLIENT), mode, protocol, *arguments)
        client = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert client.stdout is not None
            line = client.stdout.readline()
            assert line, client.communicate()[1]
            seen: Answer = {"first": json.loads(line)}
            yield seen
            out, errors = client.communicate(input="", timeout=60)
            assert client.returncode == 0, errors
            seen["result"] = json.loads(out)
        finally:
            client.kill()
            client.communicate()

    # --- foreign tools ---------------------------------------------------------------------------

    @contextmanager
    def capture(self) -> Iterator[list[str]]:
        """tcpdump on the underlay's bridge during the block; afterwards the lines it printed."""
        argv = [
            *LAUNCHER, self.paths.underlay_netns, "-",
            "tcpdump", "-n", "-l", "-i", "any", "-T", "vxlan", "udp", "dst", "port", "8472",
        ]  # fmt: skip
        lines: list[str] = []
        tool = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert tool.stderr is not None
            heard = ""
            while "listening on" not in heard:
                heard = tool.stderr.readline()
                assert heard, "tcpdump ended"
            yield lines
            time.sleep(0.3)
        finally:
            tool.terminate()
            out, _ = tool.communicate()
            lines.extend(out.splitlines())

    def bpftool(self, *arguments: str) -> Any:
        done = subprocess.run(
            ["bpftool", "-j", *arguments], check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout)

    def etcd(self, cluster: str, *arguments: str) -> str:
        """etcdctl as the cluster's admin, in its control plane's namespace."""
        pki = self.paths.pki(cluster)
        argv = [
            *LAUNCHER, self.paths.control_plane_netns(cluster), "-",
            "/usr/bin/env", "ETCDCTL_API=3", "etcdctl", "--endpoints", "https://127.0.0.1:2379",
            "--cacert", str(pki / "ca.crt"), "--cert", str(pki / "admin.crt"),
            "--key", str(pki / "admin.key"), *arguments,
        ]  # fmt: skip
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def identity_of(self, pod: Any) -> int:
        """The identity that the pod's cluster published for it."""
        key = f"cilium/state/ip/v1/default/{pod.ips[0]}"
        return json.loads(self.etcd(pod.cluster, "get", "--print-value-only", key))["ID"]

    def pins(self, cluster: str, node: str) -> list[Path]:
        root = self.paths.bpf(cluster, node) / "clustermesh"
        return sorted(path for path in root.rglob("*") if not path.is_dir())


def vnis(lines: Sequence[str]) -> dict[str, set[int]]:
    """Inner source address to the VNIs its packets carried, from tcpdump's lines."""
    seen: dict[str, set[int]] = {}
    vni = None
    for line in lines:
        if match := re.search(r"vni (\d+)", line):
            vni = int(match[1])
        inner = re.search(r"IP6? (\S+?)(?:\.\d+)? > (?!.*vni)", line)
        if vni is not None and inner and "VXLAN" not in line:
            seen.setdefault(inner[1], set()).add(vni)
            vni = None
    return seen


def eventually(what: str, probe: Callable[[], Any], *, deadline: float = DEADLINE) -> Any:
    """Wait for a true answer; print how long it took."""
    began = time.monotonic()
    while True:
        answer = probe()
        took = time.monotonic() - began
        if answer:
            TOOK.append(f"{what}: {took:.2f} s")
            return answer
        assert took < deadline, f"{what}: not within {deadline:g} s; last answer {answer!r}"
        time.sleep(0.05)
