"""What happens to an etcd happens to no fact: every fault by name, with a seed."""

import asyncio
import sys
from collections.abc import Iterator

import pytest

from tests.support.etcd import BINARIES, Etcd, running_etcd, running_members
from tests.support.netns import namespace
from tests.support.proxy import proxy_to
from tests.support.scene import history, judge, under_traffic

ALIVE = {"keepalive_time": 0.5, "keepalive_timeout": 0.5}


@pytest.fixture(params=sorted(BINARIES))
def etcd(request: pytest.FixtureRequest) -> Iterator[Etcd]:
    with running_etcd(BINARIES[request.param]) as etcd:
        yield etcd


@pytest.fixture
def etcd34() -> Iterator[Etcd]:
    with running_etcd() as etcd:
        yield etcd


async def test_killed_and_started_again(etcd: Etcd) -> None:
    async with under_traffic(etcd.config(), seed=1) as scene:
        for _ in range(2):
            etcd.kill()
            await scene.interrupted()
            etcd.start()
            await scene.flowing()
        await scene.converge()
        assert scene.synced == 1, "resumed, not listed again"
    await judge(scene, history(etcd.config()))


async def test_stopped_for_longer_than_the_keepalive(etcd34: Etcd) -> None:
    async with under_traffic(etcd34.config(**ALIVE), seed=2) as scene:
        etcd34.pause()
        await scene.interrupted()
        await asyncio.sleep(1)
        etcd34.resume()
        await scene.flowing()
        await scene.converge()
        assert scene.synced == 1
    await judge(scene, history(etcd34.config()))


async def test_compacted_while_the_follower_was_away(etcd34: Etcd) -> None:
    async with proxy_to(etcd34.port) as proxy:
        away = etcd34.config()
        away = type(away).of(proxy.url, reconnect_ceiling=0.2, qps=10_000.0)
        async with under_traffic(away, seed=3, writer=etcd34.config()) as scene:
            proxy.cut()
            await scene.interrupted()
            await asyncio.sleep(0.5)
            before = await history(etcd34.config())
            etcd34.ctl("compact", str(before.until))
            proxy.heal()
            await scene.flowing()
            await scene.converge()
            assert scene.synced >= 2, "the past was lost, so everything was listed again"
            assert any("been compacted" in sentence for sentence in scene.reports)
    after = await history(etcd34.config(), after=before.until)
    before.changes += after.changes
    before.until = after.until
    await judge(scene, before)


async def test_defragmented_under_traffic(etcd34: Etcd) -> None:
    async with under_traffic(etcd34.config(), seed=4) as scene:
        for _ in range(3):
            await asyncio.to_thread(etcd34.ctl, "defrag")
            await scene.flowing()
        await scene.converge()
    await judge(scene, history(etcd34.config()))


async def test_restored_from_a_backup_that_has_caught_up(etcd: Etcd) -> None:
    async with under_traffic(etcd.config(), seed=5) as scene:
        await asyncio.to_thread(etcd.backup, etcd.folder / "backup")
        await scene.flowing(300)
        await scene.hush()
        first = await history(etcd.config())
        etcd.restore(etcd.folder / "backup")
        etcd.start()
        scene.writing.set()
        await scene.flowing(600)
        await scene.converge()
        assert scene.synced >= 2, "another past: everything was listed again"
    second = await history(etcd.config())
    assert second.until > first.until, "its revisions have caught up"
    await judge(scene, first, second)


async def test_wiped_and_started_under_the_same_id(etcd34: Etcd) -> None:
    async with under_traffic(etcd34.config(), seed=6) as scene:
        await scene.hush()
        first = await history(etcd34.config())
        cluster_id = scene.store.cluster_id
        etcd34.wipe()
        etcd34.start()
        scene.writing.set()
        await scene.flowing(600)
        await scene.converge()
        assert scene.store.cluster_id == cluster_id
        assert scene.synced >= 2
    await judge(scene, first, history(etcd34.config()))


async def test_replaced_by_another_etcd_on_the_same_port(etcd34: Etcd) -> None:
    async with under_traffic(etcd34.config(), seed=7) as scene:
        await scene.hush()
        first = await history(etcd34.config())
        cluster_id = scene.store.cluster_id
        etcd34.wipe()
        etcd34.options.append("--initial-cluster-token=another")
        etcd34.start()
        scene.writing.set()
        await scene.flowing(600)
        await scene.converge()
        assert scene.store.cluster_id != cluster_id
        assert scene.synced >= 2
    await judge(scene, first, history(etcd34.config()))


async def test_full_quota_stops_writers_but_no_reader() -> None:
    with running_etcd(options=["--quota-backend-bytes=1000000"]) as etcd:
        async with under_traffic(etcd.config(), seed=8) as scene:
            scene.value_size = 2_000
            await scene.until(lambda: any("space exceeded" in one for one in scene.refusals))
            before = await history(etcd.config())
            etcd.ctl("compact", str(before.until))
            etcd.ctl("defrag")
            etcd.ctl("alarm", "disarm")
            await scene.flowing(20)
            await scene.converge()
        after = await history(etcd.config(), after=before.until)
        before.changes += after.changes
        before.until = after.until
        await judge(scene, before)


async def test_three_members_killed_in_turn() -> None:
    with running_members(3) as members:
        urls = [member.url for member in members]
        config = type(members[0].config()).of(
            *urls, reconnect_ceiling=0.2, dial_timeout=5.0, request_timeout=5.0, qps=10_000.0
        )
        async with under_traffic(config, seed=9) as scene:
            for member in members:
                member.kill()
                await asyncio.sleep(0.3)
                await scene.flowing()
                member.start()
                await member.ready()
                await scene.flowing()
            await scene.converge()
            assert scene.synced == 1, "another member continues the same history"
        await judge(scene, history(config))


async def test_cut_off_without_a_word() -> None:
    """Packets vanish, as in a network that is split: nobody says that a connection is closed."""
    with namespace("cut") as inside, running_etcd(launcher=inside.launcher) as etcd:
        command = [*inside.launcher, sys.executable, "-m", "tests.support.scene_inside"]
        scene = await asyncio.create_subprocess_exec(
            *command, etcd.url, "10", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )

        async def ask(line: str) -> str:
            scene.stdin.write(f"{line}\n".encode())
            async with asyncio.timeout(40):
                return (await scene.stdout.readline()).decode().strip()

        try:
            assert (await ask("flow")).startswith("told ")
            inside.cut(etcd.port)
            assert "ping timeout" in await ask("await interruption")
            inside.mend()
            assert (await ask("flow")).startswith("told ")
            assert await ask("end") == "synced 1, broken promises: []"
        finally:
            scene.stdin.close()
            async with asyncio.timeout(20):
                await scene.wait()
