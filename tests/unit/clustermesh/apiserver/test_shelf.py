"""The etcd as an apiserver shows it."""

import asyncio

import msgspec
import pytest

from clustermesh.apiserver import shelf
from clustermesh.http import Refused
from clustermesh.kept import End, Kept, Line
from kvstore.client import DeleteOp, PutOp, Unavailable
from kvstore.memory import MemoryStore


async def told(store: object, **query: str) -> list[Line]:
    answer = shelf.reads(store)["/v1/kvstore"](query)
    return [msgspec.json.decode(line, type=Line) async for line in answer]


async def store_with(count: int) -> MemoryStore:
    store = MemoryStore()
    await store.commit([PutOp(f"cilium/state/x/{n:03}", b"\x00\xff") for n in range(count)])
    return store


async def test_keys_come_one_a_line_and_the_end_says_that_it_is_one():
    *entries, end = await told(await store_with(3), prefix="cilium/state/")
    assert [it.key[-3:] for it in entries] == ["000", "001", "002"]
    assert entries[0].value == b"\x00\xff"
    assert end == End(revision=entries[0].revision)


async def test_a_limit_is_told():
    *entries, end = await told(await store_with(5), prefix="cilium/", limit="2")
    assert len(entries) == 2
    assert end.cut


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"prefix": ""},
        {"prefix": "/registry/secrets/"},
        {"prefix": "cilium"},
        {"prefix": "cilium/", "limit": "0"},
        {"prefix": "cilium/", "limit": "x"},
        {"prefix": "cilium/", "more": "1"},
    ],
)
async def test_other_trees_and_odd_questions_are_refused(query: dict[str, str]):
    for path in ("/v1/kvstore", "/v1/kvstore/watch"):
        if path.endswith("watch") and "limit" in query:
            continue
        with pytest.raises(Refused):
            shelf.reads(MemoryStore())[path](query)


async def test_an_etcd_that_does_not_answer_is_told_in_the_last_line():
    class Dead(MemoryStore):
        async def pages(self, _):
            raise Unavailable("connection refused")
            yield

    (end,) = await told(Dead(), prefix="cilium/")
    assert end.error == "connection refused"


async def test_changes_are_watched():
    store = await store_with(1)
    lines = shelf.reads(store)["/v1/kvstore/watch"]({"prefix": "cilium/"})
    seen: list[Line] = []

    async def follow() -> None:
        async for line in lines:
            seen.extend([msgspec.json.decode(line, type=Line)] if line.strip() else [])

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    await store.commit([PutOp("cilium/state/x/new", b"1")])
    await store.commit([DeleteOp("cilium/state/x/000")])
    await asyncio.sleep(0.1)
    task.cancel()
    assert [(it.key, it.value) for it in seen if isinstance(it, Kept)] == [
        ("cilium/state/x/new", b"1"),
        ("cilium/state/x/000", None),
    ]
