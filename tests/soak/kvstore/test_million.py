"""A million keys: as somebody else's, and as one's own."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import PutOp
from kvstore.etcd import open_etcd
from kvstore.events import Put, Synced
from kvstore.watch import ending, follow
from tests.support.etcd import Etcd, running_etcd

COUNT = 7_813 * 128
OTHER, OWN = "cilium/state/ip/v1/rome/", "cilium/state/ip/v1/romeo/"


@pytest.fixture(scope="module")
def full_etcd() -> Iterator[Etcd]:
    with running_etcd(options=["--quota-backend-bytes=8000000000"]) as etcd:
        asyncio.run(fill(etcd))
        yield etcd


async def fill(etcd: Etcd) -> None:
    async with open_etcd(etcd.config()) as store:
        for start in range(0, COUNT, 128):
            await store.commit(
                [PutOp(f"{OTHER}{at:07}", b"x" * 100) for at in range(start, start + 128)]
            )
        await store.commit([PutOp(f"{OWN}{at}", b"mine") for at in range(100)])


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def listed(etcd: Etcd, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async with open_etcd(etcd.config()) as store, ending(follow(store, prefix)) as slices:
        async for told in slices:
            if isinstance(told[-1], Synced):
                return found
            found |= {event.key: event.value for event in told if isinstance(event, Put)}
    raise AssertionError


@pytest.mark.timeout(600)
async def test_a_million_keys_of_a_neighbour_cost_nothing(full_etcd: Etcd) -> None:
    before = resident()
    found = await listed(full_etcd, OWN)
    assert len(found) == 100
    assert resident() - before < 20 << 20


@pytest.mark.timeout(600)
async def test_a_million_keys_are_listed_whole(full_etcd: Etcd) -> None:
    assert len(await listed(full_etcd, OTHER)) == COUNT
