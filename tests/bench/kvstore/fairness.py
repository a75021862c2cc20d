"""One peer's events while another peer's 200,000 keys are listed. `python .../fairness.py`.

Both in one process, as in an agent; each peer has an etcd of its own, and so has the writer a
process. Lag is from the put to the event. Stall is how late a task that wakes every millisecond
comes, beyond that millisecond. The references of the same run: no list at all, and the same lists
in a process beside it, which is what a machine as busy as that does to everybody.
"""

import argparse
import asyncio
import gc
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from clustermesh import keys
from kvstore.etcd import open_etcd
from kvstore.events import Put, Synced
from kvstore.watch import ending, follow
from tests.bench.kvstore import lists, watches
from tests.support.etcd import running_etcd

KIND = lists.SERVICES


class Gauge:
    """What was seen in one phase."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.stalls: list[float] = []

    def row(self, name: str) -> str:
        lags, stalls = sorted(self.lags), sorted(self.stalls)
        return (
            f"| {name} | {len(lags)} | {lags[len(lags) // 2] * 1e3:.1f}"
            f" | {lags[int(len(lags) * 0.99)] * 1e3:.1f}"
            f" | {stalls[int(len(stalls) * 0.99)] * 1e3:.1f} | {stalls[-1] * 1e3:.1f} |"
        )


class Node:
    """A process that follows two peers."""

    def __init__(self) -> None:
        self.gauge = Gauge()

    async def watch(self, endpoint: str) -> None:
        async with (
            open_etcd(watches.settings(endpoint)) as store,
            ending(follow(store, watches.PREFIX)) as slices,
        ):
            async for told in slices:
                now = time.time()
                for event in told:
                    if isinstance(event, Put):
                        self.gauge.lags.append(now - watches.DECODE(event.value).at)

    async def tick(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.gauge.stalls.append(time.perf_counter() - before - 0.001)

    async def list_again(self, endpoint: str, seconds: float) -> int:
        """Decode every value and keep it as bytes, as an agent does with addresses."""
        done, began, kept = 0, time.monotonic(), dict[str, bytes]()
        decode = keys.decoder(KIND, lists.ORIGIN)
        while time.monotonic() - began < seconds:
            async with (
                open_etcd(lists.settings(endpoint)) as store,
                ending(follow(store, lists.prefix(KIND))) as slices,
            ):
                async for told in slices:
                    if isinstance(told[-1], Synced):
                        break
                    for event in told:
                        decode(event.key, event.value)
                        kept[event.key] = event.value
            done += 1
        return done


async def list_beside(endpoint: str, count: int, seconds: float) -> None:
    command = [sys.executable, lists.__file__, f"--keys={count}"]
    command += ["--one", "follow+decode", endpoint, KIND]
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        beside = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        await beside.wait()


async def measure(busy: str, large: str, count: int, seconds: float) -> None:
    node = Node()
    command = [sys.executable, watches.__file__, "--write", busy, "1", "200"]
    longer = str(seconds * 20 + 60)  # than all phases, however busy the machine is: it is killed
    writing = await asyncio.create_subprocess_exec(*command, longer, stdout=subprocess.DEVNULL)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(node.watch(busy)), tasks.create_task(node.tick())]
        await asyncio.sleep(2)
        node.gauge = quiet = Gauge()
        await asyncio.sleep(seconds)
        node.gauge = beside = Gauge()
        await list_beside(large, count, seconds)
        node.gauge = loaded = Gauge()
        done = await node.list_again(large, seconds)
        for task in running:
            task.cancel()
    writing.kill()
    await writing.wait()
    print("| phase | events | lag p50 ms | lag p99 ms | stall p99 ms | stall max ms |")
    print("|---|---|---|---|---|---|")
    print(quiet.row("no list"))
    print(beside.row("lists in another process"))
    print(loaded.row(f"{done} lists of {count:,}"))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--keys", type=int, default=200_000)
    arguments.add_argument("--seconds", type=float, default=6)
    asked = arguments.parse_args()
    roomy = ["--quota-backend-bytes=8000000000"]
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with running_etcd() as busy, running_etcd(options=roomy) as large:
        asyncio.run(lists.fill(large.url, KIND, asked.keys))
        asyncio.run(measure(busy.url, large.url, asked.keys, asked.seconds))


if __name__ == "__main__":
    main()
