"""The users file is read as a whole, and a bad one changes nothing."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from clustermesh.apiserver.userfile import Peer, follow, parse, read
from clustermesh.process import Fault

PATH = Path("users.yaml")


def test_the_file_of_the_chart() -> None:
    content = b"users:\n- name: remote-paris\n  role: remote\n- name: remote-rome\n"
    assert parse(content, path=PATH) == (Peer("remote-paris"), Peer("remote-rome"))


@pytest.mark.parametrize("content", [b"", b"users:\n", b"users: []\n"])
def test_nobody(content: bytes) -> None:
    assert parse(content, path=PATH) == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"users: [{name: remote-a}, {name: remote-a}]",
            r"\$.users\[1\].name: 'remote-a' is there",
        ),
        (b"users: [{name: remote-a, role: root}]", r"\$.users\[0\].role: Expected"),
        (b"users: [{role: remote}]", r"\$.users\[0\]: Object missing required field `name`"),
        (b"users: [{name: ../a}]", r"\$.users\[0\].name: Expected"),
        (b"- a", r"users.yaml: \$: Expected `object`"),
        (b"users: [", "users.yaml: expected YAML: "),
    ],
)
def test_a_bad_file_is_named_with_its_field(content: bytes, reason: str) -> None:
    with pytest.raises(Fault, match=reason):
        parse(content, path=PATH)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="cannot read the users file"):
        read(tmp_path / "none")


async def test_changes_are_applied_and_bad_ones_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    applied: list[list[str]] = []
    reports: asyncio.Queue[str | None] = asyncio.Queue()

    async def apply(users: Sequence[Peer]) -> None:
        applied.append([user.name for user in users])

    async def told(part: str | None) -> None:
        while (report := await reports.get()) != part:
            if part is not None and report is not None and part in report:
                return

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(
            follow(path, apply, recheck=0.01, report=reports.put_nowait), name="follow"
        )
        await told("cannot read the users file")
        path.write_text("users: [{name: remote-a}]")
        await told(None)
        path.write_text("users: [")
        await told("expected YAML")
        path.write_text("users: []")
        await told(None)
        following.cancel()
    assert applied == [["remote-a"], []]
