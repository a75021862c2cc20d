"""A fresh etcd with TLS, and an apiserver beside it that is not started yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import Apiserver, shop
from tests.support.etcd import Etcd, running_etcd


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with running_etcd(tls=True) as etcd:
        yield etcd


@pytest.fixture
def apiserver(tmp_path: Path, etcd: Etcd) -> Iterator[Apiserver]:
    """Cluster paris with id 7 and the manifests of a small shop."""
    with Apiserver(tmp_path / "paris", etcd) as apiserver:
        shop(apiserver)
        yield apiserver
