"""Refusals that need a node of their own to provoke."""

import os
import subprocess
from pathlib import Path

import pytest

from agent import preflight
from clustermesh.process import Fault
from tests.support.bpf import cgroup2_root, inside, netns, private_bpffs

pytestmark = pytest.mark.root
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
