"""Tests that ask for ``opens`` run on the test API server, and on a real one if one is named."""

import pytest

from tests.support.kube.fake import fake_kube
from tests.support.kube.real import assets, real_kube


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "opens" in metafunc.fixturenames:
        servers = {"test-server": fake_kube} | ({"kube-apiserver": real_kube} if assets() else {})
        metafunc.parametrize("opens", servers.values(), ids=servers.keys())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kube-apiserver" in item.name:
            item.add_marker(pytest.mark.timeout(600))
