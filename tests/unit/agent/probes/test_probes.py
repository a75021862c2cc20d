"""When a cluster's data plane counts as silent, and when it is trusted again."""

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.probes.dialer import Answered, Dialer
from agent.probes.prober import Prober, ProbeSettings
from agent.probes.targets import Targets
from agent.probes.verdict import Limits, Reach, Verdict
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


def targets(*names: str, offset: int = 0) -> Targets:
    made = Targets(offset)
    for name in names:
        made.put(name, f"at {name}")
    return made


def test_every_node_is_asked_in_its_turn() -> None:
    seven = targets(*"abcdefg")
    assert seven.sample(3, 0) == ["at a", "at b", "at c"]
    assert {name for turn in range(3) for name in seven.sample(3, turn)} == set(seven.sample(7, 0))
    assert targets("a").sample(3, 5) == ["at a"]


def test_not_everybody_asks_the_same_first() -> None:
    firsts = {targets(*"abcdefg", offset=number).sample(1, 0)[0] for number in range(70, 77)}
    assert len(firsts) == 7


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "1", "2"]))))
def test_only_those_that_are_there_are_asked(puts: list[tuple[str, str]]) -> None:
    made, there = Targets(0), dict[str, str]()
    for name, address in puts:
        made.put(name, address)
        there[name] = address
    assert sorted(made.sample(9, 0)) == sorted(filter(None, there.values()))
    assert len(made) == len(list(filter(None, there.values())))


class Mesh:
    """Clusters that answer or do not; the time of each question."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.asked: list[tuple[float, str]] = []
        self.told: list[tuple[float, frozenset[str]]] = []
        self.settings = ProbeSettings()
        self.prober = Prober("me", self.settings, told=self._hear, ask=self._answer)

    def _hear(self, silent: frozenset[str]) -> None:
        self.told.append((asyncio.get_running_loop().time(), silent))

    def _answer(self, address: str, answered: Answered) -> None:
        loop = asyncio.get_running_loop()
        self.asked.append((loop.time(), address))
        if address in self.dead:
            loop.call_later(self.settings.timeout, answered, None)
        else:
            loop.call_later(0.001, answered, 0.001)

    def aim(self, **clusters: int) -> None:
        for cluster, count in clusters.items():
            for at in range(count):
                self.prober.aim(cluster, f"n{at}", f"{cluster}-{at}")


@virtual
async def test_a_dead_cluster_is_told_within_five_seconds_and_comes_back() -> None:
    mesh = Mesh()
    loop = asyncio.get_running_loop()
    mesh.aim(paris=9, lyon=2)
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
    mesh.aim(paris=9)
    mesh.dead = {"paris-0"}
    found = await mesh.prober.now("paris")
    assert len(found) == 8
    assert all(it.rtt == pytest.approx(0.001) for it in found if it.address not in mesh.dead)
    assert {it.rtt for it in found if it.address in mesh.dead} <= {None}
    assert await mesh.prober.now("nowhere") == []
    assert mesh.told == []


@virtual
async def test_it_is_told_as_soon_in_the_largest_mesh() -> None:
    mesh = Mesh()
    loop = asyncio.get_running_loop()
    mesh.aim(paris=9, **{f"c{number}": 1 for number in range(510)})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(5)
        for wait in (0.0, 0.9, 1.7):  # whatever moment of a round it is
            await asyncio.sleep(wait)
            died = loop.time()
            mesh.dead = {f"paris-{at}" for at in range(9)}
            await asyncio.sleep(5)
            when, silent = mesh.told[-1]
            assert silent == {"paris"}
            assert when - died < 4.56
            mesh.dead = set()
            await asyncio.sleep(3)
            assert mesh.told[-1][1] == frozenset()
        task.cancel()


@virtual
async def test_a_whole_mesh_that_falls_silent_is_told_as_soon_and_costs_little_then() -> None:
    mesh = Mesh()
    loop = asyncio.get_running_loop()
    mesh.aim(**{f"c{number}": 3 for number in range(250)})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(5)
        died = loop.time()
        mesh.dead = {f"c{number}-{at}" for number in range(250) for at in range(3)}
        await asyncio.sleep(5)
        when, silent = mesh.told[-1]
        assert len(silent) == 250
        assert when - died < 4.56
        await asyncio.sleep(40)  # until each has found its place in the longer period
        before = len(mesh.asked)
        await asyncio.sleep(75)
        assert (len(mesh.asked) - before) / 75 == pytest.approx(mesh.settings.rate, rel=0.1)
        mesh.dead = set()
        await asyncio.sleep(40)
        assert mesh.told[-1][1] == frozenset()
        task.cancel()


@virtual
async def test_a_cluster_that_answers_is_asked_by_one_connection() -> None:
    mesh = Mesh()
    mesh.aim(paris=9)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(60)
        assert len([when for when, _ in mesh.asked if when > 5]) <= 56
        assert mesh.prober.statuses()[0].rtt is not None
        task.cancel()


@virtual
async def test_some_dead_nodes_condemn_no_cluster() -> None:
    mesh = Mesh()
    mesh.aim(paris=9)
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
    mesh.aim(paris=1)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(3)
        mesh.dead = {"paris-0"}
        await asyncio.sleep(6)
        mesh.prober.aim("paris", "n0", "")
        await asyncio.sleep(1)
        assert mesh.told[-1][1] == frozenset()
        count = len(mesh.asked)
        await asyncio.sleep(10)
        assert len(mesh.asked) == count
        assert mesh.prober.statuses() == []
        task.cancel()


@virtual
async def test_clusters_of_a_large_mesh_are_asked_less_often_and_not_all_together() -> None:
    mesh = Mesh()
    mesh.aim(**{f"c{number}": 3 for number in range(250)})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mesh.prober.run())
        await asyncio.sleep(24)
        late = [when for when, _ in mesh.asked if when > 4]
        assert len(late) / 20 == pytest.approx(125, rel=0.02)
        moments = Counter(round(when, 1) for when in late)
        assert max(moments.values()) < 90
        assert len(moments) == pytest.approx(2 * 20, abs=2), "to wake up for each costs more"
        task.cancel()


async def test_a_refusal_is_an_answer_and_silence_is_none() -> None:
    answers: asyncio.Queue[tuple[str, float | None]] = asyncio.Queue()
    addresses = ("127.0.0.1", "::1", "255.255.255.255", "10.255.255.1 or so")
    with Dialer(1, 5) as dialer:
        for address in addresses:
            dialer.ask(address, lambda rtt, to=address: answers.put_nowait((to, rtt)))  # type: ignore[misc]
        assert answers.empty()
        found = dict([await answers.get() for _ in addresses])
    assert {address for address, rtt in found.items() if rtt is not None} == {"127.0.0.1", "::1"}


async def test_an_open_port_answers_and_a_full_one_does_not() -> None:
    answers: asyncio.Queue[float | None] = asyncio.Queue()
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        with Dialer(server.getsockname()[1], 0.3) as dialer:
            dialer.ask("127.0.0.1", answers.put_nowait)
            assert await answers.get() is not None
            for _ in range(3):  # they are not taken: there is no room for another
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(server.getsockname())
            dialer.ask("127.0.0.1", answers.put_nowait)
            dialer.ask("127.0.0.1", answers.put_nowait)
            assert [await answers.get(), await answers.get()] == [None, None]
