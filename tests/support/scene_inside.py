"""A scene in a process of its own (in a network namespace, say), told what to do line by line.

``python -m tests.support.scene_inside URL SEED`` answers each line of its input with one line.
"""

import asyncio
import sys

from kvstore.config import EtcdConfig
from tests.support.promises import broken_promises
from tests.support.scene import Scene, history, under_traffic


async def answer(scene: Scene, config: EtcdConfig, line: str) -> str:
    match line:
        case "flow":
            await scene.flowing()
            return f"told {scene.told}"
        case "await interruption":
            await scene.until(lambda: bool(scene.reports))
            return scene.reports[-1]
        case "end":
            await scene.converge()
            broken = broken_promises(scene.record, [await history(config)])
            return f"synced {scene.synced}, broken promises: {broken}"
        case _:
            return f"not understood: {line}"


async def main(url: str, seed: int) -> None:
    config = EtcdConfig.of(
        url,
        keepalive_time=0.5,
        keepalive_timeout=0.5,
        dial_timeout=1.0,
        reconnect_ceiling=0.2,
        qps=10_000.0,
    )
    async with under_traffic(config, seed=seed) as scene:
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            print(await answer(scene, config, line), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
