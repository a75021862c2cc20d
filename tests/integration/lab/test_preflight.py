"""What a machine lacks is said in a sentence with the way out."""

import subprocess
import sys
from pathlib import Path

import pytest

from bpf import features
from bpf.features import Feature
from clustermesh.lab import preflight
from clustermesh.lab.errors import LabError

pytestmark = pytest.mark.root


def test_this_machine_can_carry_a_lab():
    assert (preflight.check() / "cgroup.procs").exists()


def test_a_kernel_that_cannot_load_the_programs_is_told_from_which_on(monkeypatch):
    later = Feature("what a later kernel has", (9, 9), lambda: False)
    monkeypatch.setattr(features, "FEATURES", (later,))
    with pytest.raises(LabError, match=r"lacks what a later kernel has.*boot Linux 9\.9 or newer"):
        preflight.check()


def test_missing_programs_are_named_with_their_packages(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"etcd, ip, .*apt-get install etcd-server iproute2"):
        preflight.check()


def test_a_plain_chroot_is_told_what_it_lacks(tmp_path: Path):
    """Its folders are this machine's, each mounted; the root above them is not."""
    root = tmp_path / "root"
    for folder in (path for path in Path("/").iterdir() if path.is_dir()):
        (root / folder.name).mkdir(parents=True)
    script = """
    root=$1; shift
    for folder in "$root"/*; do mount --rbind "/${folder##*/}" "$folder"; done
    exec chroot "$root" "$@"
    """
    program = "from clustermesh.lab import preflight; preflight.check()"
    done = subprocess.run(
        ("unshare", "--mount", "sh", "-ec", script, "sh", root, sys.executable, "-c", program),
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    assert "LabError: / is no mount point here" in done.stderr, done.stderr
    assert "mount --bind DIRECTORY DIRECTORY" in done.stderr


def test_one_who_is_not_root_is_told_so():
    """Only the number is another: somebody else might not be able to read this Python."""
    other = "import os; os.geteuid = lambda: 65534"
    start = f"{other}; from clustermesh.meshctl.main import main; main()"
    argv = (sys.executable, "-P", "-c", start, "lab", "up", "--name", "labtest")
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    assert done.returncode == 1
    assert done.stderr == (
        "meshctl: the lab needs root, for network namespaces, cgroups and eBPF."
        " Run it again as root: sudo meshctl lab up\n"
    )
