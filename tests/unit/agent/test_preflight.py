"""Refusals: one sentence with the way out."""

from pathlib import Path

import pytest

from agent import preflight
from clustermesh.process import Fault
from tests.support.bpf import cgroup2_root


def test_a_directory_that_is_no_bpf_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="mount -t bpf"):
        preflight.check(bpf_root=tmp_path, cgroup=cgroup2_root())


def test_a_state_directory_has_one_agent(tmp_path: Path) -> None:
    with preflight.alone(tmp_path), pytest.raises(Fault, match="another clustermesh-agent"):
        preflight.alone(tmp_path).__enter__()
    with preflight.alone(tmp_path):
        pass


def test_a_state_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match="--state-dir"), preflight.alone(tmp_path / "file" / "below"):
        pass


def test_the_cgroup2_mount_is_found() -> None:
    assert preflight.cgroup_root(None) == cgroup2_root()
    assert preflight.cgroup_root(Path("/chosen")) == Path("/chosen")


SYS_ADMIN, NET_ADMIN, PERFMON, BPF = 1 << 21, 1 << 12, 1 << 38, 1 << 39


@pytest.mark.parametrize(
    ("capabilities", "lacking"),
    [
        (-1, ""),
        (SYS_ADMIN | NET_ADMIN, ""),
        (BPF | PERFMON | NET_ADMIN, ""),
        (BPF | NET_ADMIN, "load programs"),
        (SYS_ADMIN, "network (CAP_NET_ADMIN)"),
        (0, "load programs into the kernel (CAP_SYS_ADMIN) and to change the node's network"),
    ],
)
def test_rights_that_are_missing_are_named(capabilities: int, lacking: str) -> None:
    found = preflight.lacking_rights(capabilities)
    assert lacking in found
    assert bool(found) == bool(lacking)
