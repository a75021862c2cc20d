"""The probe is put again and again, and only while what is published is true."""

import asyncio

from clustermesh.apiserver.beacon import Beacon
from clustermesh.propagation import decode
from tests.support.clock import virtual


class Output:
    def __init__(self) -> None:
        self.puts: list[tuple[str, bytes]] = []

    def put(self, key: str, value: bytes) -> None:
        self.puts.append((key, value))


@virtual
async def test_the_first_comes_after_an_interval_and_each_is_numbered():
    output, alive = Output(), asyncio.Event()
    beacon = Beacon(output, cluster="paris", interval=10, now=lambda: 5)

    async def wait() -> None:
        await alive.wait()

    task = asyncio.create_task(beacon.run(wait))
    await asyncio.sleep(25)
    assert output.puts == []
    alive.set()
    await asyncio.sleep(25)
    task.cancel()
    assert {key for key, _ in output.puts} == {"cilium/state/clustermesh-probe/v1/paris/latest"}
    probes = [decode(value) for _, value in output.puts]
    assert [probe.seq for probe in probes] == list(range(1, len(probes) + 1))
    assert len(probes) == 3
    assert len({probe.run for probe in probes}) == 1
    assert all(probe.sent == 5 for probe in probes)


@virtual
async def test_another_life_is_told_apart():
    runs = set()
    for _ in range(2):
        output = Output()
        task = asyncio.create_task(
            Beacon(output, cluster="paris", interval=1).run(lambda: asyncio.sleep(0))
        )
        await asyncio.sleep(1.5)
        task.cancel()
        runs.add(decode(output.puts[0][1]).run)
    assert len(runs) == 2
