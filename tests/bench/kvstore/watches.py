"""Following changes: in batches, and one by one. `python tests/bench/kvstore/watches.py`.

The writer is a process of its own. CPU is user plus system of the follower's process, for each
event, with every value decoded from its JSON. The floor is the same stream of replies as bytes that
nobody decodes. Lag is from before the put in the writer to the event in the follower's hands, on
one clock.
"""

import argparse
import asyncio
import gc
import json
import statistics
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
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd
from kvstore.events import Put
from kvstore.watch import ending, follow
from tests.support.etcd import running_etcd

PREFIX = "cilium/state/ip/v1/default/"
PAD = "x" * 330


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What a consumer decodes of such a value: an address, and when it was written."""

    at: float
    pad: str


DECODE = msgspec.json.Decoder(Fact).decode


def settings(endpoint: str) -> EtcdConfig:
    return EtcdConfig.of(endpoint, qps=1e6)


def value() -> bytes:
    return b'{"at":%.7f,"pad":"%s"}' % (time.time(), PAD.encode())


async def write(endpoint: str, batch: int, rate: float, seconds: float) -> None:
    """Transactions of ``batch`` keys, ``rate`` a second (0: as fast as they are taken)."""
    async with open_etcd(settings(endpoint)) as store:
        await store.connected(beyond=0)
        print("writing", flush=True)
        began, done = time.monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            while (now := time.monotonic() - began) < seconds:
                ops = [
                    PutOp(f"{PREFIX}{(done * batch + n) % 20_000}", value()) for n in range(batch)
                ]
                done += 1
                if rate:
                    tasks.create_task(store.commit(ops))
                    await asyncio.sleep(max(0, done / rate - now))
                else:
                    await store.commit(ops)
        await store.commit([PutOp(f"{PREFIX}end", value())])


async def floor(endpoint: str, lags: list[float]) -> int:
    link = await dial(Address(settings(endpoint).endpoints[0]), settings(endpoint))
    call = link._channel.stream_stream(
        wire.WATCH.path, request_serializer=rpc.WatchRequest.SerializeToString
    )()
    end = (PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)).encode()
    create = rpc.WatchCreateRequest(key=PREFIX.encode(), range_end=end)
    await call.write(rpc.WatchRequest(create_request=create))
    print("ready", flush=True)
    events = 0
    while True:
        raw = await call.read()
        events += raw.count(PAD.encode())
        if f"{PREFIX}end".encode() in raw:
            call.cancel()
            await link.close()
            return events


async def followed(endpoint: str, lags: list[float]) -> int:
    events = 0
    async with open_etcd(settings(endpoint)) as store, ending(follow(store, PREFIX)) as slices:
        async for told in slices:
            if not events:
                print("ready", flush=True)
            now = time.time()
            for event in told:
                if isinstance(event, Put):
                    fact = DECODE(event.value)
                    lags.append(now - fact.at)
                    if event.key.endswith("end"):
                        return events
                events += 1
    raise AssertionError


WAYS: dict[str, Callable[[str, list[float]], Awaitable[int]]] = {
    "floor": floor,
    "follow": followed,
}


def measure(way: str, endpoint: str) -> None:
    gc.freeze()
    lags: list[float] = []

    async def work() -> tuple[int, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        events = await WAYS[way](endpoint, lags)
        return events, time.process_time() - cpu, time.perf_counter() - wall

    events, cpu, wall = asyncio.run(work())
    lags.sort()
    found = {"events": events, "cpu": cpu, "wall": wall}
    if lags:
        found |= {"p50": lags[len(lags) // 2], "p99": lags[int(len(lags) * 0.99)]}
    print(json.dumps(found))


def race(way: str, endpoint: str, *how: object) -> dict[str, float]:
    """A follower and a writer, each a process."""
    me = [sys.executable, __file__]
    with subprocess.Popen([*me, "--one", way, endpoint], stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"ready\n"
        subprocess.run([*me, "--write", endpoint, *map(str, how)], check=True, capture_output=True)
        found: dict[str, float] = json.loads(follower.stdout.readline())
    return found


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--one", nargs=2)
    arguments.add_argument("--write", nargs=4)
    asked = arguments.parse_args()
    if asked.one:
        measure(*asked.one)
        return
    if asked.write:
        endpoint, batch, rate, seconds = asked.write
        asyncio.run(write(endpoint, int(batch), float(rate), float(seconds)))
        return
    print("| writer | way | events/s | CPU us/event | of a core | lag p50 ms | lag p99 ms |")
    print("|---|---|---|---|---|---|---|")
    for name, batch, rate in (
        ("128 keys a revision", 128, 0.0),
        ("2,000 single puts/s", 1, 2000.0),
        ("200 single puts/s", 1, 200.0),
    ):
        for way in WAYS:
            runs = []
            for _ in range(asked.runs):
                with running_etcd(options=["--quota-backend-bytes=8000000000"]) as etcd:
                    runs.append(race(way, etcd.url, batch, rate, asked.seconds))
            found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            lag = [f"{found[p] * 1e3:.2f}" if p in found else "" for p in ("p50", "p99")]
            print(
                f"| {name} | {way} | {found['events'] / found['wall']:,.0f}"
                f" | {found['cpu'] / found['events'] * 1e6:.1f}"
                f" | {found['cpu'] / found['wall']:.0%}"
                f" | {lag[0]} | {lag[1]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
