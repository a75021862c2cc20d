"""One loaded data path for the tests of a file, emptied for each."""

import pytest

from bpf.datapath import load
from bpf.specs import DatapathSettings
from tests.support.bpf import private_bpffs
from tests.support.bpf_balance import (
    world,
)


@pytest.fixture(scope="module")
def datapath(tmp_path_factory):
    with (
        private_bpffs(tmp_path_factory.mktemp("balance") / "bpf") as folder,
        load(folder / "clustermesh", DatapathSettings.small()) as loaded,
    ):
        yield loaded


@pytest.fixture(scope="module")
def everywhere(datapath):
    with world(datapath) as made:
        yield made


@pytest.fixture
def here(everywhere):
    everywhere.begin()
    return everywhere
