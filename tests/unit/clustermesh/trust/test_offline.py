"""Joining by files, attacked: they are cut, changed, exchanged, shown again, searched."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from clustermesh import meshfile
from clustermesh.apiserver.joining import Joining
from clustermesh.apiserver.settings import Settings
from clustermesh.http import Refused
from clustermesh.meshctl.api import NoAnswer
from clustermesh.meshctl.cli import app
from clustermesh.meshctl.errors import MeshctlError
from clustermesh.trust import token as tokens
from tests.support.agents import Answers, Said, agent
from tests.support.joining import Pair

SENTENCES = (MeshctlError, NoAnswer)


class World(Pair):
    """Two hosts between which files are carried; meshctl on each, a real desk at cluster-b."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.joining = Joining(
            Settings(
                cluster_name="cluster-b", cluster_id=2, etcd_config=top / "etcd.yaml",
                manifests=top, source="directory", state_dir=self.state, join_mesh=top / "b.yaml",
                cluster_users_config_path=self.b.users_file,
            ),
            lambda _: None,
        )  # fmt: skip
        self.b = msgspec.structs.replace(self.b, apiserver=f"unix:{top}/b.sock")
        for name, cluster in (("a", self.a), ("b", self.b)):
            meshfile.save(meshfile.Mesh(clusters=(cluster,)), top / f"{name}.yaml")
        self.token = asyncio.run(self._made())
        self.request, self.answer, self.finish = (
            top / f"{name}.json" for name in ("request", "answer", "finish")
        )

    async def _made(self) -> str:
        made: Any = await self.joining._create({"guest": "cluster-a", "hours": "1"})
        text: str = made["token"]
        return text

    def desk(self, _: str, body: bytes) -> Any:
        try:
            return asyncio.run(self.joining._offline(msgspec.json.decode(body)))
        except Refused as refused:
            return Said(403, {"error": str(refused)})

    def meshctl(self, where: str, *words: str) -> str:
        """What it says; how it fails, with the sentence."""
        run: Callable[..., Any] = CliRunner().invoke
        done = run(app, [*words, "--mesh", str(self.top / f"{where}.yaml")])
        if done.exit_code == 0:
            return str(done.output)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        raise MeshctlError(done.output)

    def ask(self) -> None:
        self.meshctl("a", "join", self.token, "--request", str(self.request))

    def invite(self, request: Path | None = None) -> str:
        path = str(request or self.request)
        return self.meshctl("b", "token", "answer", path, "--out", str(self.answer))

    def accept(self, answer: Path | None = None) -> str:
        bundle, finish = str(answer or self.answer), str(self.finish)
        words = ("--bundle", bundle, "--finish", finish, "--timeout", "0")
        return self.meshctl("a", "join", self.token, *words)

    def end(self, finish: Path | None = None) -> str:
        return self.meshctl("b", "token", "answer", str(finish or self.finish))

    def connected(self) -> bool:
        return (self.a.config_dir / "cluster-b").exists() and (
            self.b.config_dir / "cluster-a"
        ).exists()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    answers: Answers = {"/v1/join": made.desk}
    with agent(tmp_path / "b.sock", answers):
        yield made


def test_what_is_carried_has_no_secret_and_is_its_owners(world: World):
    world.ask()
    world.invite()
    world.accept()
    assert "has joined" in world.end()
    assert world.connected()
    secret = tokens.read(world.token).secret
    keys = [path.read_text() for path in world.top.rglob("*.key")]
    assert len(keys) >= 4
    for path in (world.request, world.answer, world.finish):
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text().replace("\\n", "\n")
        assert "PRIVATE KEY" not in text
        assert secret not in text
        assert world.token not in text
        assert not any(line in text for key in keys for line in key.splitlines()[1:-1])


def damaged(path: Path) -> Iterator[bytes]:
    """Cut off at many places; a character changed at many; other kinds of files."""
    whole = path.read_bytes()
    step = max(1, len(whole) // 6)
    for at in [*range(0, len(whole), step), len(whole) - 1]:
        yield whole[:at]
        other = b"A" if whole[at : at + 1] != b"A" else b"B"
        yield whole[:at] + other + whole[at + 1 :]
    yield whole + whole
    yield b"\xff" + whole
    yield whole.replace(b"message", b"mess\xffage", 1)
    yield b"[" * 100_000
    yield b" " * 300_000 + whole


def held(world: World) -> dict[str, bytes]:
    """Of both clusters, without what is carried."""
    return {
        name: content for name, content in world.files().items() if name.startswith("cluster-")
    }  # fmt: skip


@pytest.mark.parametrize("which", ["request", "answer", "finish"])
def test_what_was_damaged_on_the_way_changes_nothing(world: World, which: str):
    """And the whole file is taken afterwards: a damaged one burns nothing."""
    steps = {"request": world.invite, "answer": world.accept, "finish": world.end}
    world.ask()
    for name, step in steps.items():
        path = world.top / f"{name}.json"
        if name == which:
            before, bad = held(world), world.top / "damaged"
            for content in damaged(path):
                bad.write_bytes(content)
                with pytest.raises(SENTENCES) as failure:
                    step(bad)
                assert "bug" not in str(failure.value)
                assert held(world) == before, content[:60]
        step(path)
    assert world.connected()


def test_files_in_each_others_place_are_refused(world: World):
    world.ask()
    world.invite()
    for path in (world.request, world.b.ca_cert, world.top):
        with suppress(OSError), pytest.raises(SENTENCES):
            world.accept(path)
    world.accept()
    for path in (world.answer, world.a.ca_cert):
        with pytest.raises(SENTENCES):
            world.end(path)
    assert "joined" in world.end()


def test_what_is_shown_again_gives_nothing_new(world: World):
    """To the same guest the same; to the host nothing but what it knows."""
    world.ask()
    world.invite()
    first = json.loads(json.loads(world.answer.read_text())["message"])
    world.accept()
    world.end()
    before = held(world)
    world.end()
    world.invite()
    again = json.loads(json.loads(world.answer.read_text())["message"])
    assert {k: v for k, v in again.items() if k not in ("certificate", "csr")} == {
        k: v for k, v in first.items() if k not in ("certificate", "csr")
    }
    world.accept()
    assert held(world).keys() == before.keys()


def test_an_answer_of_another_mesh_is_refused(world: World, tmp_path: Path):
    """The same names, another authority: everything in it is right but who signed it."""
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    with agent(other.top / "b.sock", {"/v1/join": other.desk}):
        other.ask()
        other.invite()
    world.ask()
    before = held(world)
    with pytest.raises(MeshctlError, match="not signed by the authority that the token names"):
        world.accept(other.answer)
    with pytest.raises(MeshctlError, match=r"^cluster-b: the token is not known here"):
        world.invite(other.request)
    assert held(world) == before


def test_a_name_in_a_file_leads_nowhere_else(world: World):
    """A request whose sender calls itself by a path; its proof is right, since it has the token."""
    world.ask()
    envelope = json.loads(world.request.read_text())
    for name in ("../../../tmp/x", "/etc/cron.d/x", "cluster-a/../x", "cluster-a\n", ".."):
        message = json.loads(envelope["message"])
        message["member"]["name"] = name
        text = json.dumps(message)
        proof = tokens.prove(tokens.read(world.token).key, "join", text)
        bad = world.top / "bad.json"
        bad.write_text(json.dumps({**envelope, "message": text, "proof": proof}))
        before = world.files()
        with pytest.raises(SENTENCES):
            world.invite(bad)
        assert world.files() == before
    world.invite()
