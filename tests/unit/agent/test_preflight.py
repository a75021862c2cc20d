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
