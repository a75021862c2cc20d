"""An apiserver that imports, and the etcd of another cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import Apiserver
from tests.support.etcd import Etcd, running_etcd
from tests.support.mcs_cluster import OtherCluster


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with running_etcd(tls=True) as etcd:
        yield etcd


@pytest.fixture
def rome(tmp_path: Path) -> Iterator[OtherCluster]:
    """Another cluster's etcd, with a directory in which its client file can be."""
    with running_etcd() as etcd:
        yield OtherCluster("rome", 9, etcd, tmp_path / "remotes")


@pytest.fixture
def apiserver(tmp_path: Path, etcd: Etcd) -> Iterator[Apiserver]:
    """Cluster paris with id 7; nothing is in it."""
    with Apiserver(tmp_path / "paris", etcd) as apiserver:
        yield apiserver
