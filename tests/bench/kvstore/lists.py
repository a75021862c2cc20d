"""Listing 200,000 keys. `python tests/bench/kvstore/lists.py`.

Services are padded to 400 bytes, addresses are as they are published (some 180 bytes). Each way
runs in a process of its own against the same etcd, several times; CPU is user plus system of that
process, of the quickest run. The floor is what the transport costs: the same pages as bytes that
nobody decodes. Garbage is collected as agents do it: not during a list, but once after it, and that
counts. "decode" alone is the decoder of the agents (every check of a consumer included), called
with values that are at hand. An agent keeps of a service what it offers ("follow+offer"). "kept" is
what the resident memory grew by, for each key.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent import interpreter
from agent.services import offers
from clustermesh import keys
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.lab.generate.world import Cluster, Shape
from clustermesh.model import ClusterService
from kvstore import wire
from kvstore._proto import etcd_pb2 as rpc
from kvstore.channel import Address, dial
from kvstore.client import PutOp
from kvstore.config import EtcdConfig, parse
from kvstore.etcd import open_etcd
from kvstore.events import Put, Synced
from kvstore.lists import after_prefix
from kvstore.watch import ending, follow
from tests.support.etcd import running_etcd

T = TypeVar("T")
PAGE = 20_000
CLUSTER = Cluster(
    Shape(clusters=1, nodes=900, identities=2_000, endpoints=200_000, services=200_000, backends=2),
    0,
)
ORIGIN = Origin(CLUSTER.name, CLUSTER.id)
SERVICES, ADDRESSES = Kind.SERVICES, Kind.IPS


def prefix(kind: Kind) -> str:
    return keys.prefix(kind, Layout.STATE, CLUSTER.name)


def pairs(kind: Kind, count: int) -> Iterator[tuple[str, bytes]]:
    """Keys and values as they are published; services are filled up to 400 bytes."""
    for at in range(count):
        name, value = CLUSTER.entry(kind, at)
        if kind is SERVICES:
            pad = b"x" * (400 - len(value) - len(b'"pad":"",'))
            value = value.replace(b'"labels":{', b'"labels":{"pad":"%s",' % pad)
        yield prefix(kind) + name, value


def settings(endpoint: str) -> EtcdConfig:
    return parse(f"endpoints: ['{endpoint}']".encode(), beside=Path())


async def fill(endpoint: str, kind: Kind, count: int) -> None:
    config = EtcdConfig.of(endpoint, qps=1e6)
    async with open_etcd(config) as store:
        for some in batched(pairs(kind, count), 128):
            await store.commit([PutOp(key, value) for key, value in some])


def batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while some := list(islice(items, size)):
        yield some


async def floor(endpoint: str, kind: Kind, count: int) -> object:
    """The same pages, the next one under way, and nothing made of them."""
    link = await dial(Address(settings(endpoint).endpoints[0]), settings(endpoint))
    raw = link._channel.unary_unary(
        wire.RANGE.path, request_serializer=rpc.RangeRequest.SerializeToString
    )
    names = sorted(key.encode() for key, _ in pairs(kind, count))
    end = after_prefix(prefix(kind).encode())
    asked = [rpc.RangeRequest(key=key, range_end=end, limit=PAGE) for key in names[::PAGE]]
    began = time.process_time()
    calls = [raw(asked[0])]
    for at in range(len(asked)):
        if at + 1 < len(asked):
            calls.append(raw(asked[at + 1]))
        await calls[at]
        calls[at] = None
    await link.close()
    return time.process_time() - began


async def pages(endpoint: str, kind: Kind, count: int) -> object:
    """Entries: key as text, value, revision, lease."""
    async with open_etcd(settings(endpoint)) as store:
        kept = [entry async for page in store.pages(prefix(kind)) for entry in page.entries]
    assert len(kept) == count
    return kept


async def followed(
    endpoint: str, kind: Kind, count: int, keep: Callable[[str, bytes], object]
) -> object:
    kept: dict[str, object] = {}
    async with (
        open_etcd(settings(endpoint)) as store,
        ending(follow(store, prefix(kind))) as slices,
    ):
        async for told in slices:
            for event in told:
                if isinstance(event, Put):
                    kept[event.key] = keep(event.key, event.value)
            if isinstance(told[-1], Synced):
                break
        assert len(kept) == count
        return kept, slices


async def follow_raw(endpoint: str, kind: Kind, count: int) -> object:
    """What a follower tells, kept by key."""
    return await followed(endpoint, kind, count, lambda _, value: value)


async def follow_decoded(endpoint: str, kind: Kind, count: int) -> object:
    """The same, each value decoded and checked as agents do it."""
    return await followed(endpoint, kind, count, keys.decoder(kind, ORIGIN))


async def follow_offers(endpoint: str, kind: Kind, count: int) -> object:
    """The same, and of each service what an agent keeps of it: what it offers."""
    decoder = keys.decoder(kind, ORIGIN)

    def offer(key: str, value: bytes) -> object:
        fact = decoder(key, value)
        return offers.of_remote(fact) if isinstance(fact, ClusterService) else fact

    return await followed(endpoint, kind, count, offer)


async def decode(endpoint: str, kind: Kind, count: int) -> object:
    """The decoding alone."""
    at_hand, decoder = list(pairs(kind, count)), keys.decoder(kind, ORIGIN)
    began = time.process_time()
    for key, value in at_hand:
        decoder(key, value)
    return time.process_time() - began


WAYS: dict[str, Callable[[str, Kind, int], Awaitable[object]]] = {
    "floor": floor,
    "pages": pages,
    "follow": follow_raw,
    "follow+decode": follow_decoded,
    "follow+offer": follow_offers,
    "decode": decode,
}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(way: str, endpoint: str, kind: Kind, count: int) -> None:
    interpreter.prepare()

    async def work() -> object:
        return await WAYS[way](endpoint, kind, count)

    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    kept = asyncio.run(work())
    interpreter.settled()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if isinstance(kept, float):  # what it prepared does not count
        cpu = kept
    print(json.dumps({"cpu": cpu, "wall": wall, "kept": resident() - before}))
    del kept


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--keys", type=int, default=200_000)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--one", nargs=3, metavar=("WAY", "ENDPOINT", "KIND"))
    asked = arguments.parse_args()
    if asked.one:
        way, endpoint, kind = asked.one
        measure(way, endpoint, Kind(kind), asked.keys)
        return
    print("| list | CPU us/key | of the floor | wall s | kept B/key |")
    print("|---|---|---|---|---|")
    for kind in (SERVICES, ADDRESSES):
        with running_etcd(options=["--quota-backend-bytes=8000000000"]) as etcd:
            asyncio.run(fill(etcd.url, kind, asked.keys))
            show(kind, asked.keys, compared(etcd.url, kind, asked.keys, asked.runs))


def compared(endpoint: str, kind: Kind, count: int, runs: int) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(runs):
        for way in WAYS:
            if way == "follow+offer" and kind is not SERVICES:
                continue
            command = [sys.executable, __file__, f"--keys={count}", "--one", way, endpoint, kind]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            if way not in best or found["cpu"] < best[way]["cpu"]:
                best[way] = found
    return best


def show(kind: Kind, count: int, best: dict[str, dict[str, float]]) -> None:
    for way, found in best.items():
        measured = way not in ("floor", "decode")
        wall = f"{found['wall']:.2f}" if measured else ""
        kept = f"{found['kept'] / count:.0f}" if measured else ""
        print(
            f"| {kind}: {way} | {found['cpu'] / count * 1e6:.2f}"
            f" | {found['cpu'] / best['floor']['cpu']:.2f} | {wall} | {kept} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
