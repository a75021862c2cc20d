"""One etcd of each version for all tests that do not harm it."""

from collections.abc import Iterator

import pytest

from tests.support.etcd import BINARIES, Etcd, running_etcd


@pytest.fixture(scope="session", params=sorted(BINARIES))
def shared_etcd(request: pytest.FixtureRequest) -> Iterator[Etcd]:
    with running_etcd(BINARIES[request.param]) as etcd:
        yield etcd
