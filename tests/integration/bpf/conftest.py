"""A private BPF file system for each test, and a loaded data path on it."""

from pathlib import Path

import pytest

from bpf.datapath import Datapath, load
from bpf.specs import DatapathSettings
from tests.support.bpf import private_bpffs


@pytest.fixture
def bpffs(tmp_path: Path):
    with private_bpffs(tmp_path / "bpf") as folder:
        yield folder


@pytest.fixture
def settings() -> DatapathSettings:
    return DatapathSettings.small()


@pytest.fixture
def datapath(bpffs: Path, settings: DatapathSettings):
    with load(bpffs / "clustermesh", settings) as loaded:
        yield loaded


@pytest.fixture
def root(bpffs: Path) -> Path:
    return bpffs / "clustermesh"


__all__ = ["Datapath"]
