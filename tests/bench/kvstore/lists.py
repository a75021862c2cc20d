"""Listing 200,000 keys of 400 bytes. `python tests/bench/kvstore/lists.py`.

Each way runs in a process of its own against the same etcd, several times; CPU is user plus system
of that process, of the quickest run. The floor is what the transport costs: the same pages as bytes
that nobody decodes. "kept" is what the resident memory grew by, for each key.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import msgspec

from kvstore import wire
from kvstore._proto import etcd_pb2 as rpc
from kvstore.channel import Address, dial
from kvstore.client import PutOp
from kvstore.config import EtcdConfig, parse
from kvstore.etcd import open_etcd
from kvstore.events import Put, Synced
from kvstore.watch import ending, follow
from tests.support.etcd import running_etcd

PREFIX = "cilium/state/services/v1/cluster-a/"
PAGE = 20_000


class Service(msgspec.Struct, frozen=True, gc=False):
    """What a consumer decodes of such a value."""

    cluster: str
    namespace: str
    name: str
    frontends: dict[str, dict[str, dict[str, str | int]]]
    backends: dict[str, dict[str, dict[str, str | int]]]


def value(at: int) -> bytes:
    """A service as it is exported, filled up to 400 bytes."""
    port = {"http": {"Protocol": "TCP", "Port": 80}}
    document = {
        "cluster": "cluster-a",
        "namespace": f"ns{at % 100}",
        "name": f"service-{at:07}",
        "frontends": {f"10.96.{at >> 8 & 255}.{at & 255}": port},
        "backends": {f"10.1.{at >> 8 & 255}.{n}": port for n in range(2)},
        "labels": {"app": f"service-{at:07}"},
        "selector": {},
        "includeExternal": True,
        "shared": True,
        "clusterID": 7,
    }
    text = json.dumps(document, separators=(",", ":"))
    document["labels"]["pad"] = "x" * (400 - len(text) - len(',"pad":""'))
    return json.dumps(document, separators=(",", ":")).encode()


def key(at: int) -> str:
    return f"{PREFIX}{at:07}"


def settings(endpoint: str) -> EtcdConfig:
    return parse(f"endpoints: ['{endpoint}']".encode(), beside=Path())


async def fill(endpoint: str, count: int) -> None:
    config = EtcdConfig.of(endpoint, qps=1e6)
    async with open_etcd(config) as store:
        for start in range(0, count, 128):
            await store.commit([PutOp(key(at), value(at)) for at in range(start, start + 128)])


async def floor(endpoint: str, count: int) -> object:
    """The same pages, the next one under way, and nothing made of them."""
    link = await dial(Address(settings(endpoint).endpoints[0]), settings(endpoint))
    raw = link._channel.unary_unary(
        wire.RANGE.path, request_serializer=rpc.RangeRequest.SerializeToString
    )
    end = (PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)).encode()
    asked = [
        rpc.RangeRequest(key=key(at).encode(), range_end=end, limit=PAGE)
        for at in range(0, count, PAGE)
    ]
    calls = [raw(asked[0])]
    for at in range(len(asked)):
        if at + 1 < len(asked):
            calls.append(raw(asked[at + 1]))
        await calls[at]
        calls[at] = None
    await link.close()
    return None


async def pages(endpoint: str, count: int) -> object:
    """Entries: key as text, value, revision, lease."""
    async with open_etcd(settings(endpoint)) as store:
        kept = [entry async for page in store.pages(PREFIX) for entry in page.entries]
    assert len(kept) == count
    return kept


async def followed(endpoint: str, count: int, keep: Callable[[bytes], object]) -> object:
    kept: dict[str, object] = {}
    async with open_etcd(settings(endpoint)) as store, ending(follow(store, PREFIX)) as slices:
        async for told in slices:
            for event in told:
                if isinstance(event, Put):
                    kept[event.key] = keep(event.value)
            if isinstance(told[-1], Synced):
                break
        assert len(kept) == count
        return kept, slices


async def follow_raw(endpoint: str, count: int) -> object:
    """What a follower tells, kept by key."""
    return await followed(endpoint, count, lambda value: value)


async def follow_decoded(endpoint: str, count: int) -> object:
    """The same, each value decoded from its JSON."""
    return await followed(endpoint, count, msgspec.json.Decoder(Service).decode)


WAYS: dict[str, Callable[[str, int], Awaitable[object]]] = {
    "floor": floor,
    "pages": pages,
    "follow": follow_raw,
    "follow+json": follow_decoded,
}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(way: str, endpoint: str, count: int) -> None:
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)

    async def work() -> object:
        return await WAYS[way](endpoint, count)

    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    kept = asyncio.run(work())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    gc.collect()
    print(json.dumps({"cpu": cpu, "wall": wall, "kept": resident() - before}))
    del kept


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--keys", type=int, default=200_000)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--one", nargs=2, metavar=("WAY", "ENDPOINT"))
    asked = arguments.parse_args()
    count = asked.keys // 128 * 128
    if asked.one:
        measure(*asked.one, count)
        return
    with running_etcd(options=["--quota-backend-bytes=8000000000"]) as etcd:
        asyncio.run(fill(etcd.url, count))
        best: dict[str, dict[str, float]] = {}
        for _ in range(asked.runs):
            for way in WAYS:
                command = [sys.executable, __file__, f"--keys={count}", "--one", way, etcd.url]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                if way not in best or found["cpu"] < best[way]["cpu"]:
                    best[way] = found
    print(f"| {count:,} keys | CPU us/key | of the floor | wall s | kept B/key |")
    print("|---|---|---|---|---|")
    for way, found in best.items():
        print(
            f"| {way} | {found['cpu'] / count * 1e6:.2f}"
            f" | {found['cpu'] / best['floor']['cpu']:.2f}"
            f" | {found['wall']:.2f} | {found['kept'] / count:.0f} |"
        )


if __name__ == "__main__":
    main()
