"""A real etcd does what every store must do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kvstore.client import Store
from kvstore.etcd import open_etcd
from tests.support.etcd import Etcd
from tests.support.store_contract import StoreContract


class TestEtcd(StoreContract):
    @pytest.fixture(autouse=True)
    def _process(self, shared_etcd: Etcd) -> None:
        self.etcd = shared_etcd

    @asynccontextmanager
    async def open(self, **settings: object) -> AsyncIterator[Store]:
        async with open_etcd(self.etcd.config(**settings)) as store:
            yield store

    async def compact(self, _: Store, revision: int) -> None:
        self.etcd.ctl("compact", str(revision))
