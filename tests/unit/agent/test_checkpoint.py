"""What is saved survives whatever happens to the process, and nothing else is made up."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import checkpoint
from agent.checkpoint import Checkpoint
from clustermesh.keys import Kind


def opened(directory: Path) -> Checkpoint:
    return Checkpoint(directory, interval=0.01, report=lambda _: None)


def files(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_what_was_put_is_loaded(tmp_path: Path) -> None:
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    record.put(Kind.SERVICES, "shop/cart", b"1")
    record.put(Kind.SERVICES, "shop/cart", b"2")
    record.put(Kind.NODES, "n1", b"n")
    record.delete(Kind.NODES, "n1")
    await saving.flush()
    saved = opened(tmp_path).load()["paris"]
    assert saved.cluster_id == 7
    assert saved.facts[Kind.SERVICES] == {"shop/cart": b"2"}
    assert saved.facts[Kind.NODES] == {}


async def test_addresses_and_identities_are_not_kept(tmp_path: Path) -> None:
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    record.put(Kind.IPS, "10.7.0.1", b"x")
    await saving.flush()
    assert opened(tmp_path).load()["paris"].facts == {}


async def test_what_a_full_list_does_not_repeat_is_gone(tmp_path: Path) -> None:
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    record.put(Kind.SERVICES, "shop/old", b"1")
    record.put(Kind.NODES, "n1", b"n")
    record.listing(Kind.SERVICES)
    record.put(Kind.SERVICES, "shop/new", b"2")
    await saving.flush()
    assert set(opened(tmp_path).load()["paris"].facts[Kind.SERVICES]) == {"shop/old", "shop/new"}
    record.listed(Kind.SERVICES)
    await saving.flush()
    saved = opened(tmp_path).load()["paris"]
    assert set(saved.facts[Kind.SERVICES]) == {"shop/new"}
    assert set(saved.facts[Kind.NODES]) == {"n1"}


async def test_a_cleared_cluster_leaves_no_file(tmp_path: Path) -> None:
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    await saving.flush()
    record.clear()
    await saving.flush()
    assert files(tmp_path) == []


async def test_the_task_writes_by_itself_and_once_more_at_the_end(tmp_path: Path) -> None:
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(saving.run())
        async with asyncio.timeout(20):
            while "paris.facts" not in files(tmp_path):  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.005)
        record.put(Kind.NODES, "n1", b"last word")
        task.cancel()
    assert opened(tmp_path).load()["paris"].facts[Kind.NODES] == {"n1": b"last word"}


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_torn_journal_loses_only_its_end(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    directory = tmp_path_factory.mktemp("torn")
    values = asyncio.run(_written(directory))
    path = directory / "paris.facts"
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    loaded = opened(directory).load()
    if "paris" in loaded:
        kept = loaded["paris"].facts.get(Kind.NODES, {})
        assert list(kept.items()) == list(values.items())[: len(kept)]
        assert asyncio.run(_appended(directory)) == {**kept, "later": b"x"}


async def _written(directory: Path) -> dict[str, bytes]:
    saving = opened(directory)
    record = saving.record("paris")
    record.begin(7)
    values = {f"n{number}": bytes([number]) for number in range(10)}
    for key, value in values.items():
        record.put(Kind.NODES, key, value)
    await saving.flush()
    return values


async def _appended(directory: Path) -> object:
    saving = opened(directory)
    saving.load()
    saving.record("paris").put(Kind.NODES, "later", b"x")
    await saving.flush()
    return opened(directory).load()["paris"].facts[Kind.NODES]


async def test_a_file_of_something_else_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "paris.facts").write_bytes(b"not ours at all, not ours at all")
    assert opened(tmp_path).load() == {}
    assert (tmp_path / "paris.unreadable").exists()


async def test_a_journal_does_not_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SLACK", 1000)
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    for number in range(200):
        record.put(Kind.NODES, "n1", b"%d" % number * 20)
        await saving.flush()
    assert (tmp_path / "paris.facts").stat().st_size < 2000
    assert opened(tmp_path).load()["paris"].facts[Kind.NODES] == {"n1": b"199" * 20}


async def test_a_disk_that_takes_nothing_is_named_and_tried_again(tmp_path: Path) -> None:
    told: list[str | None] = []
    directory = tmp_path / "gone"
    directory.mkdir()
    saving = Checkpoint(directory, interval=0.01, report=told.append)
    record = saving.record("paris")
    record.begin(7)
    directory.rmdir()
    await saving.flush()
    assert "No such file" in (told[-1] or "")
    directory.mkdir()
    record.put(Kind.NODES, "n1", b"x")
    await saving.flush()
    assert told[-1] is None
    assert opened(directory).load()["paris"].facts[Kind.NODES] == {"n1": b"x"}
