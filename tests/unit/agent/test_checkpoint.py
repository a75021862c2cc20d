"""What is saved survives whatever happens to the process, and nothing else is made up."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
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


async def test_only_its_owner_reads_what_was_saved(tmp_path: Path) -> None:
    saving = opened(tmp_path / "remotes")
    saving.load()
    record = saving.record("paris")
    for begin in (True, False):  # written anew, and appended to
        if begin:
            record.begin(7)
        record.put(Kind.NODES, "n1", b"n")
        await saving.flush()
        assert (tmp_path / "remotes" / "paris.facts").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "remotes").stat().st_mode & 0o777 == 0o700


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


@contextmanager
def a_full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes; what fits of a write is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_tears_nothing(tmp_path: Path) -> None:
    told: list[str | None] = []
    saving = Checkpoint(tmp_path, interval=0.01, report=told.append)
    record = saving.record("paris")
    record.begin(7)
    record.put(Kind.NODES, "old", b"o")
    await saving.flush()
    for number in range(20):
        record.put(Kind.NODES, f"n{number}", b"x" * 200)
    with a_full_disk(1000):
        await saving.flush()
        assert "File too large" in (told[-1] or "")
        assert (tmp_path / "paris.facts").stat().st_size == 1000, "a torn record at the end"
    await saving.flush()
    record.delete(Kind.NODES, "old")
    record.put(Kind.NODES, "new", b"n")
    await saving.flush()
    assert told[-1] is None
    expected = {f"n{number}" for number in range(20)} | {"new"}
    assert set(opened(tmp_path).load()["paris"].facts[Kind.NODES]) == expected


async def test_a_journal_that_cannot_be_shortened_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SLACK", 0)
    told: list[str | None] = []
    saving = Checkpoint(tmp_path, interval=0.01, report=told.append)
    record = saving.record("paris")
    record.begin(7)
    record.listing(Kind.NODES)
    for name in ("n1", "n2"):
        record.put(Kind.NODES, name, b"x" * 100)
    await saving.flush()
    (tmp_path / "paris.new").mkdir()  # in the way of the shorter one
    record.listed(Kind.NODES)
    record.listing(Kind.NODES)
    for _ in range(3):
        record.put(Kind.NODES, "n1", b"y" * 100)
    await saving.flush()
    assert "paris.facts grows" in (told[-1] or "")
    assert set(opened(tmp_path).load()["paris"].facts[Kind.NODES]) == {"n1", "n2"}


async def test_a_gap_forgets_the_cluster_until_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "PENDING", 1000)
    told: list[str | None] = []
    saving = Checkpoint(tmp_path, interval=0.01, report=told.append)
    record = saving.record("paris")
    record.begin(7)
    record.put(Kind.NODES, "n1", b"1")
    await saving.flush()
    record.put(Kind.NODES, "n1", b"2" * 2000)
    with a_full_disk(500):
        await saving.flush()
    record.put(Kind.NODES, "n2", b"after the gap")
    await saving.flush()
    assert "forget the facts of paris" in (told[-1] or "")
    assert opened(tmp_path).load() == {}, "rather nothing than what is not true any more"
    record.begin(7)
    record.put(Kind.NODES, "n1", b"3")
    await saving.flush()
    assert told[-1] is None
    assert opened(tmp_path).load()["paris"].facts[Kind.NODES] == {"n1": b"3"}


async def test_a_rewrite_in_the_middle_of_a_list_keeps_what_the_list_has_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SLACK", 0)
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    for name in ("kept", "gone"):
        record.put(Kind.SERVICES, name, b"1" * 100)
    await saving.flush()
    record.listing(Kind.SERVICES)
    record.put(Kind.SERVICES, "kept", b"2" * 400)
    await saving.flush()
    rewritten = (tmp_path / "paris.facts").stat().st_size
    assert rewritten < 800, "what was put first is not in it any more"
    record.put(Kind.SERVICES, "late", b"3")
    record.listed(Kind.SERVICES)
    await saving.flush()
    assert set(opened(tmp_path).load()["paris"].facts[Kind.SERVICES]) == {"kept", "late"}


async def test_a_restart_does_not_rewrite_what_is_short_already(tmp_path: Path) -> None:
    saving = opened(tmp_path)
    record = saving.record("paris")
    record.begin(7)
    record.put(Kind.NODES, "n1", b"x" * 2 * checkpoint.SLACK)
    await saving.flush()
    inode = (tmp_path / "paris.facts").stat().st_ino
    again = opened(tmp_path)
    again.load()
    again.record("paris").put(Kind.NODES, "n2", b"x")
    await again.flush()
    assert (tmp_path / "paris.facts").stat().st_ino == inode


def test_without_a_directory_there_is_nothing_to_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert opened(tmp_path / "file" / "state").load() == {}


def test_one_journal_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    asyncio.run(_written(tmp_path))
    (tmp_path / "lyon.facts").mkdir()
    assert set(opened(tmp_path).load()) == {"paris"}
