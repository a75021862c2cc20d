"""The users file is read as a whole, and a bad one changes nothing."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from clustermesh.apiserver.userfile import follow, read
from clustermesh.process import Fault
from kvstore.users import User


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_file_of_the_chart(tmp_path: Path) -> None:
    content = b"users:\n- name: remote-paris\n  role: remote\n"
    path = written(tmp_path / "users.yaml", content)
    assert read(path) == (User("remote-paris", "remote"),)


@pytest.mark.parametrize("content", [b"", b"users:\n", b"users: []\n"])
def test_nobody(tmp_path: Path, content: bytes) -> None:
    assert read(written(tmp_path / "users.yaml", content)) == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"users: [{name: remote-a, role: root}]",
            r"users.yaml: \$.users\[0\].role: expected remote",
        ),
        (b"users: [{role: remote}]", r"users.yaml: \$.users\[0\]: Object missing required field"),
        (
            b"users: [{name: ../a, role: remote}]",
            r"users.yaml: \$.users\[0\].name: expected a cert",
        ),
        (b"- a", r"users.yaml: \$: Expected `object`"),
        (b"users: [", r"users.yaml: \$: expected YAML: "),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(Fault, match=reason):
        read(written(tmp_path / "users.yaml", content))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="cannot read the users file"):
        read(tmp_path / "none")


async def test_changes_are_applied_and_bad_ones_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    applied: list[list[str]] = []
    reports: asyncio.Queue[str | None] = asyncio.Queue()

    async def apply(users: Sequence[User]) -> None:
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
        path.write_text("users: [{name: remote-a, role: remote}]")
        await told(None)
        path.write_text("users: [")
        await told("expected YAML")
        path.write_text("users: []")
        await told(None)
        following.cancel()
    assert applied == [["remote-a"], []]
