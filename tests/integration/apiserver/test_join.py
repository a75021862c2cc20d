"""Two real control planes join: over the wire and by files; what is left behind is looked at."""

import asyncio
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clustermesh import meshfile
from clustermesh.meshctl.cli import app
from clustermesh.trust import token as tokens
from kvstore.client import Denied
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd
from tests.support.apiserver import Apiserver, shop, until
from tests.support.etcd import Etcd, etcd_folder, free_port
from tests.support.trust import Pki, member


class Side:
    """A cluster with its own etcd, apiserver, authority and mesh file; nothing is shared."""

    def __init__(self, folder: Path, name: str, number: int, etcd: Etcd, pki: Pki) -> None:
        self.name = name
        self.apiserver = Apiserver(folder, etcd, cluster=name, number=number)
        shop(self.apiserver)
        self.entry = member(
            folder, name, number, pki, url=etcd.url, apiserver=f"unix:{self.apiserver.socket}"
        )
        self.mesh = folder / "mesh.yaml"
        meshfile.save(meshfile.Mesh(clusters=(self.entry,)), self.mesh)
        self.port = free_port()
        self.flags = (
            *("--join-listen", f"127.0.0.1:{self.port}", "--join-mesh", str(self.mesh)),
            *("--cluster-users-config-path", str(self.entry.users_file)),
        )

    async def meshctl(self, *argv: object, code: int = 0, text: str = "") -> str:
        """On this cluster's machine; the token comes by standard input."""
        invoke: Callable[..., Any] = CliRunner(env={"MESHCTL_MESH": str(self.mesh)}).invoke
        done = await asyncio.to_thread(invoke, app, [*map(str, argv)], input=text)
        error = done.exception
        said = done.stdout + (str(error) if error else "")
        ended = getattr(error, "code", 1) if error else 0
        assert ended == code, f"{said} {error!r}"
        return said

    async def told(self, *argv: object) -> Any:
        return json.loads(await self.meshctl(*argv, "-o", "json"))

    async def reads(self, other: "Side") -> bool:
        """Whether a new connection with the files that are there reads the other's etcd."""
        config = EtcdConfig.load(self.entry.config_dir / other.name)
        with suppress(Denied):  # its apiserver has not seen the users file yet
            async with open_etcd(config) as store:
                return await store.get(f"cilium/cluster-config/{other.name}") is not None
        return False


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    with ExitStack() as stack:
        made = []
        for name, number in (("paris", 7), ("rome", 8)):
            folder = stack.enter_context(etcd_folder())
            pki = Pki(tmp_path / name / "pki", name)
            etcd = Etcd(folder, name=name, tls=pki)  # type: ignore[arg-type]  # issues as it does
            stack.callback(etcd.kill)
            etcd.start()
            made.append(Side(tmp_path / name, name, number, etcd, pki))
        for side in made:
            side.apiserver.etcd.ready_now()
            stack.enter_context(side.apiserver)
        yield made[0], made[1]


async def test_a_token_brings_two_clusters_together(sides: tuple[Side, Side]) -> None:
    paris, rome = sides
    await paris.apiserver.ready(*paris.flags)
    await rome.apiserver.ready(*rome.flags)
    token = (await paris.told("token", "create", "rome"))["token"]
    await rome.meshctl("join", "-", text=token)
    await until(lambda: rome.reads(paris))
    await until(lambda: paris.reads(rome))
    (listed,) = await paris.told("token", "list")
    assert (listed["guest"], listed["state"]) == ("rome", "done")

    await rome.meshctl("join", "-", text=token)  # the same guest may ask again
    (rome.entry.config_dir / "paris.etcd-client.key").unlink()
    assert "used already" in await rome.meshctl("join", "-", text=token, code=1)
    spare = await paris.told("token", "create", "rome")
    await paris.meshctl("token", "revoke", spare["id"])
    assert "revoked" in await rome.meshctl("join", "-", text=spare["token"], code=1)
    assert "no join token" in await rome.meshctl("join", "-", text=token[:40], code=2)

    paris.apiserver.stop()  # the record outlives the process
    await paris.apiserver.ready(*paris.flags)
    assert "used already" in await rome.meshctl("join", "-", text=token, code=1)
    _nothing_secret_is_left(sides, [token, spare["token"]])


async def test_clusters_without_a_way_to_each_other_join_with_files(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    paris, rome = sides
    await paris.apiserver.ready("--join-mesh", str(paris.mesh), *paris.flags[4:])
    await rome.apiserver.ready(*rome.flags)
    token = (await paris.told("token", "create", "rome"))["token"]
    said = await rome.meshctl("join", "-", text=token, code=4)
    assert "join with files" in said
    request, answer, finish = (tmp_path / name for name in ("request", "answer", "finish"))
    await rome.meshctl("join", "-", "--request", request, text=token)
    await paris.meshctl("token", "answer", request, "--out", answer)
    answer.write_bytes(answer.read_bytes().replace(b"paris", b"parIs", 1))
    assert "not signed" in await rome.meshctl(
        "join", "-", "--bundle", answer, "--finish", finish, text=token, code=1
    )
    await paris.meshctl("token", "answer", request, "--out", answer)
    await rome.meshctl("join", "-", "--bundle", answer, "--finish", finish, text=token)
    assert "rome has joined paris" in await paris.meshctl("token", "answer", finish)
    await until(lambda: rome.reads(paris))
    await until(lambda: paris.reads(rome))
    secret = tokens.read(token).secret
    assert not [path for path in (request, answer, finish) if secret in path.read_text()]


def _nothing_secret_is_left(sides: tuple[Side, Side], given: list[str]) -> None:
    """Neither in logs nor in files; what is private can be read by its owner only."""
    secrets = [part for text in given for part in (text, tokens.read(text).secret)]
    keys = []
    for side in sides:
        folder = side.apiserver.folder
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_text(errors="replace")
                assert not [one for one in secrets if one in content], path
            if path.is_file() and (path.suffix == ".key" or "join" in path.parts):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        keys += [it.read_text() for it in folder.rglob("*.key")]
        log = side.apiserver.log.read_text()
        assert not [key for key in keys if key.splitlines()[1] in log]
