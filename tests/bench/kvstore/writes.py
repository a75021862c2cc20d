"""Writing 100,000 keys of 400 bytes, 128 a transaction. `python tests/bench/kvstore/writes.py`.

Each way in a process of its own, against an empty etcd. The floor is the same loop of transactions
on bare gRPC; "floor with leases" grants a lease for each thousand keys on the way, as every writer
of a mesh must. "publish" is a publisher with its leases and what it remembers of each key: compare
it with that.
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

from kvstore import wire
from kvstore._proto import etcd_pb2 as rpc
from kvstore.channel import Address, dial
from kvstore.client import PutOp
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd
from kvstore.publish import Publisher
from tests.support.etcd import running_etcd

VALUE = b"x" * 400
BATCH = 128


def key(at: int) -> str:
    return f"cilium/state/ip/v1/default/10.{at >> 16}.{at >> 8 & 255}.{at & 255}"


def settings(endpoint: str) -> EtcdConfig:
    return EtcdConfig.of(endpoint, qps=1e6)


async def floor(endpoint: str, count: int, *, leases: bool = False) -> None:
    link = await dial(Address(settings(endpoint).endpoints[0]), settings(endpoint))
    raw = link._channel.unary_unary(
        wire.TXN.path,
        request_serializer=rpc.TxnRequest.SerializeToString,
        response_deserializer=rpc.TxnResponse.FromString,
    )
    grant = link._channel.unary_unary(
        wire.GRANT.path,
        request_serializer=rpc.LeaseGrantRequest.SerializeToString,
        response_deserializer=rpc.LeaseGrantResponse.FromString,
    )
    lease = 0
    for start in range(0, count, BATCH):
        if leases and start // 1000 != (start - BATCH) // 1000:
            lease = (await grant(rpc.LeaseGrantRequest(TTL=900))).ID
        request = rpc.TxnRequest(
            success=[
                rpc.RequestOp(
                    request_put=rpc.PutRequest(key=key(at).encode(), value=VALUE, lease=lease)
                )
                for at in range(start, start + BATCH)
            ]
        )
        await raw(request)
    await link.close()


async def leased(endpoint: str, count: int) -> None:
    await floor(endpoint, count, leases=True)


async def commit(endpoint: str, count: int) -> None:
    async with open_etcd(settings(endpoint)) as store:
        for start in range(0, count, BATCH):
            await store.commit([PutOp(key(at), VALUE) for at in range(start, start + BATCH)])


async def publish(endpoint: str, count: int) -> None:
    async with open_etcd(settings(endpoint)) as store, asyncio.TaskGroup() as tasks:
        publisher = Publisher(store)
        running = tasks.create_task(publisher.run())
        for at in range(count):
            publisher.put(key(at), VALUE)
        await publisher.flushed()
        running.cancel()


WAYS: dict[str, Callable[[str, int], Awaitable[None]]] = {
    "floor": floor,
    "floor with leases": leased,
    "commit": commit,
    "publish": publish,
}


def measure(way: str, endpoint: str, count: int) -> None:
    gc.freeze()

    async def work() -> None:
        await WAYS[way](endpoint, count)

    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"cpu": cpu, "wall": wall}))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--keys", type=int, default=100_000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--one", nargs=2)
    asked = arguments.parse_args()
    count = asked.keys // BATCH * BATCH
    if asked.one:
        measure(*asked.one, count)
        return
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(asked.runs):
        for way, found in runs.items():
            with running_etcd(options=["--quota-backend-bytes=8000000000"]) as etcd:
                command = [sys.executable, __file__, f"--keys={count}", "--one", way, etcd.url]
                output = subprocess.run(command, check=True, capture_output=True).stdout
                found.append(json.loads(output))
    print(f"| {count:,} keys | keys/s | of the floor | CPU us/key |")
    print("|---|---|---|---|")
    walls = {way: statistics.median(run["wall"] for run in found) for way, found in runs.items()}
    for way, found in runs.items():
        cpu = statistics.median(run["cpu"] for run in found)
        print(
            f"| {way} | {count / walls[way]:,.0f} | {walls['floor'] / walls[way]:.2f}"
            f" | {cpu / count * 1e6:.1f} |"
        )


if __name__ == "__main__":
    main()
