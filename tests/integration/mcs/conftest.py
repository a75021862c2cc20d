"""An apiserver that imports, the etcd of another cluster, and API servers of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import Apiserver
from tests.support.etcd import Etcd, running_etcd
from tests.support.kube.fake import fake_kube
from tests.support.kube.real import assets, real_kube
from tests.support.mcs_cluster import OtherCluster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "opens" in metafunc.fixturenames:
        servers = {"test-server": fake_kube} | ({"kube-apiserver": real_kube} if assets() else {})
        metafunc.parametrize("opens", servers.values(), ids=servers.keys())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kube-apiserver" in item.name:
            item.add_marker(pytest.mark.timeout(300))


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
