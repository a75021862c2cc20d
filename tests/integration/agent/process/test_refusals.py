"""Refusals that need a node of their own to provoke."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import preflight
from bpf import syscalls
from bpf.libbpf import Object
from clustermesh.process import Fault
from tests.support.bpf import cgroup2_root, child_cgroup, inside, netns, private_bpffs

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[4]
HEADERS = ROOT / "bpf" / "src" / "include"
NODE = f"cm-test-refuse-{os.getpid()}"


def test_a_node_with_a_cilium_device_is_left_alone(tmp_path: Path) -> None:
    with private_bpffs(tmp_path / "bpf") as root, netns(NODE):
        preflight.check(bpf_root=root, cgroup=cgroup2_root())
        make = ["link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net"]
        subprocess.run(["ip", "-n", NODE, *make], check=True)
        with pytest.raises(Fault, match=r"cilium_host, cilium_net.*remove Cilium"):
            inside(lambda: preflight.check(bpf_root=root, cgroup=cgroup2_root()), namespace=NODE)


def test_a_node_with_cilium_pins_is_left_alone(tmp_path: Path) -> None:
    with private_bpffs(tmp_path / "bpf") as root:
        (root / "cilium").mkdir()
        with pytest.raises(Fault, match="a Cilium agent runs or ran"):
            preflight.check(bpf_root=root, cgroup=cgroup2_root())


def test_a_cgroup_of_the_first_kind_is_refused(tmp_path: Path) -> None:
    with (
        private_bpffs(tmp_path / "bpf") as root,
        pytest.raises(Fault, match="no cgroup2 directory; name one with --cgroup-root"),
    ):
        preflight.check(bpf_root=root, cgroup=tmp_path)


CILIUM = """
#include "kernel.h"
SEC("cgroup/connect4") int cil_sock4_connect(struct bpf_sock_addr *ctx) { return 1; }
const char _license[] SEC("license") = "GPL";
"""
CONNECT4 = 10  # BPF_CGROUP_INET4_CONNECT


def test_a_node_with_programs_of_cilium_is_left_alone(tmp_path: Path) -> None:
    """Also when they are attached further up, and their pins are nowhere to be seen."""
    command = ["clang", "-target", "bpf", "-O2", "-g", "-I", str(HEADERS), "-xc", "-", "-c"]
    made = tmp_path / "cilium.o"
    subprocess.run([*command, "-o", str(made)], input=CILIUM, text=True, check=True)
    with (
        private_bpffs(tmp_path / "bpf") as root,
        child_cgroup(NODE) as cgroup,
        child_cgroup(f"{NODE}/below") as below,
        Object("cilium", made.read_bytes()) as programs,
    ):
        preflight.check(bpf_root=root, cgroup=below)
        programs.load()
        folder = os.open(cgroup, os.O_RDONLY)
        link = syscalls.link_create(programs.program_fd("cil_sock4_connect"), folder, CONNECT4)
        try:
            with pytest.raises(Fault, match=r"program cil_sock4_conne.*elsewhere"):
                preflight.check(bpf_root=root, cgroup=below)
        finally:
            os.close(link)
            os.close(folder)


def said(folder: Path, *launcher: str) -> str:
    """What an agent says that may not or cannot run; one line."""
    arguments = [
        *("--cluster-name", "home", "--cluster-id", "1", "--node-ip", "192.0.2.1"),
        *("--etcd-config", str(folder / "etcd"), "--clustermesh-config", str(folder)),
        *("--state-dir", str(folder / "state"), "--api-socket", str(folder / "socket")),
        *("--bpf-root", str(folder / "bpf")),
    ]
    done = subprocess.run(
        [*launcher, sys.executable, "-m", "agent.main", *arguments],
        check=False, capture_output=True, text=True, timeout=30, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode not in (0, 70), done
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("capability", "what"),
    [("sys_admin,-bpf", "load programs into the kernel"), ("net_admin", "the node's network")],
)
def test_without_rights_the_missing_one_is_named(
    tmp_path: Path, capability: str, what: str
) -> None:
    line = said(tmp_path, "setpriv", f"--bounding-set=-{capability}", "--inh-caps=-all")
    assert what in line
    assert "as root with all capabilities" in line


def test_without_a_cgroup2_mount_the_way_to_one_is_told(tmp_path: Path) -> None:
    """In a mount namespace of its own, where there is none."""
    unmount = "grep cgroup2 /proc/mounts | cut -d' ' -f2 | xargs -n1 umount -l && exec \"$@\""
    line = said(tmp_path, "unshare", "--mount", "sh", "-c", unmount, "sh")
    assert "no cgroup2 file system is mounted" in line
    assert "mount -t cgroup2" in line
