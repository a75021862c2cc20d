"""When a cluster's data plane counts as silent, and when it is trusted again."""

import asyncio

import pytest

from agent.probes.prober import Prober, ProbeSettings, connect
from agent.probes.verdict import Limits, Reach, Verdict, sample
from tests.support.clock import virtual

LIMITS = Limits(failed=3, succeeded=2)


@pytest.mark.parametrize(
    ("rounds", "reach"),
    [
        ("", Reach.UNKNOWN),
        ("------", Reach.UNKNOWN),
        ("+", Reach.ANSWERS),
        ("+--", Reach.ANSWERS),
        ("+--+--", Reach.ANSWERS),
        ("+---", Reach.SILENT),
        ("+---+", Reach.SILENT),
        ("+---+-+", Reach.SILENT),
        ("+---++", Reach.ANSWERS),
        ("+---++--", Reach.ANSWERS),
        ("---+---", Reach.SILENT),
    ],
)
def test_verdicts(rounds: str, reach: Reach) -> None:
    verdict = Verdict()
    for sign in rounds:
        verdict = verdict.after(answered=sign == "+", limits=LIMITS)
    assert verdict.reach is reach


def test_every_node_is_asked_in_its_turn() -> None:
    names = [str(number) for number in range(7)]
    assert sample(names, 3, 0) == ["0", "1", "2"]
    asked = {name for turn in range(3) for name in sample(names, 3, turn)}
    assert asked == set(names)
    assert sample(["a"], 3, 5) == ["a"]


class Mesh:
    """Clusters that answer or do not; the time of each question."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.asked: list[tuple[float, str]] = []
        self.told: list[tuple[float, frozenset[str]]] = []
        self.prober = Prober("me", ProbeSettings(), told=self._hear, connect=self._answer)

    def _hear(self, silent: frozenset[str]) -> None:
        self.told.append((asyncio.get_running_loop().time(), silent))

    async def _answer(self, address: str, port: int, limit: float) -> float | None:
        assert port == 4240
        self.asked.append((asyncio.get_running_loop().time(), address))
        if address in self.dead:
            await asyncio.sleep(limit)
            return None
        await asyncio.sleep(0.001)
        return 0.001

    def nodes(self, **clusters: int) -> dict[str, list[str]]:
        return {
            cluster: [f"{cluster}-{at}" for at in range(count)]
            for cluster, count in clusters.items()
        }


@virtual
async def test_a_dead_cluster_is_told_within_five_seconds_and_comes_back() -> None:
    mesh = Mesh()
    loop = asyncio.get_running_loop()
    mesh.prober.aim(mesh.nodes(paris=9, lyon=2))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(10.3)
        assert mesh.told == []
        died = loop.time()
        mesh.dead = {f"paris-{at}" for at in range(9)}
        await asyncio.sleep(6)
        when, silent = mesh.told[-1]
        assert silent == {"paris"}
        assert when - died < 5
        assert "none of its nodes answers" in mesh.prober.trouble()[0]
        mesh.dead = set()
        await asyncio.sleep(5)
        assert mesh.told[-1][1] == frozenset()
        lyon, paris = mesh.prober.statuses()
        assert (lyon.reach, lyon.loss, lyon.nodes) == (Reach.ANSWERS, 0.0, 2)
        assert 0 < paris.loss < 1
        task.cancel()


@virtual
async def test_a_question_is_answered_at_once_and_changes_no_verdict() -> None:
    mesh = Mesh()
    mesh.prober.aim(mesh.nodes(paris=9))
    mesh.dead = {"paris-0"}
    found = await mesh.prober.now("paris")
    assert len(found) == 8
    assert all(it.rtt == pytest.approx(0.001) for it in found if it.address not in mesh.dead)
    assert {it.rtt for it in found if it.address in mesh.dead} <= {None}
    assert await mesh.prober.now("nowhere") == []
    assert mesh.told == []


@virtual
async def test_it_is_told_as_soon_in_a_mesh_of_fifty() -> None:
    mesh = Mesh()
    loop = asyncio.get_running_loop()
    mesh.prober.aim(mesh.nodes(paris=9, **{f"c{number}": 3 for number in range(49)}))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(20)
        for wait in (0.0, 0.9, 1.7):  # whatever moment of a round it is
            await asyncio.sleep(wait)
            died = loop.time()
            mesh.dead = {f"paris-{at}" for at in range(9)}
            await asyncio.sleep(6)
            when, silent = mesh.told[-1]
            assert silent == {"paris"}
            assert when - died < 5
            mesh.dead = set()
            await asyncio.sleep(20)
            assert mesh.told[-1][1] == frozenset()
        task.cancel()


@virtual
async def test_a_cluster_that_answers_is_asked_by_one_connection() -> None:
    mesh = Mesh()
    mesh.prober.aim(mesh.nodes(paris=9))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(60)
        assert len([when for when, _ in mesh.asked if when > 5]) <= 56
        assert mesh.prober.statuses()[0].rtt is not None
        task.cancel()


@virtual
async def test_some_dead_nodes_condemn_no_cluster() -> None:
    mesh = Mesh()
    mesh.prober.aim(mesh.nodes(paris=9))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(5)
        mesh.dead = {address for _, address in mesh.asked}  # just those that are asked
        assert len(mesh.dead) == 3
        await asyncio.sleep(30)
        assert mesh.told == []
        task.cancel()


@virtual
async def test_a_cluster_that_is_gone_is_asked_no_more() -> None:
    mesh = Mesh()
    mesh.prober.aim(mesh.nodes(paris=1))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(3)
        mesh.dead = {"paris-0"}
        await asyncio.sleep(6)
        mesh.prober.aim({})
        await asyncio.sleep(1)
        assert mesh.told[-1][1] == frozenset()
        count = len(mesh.asked)
        await asyncio.sleep(10)
        assert len(mesh.asked) == count
        assert mesh.prober.statuses() == []
        task.cancel()


@virtual
async def test_many_clusters_are_asked_less_often() -> None:
    mesh = Mesh()
    mesh.prober.aim(mesh.nodes(**{f"c{number}": 3 for number in range(100)}))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(100)
        late = [when for when, _ in mesh.asked if when > 20]
        assert len(late) / 80 < 25
        task.cancel()


async def test_a_refusal_is_an_answer_and_silence_is_none() -> None:
    assert await connect("127.0.0.1", 1, 5) is not None
    assert await connect("::1", 1, 5) is not None
    assert await connect("255.255.255.255", 1, 5) is None
