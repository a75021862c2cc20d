"""Certificates in use: a new authority takes over under a live reader, and a peer is revoked."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from clustermesh import meshfile, pki
from clustermesh.certificates import certificates_in
from clustermesh.meshctl.cli import app
from clustermesh.meshctl.peering import Peering, making
from kvstore.client import Denied, StoreError
from kvstore.config import EtcdConfig
from kvstore.etcd import open_etcd
from tests.support.apiserver import Apiserver, Recording, node, shop, until
from tests.support.etcd import Etcd, etcd_folder
from tests.support.provoked import provokes, witnessed
from tests.support.trust import Pki, member


class World:
    """Paris with an etcd, an apiserver and certificates of its own, read by rome."""

    def __init__(self, folder: Path, etcd: Etcd, own: Pki, apiserver: Apiserver) -> None:
        self.etcd, self.pki, self.apiserver = etcd, own, apiserver
        self.paris = member(
            apiserver.folder, "paris", 7, own, url=etcd.url, apiserver=f"unix:{apiserver.socket}"
        )
        self.rome = member(folder / "rome", "rome", 8, Pki(folder / "rome" / "pki", "rome"))
        self.mesh = folder / "mesh.yaml"
        meshfile.save(meshfile.Mesh(clusters=(self.paris, self.rome)), self.mesh)
        for change in making(Peering(self.rome, self.paris)):
            change.do()

    @property
    def client(self) -> EtcdConfig:
        """Rome's way to paris, with the files as they are now."""
        return EtcdConfig.load(self.rome.config_dir / "paris")

    async def meshctl(self, *argv: str, code: int = 0) -> str:
        run: Callable[..., Any] = CliRunner().invoke
        done = await asyncio.to_thread(run, app, [*argv, "--mesh", str(self.mesh)])
        said = f"{done.output}\n{done.exception!r}"
        witnessed(said.split())
        assert (done.exit_code == 0) == (code == 0), said
        return said

    async def is_taken(self) -> None:
        """A new connection of rome's reads what it may."""
        async with open_etcd(self.client) as store, asyncio.timeout(20):
            assert await store.get("cilium/cluster-config/paris")

    async def is_refused(self, config: EtcdConfig, why: type[StoreError] = StoreError) -> bool:
        try:
            async with asyncio.timeout(3), open_etcd(config) as store:
                await store.get("cilium/cluster-config/paris")
        except (TimeoutError, why):
            return True
        return False


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    own = Pki(tmp_path / "pki", "paris")
    with etcd_folder() as folder:
        etcd = Etcd(folder, tls=own)  # type: ignore[arg-type]  # issues as the tests' own does
        try:
            etcd.start()
            etcd.ready_now()
            with Apiserver(tmp_path / "paris", etcd) as apiserver:
                shop(apiserver)
                yield World(tmp_path, etcd, own, apiserver)
        finally:
            etcd.kill()


@provokes("CA_TAKEN")
async def test_a_new_authority_takes_over_under_a_reader_that_notices_nothing(
    world: World,
) -> None:
    await world.apiserver.ready()
    old = world.pki.authority
    recording, standing = Recording(), asyncio.Event()
    async with open_etcd(world.client) as store, asyncio.TaskGroup() as tasks:
        await store.connected(beyond=0)
        reader = tasks.create_task(_follow(recording, store, standing))
        await standing.wait()
        for number, step in enumerate(("trust", "issue", "drop")):
            said = await world.meshctl("ca", "rotate", "paris", "--step", step)
            assert "CA_TAKEN" in said
            assert "nothing left" in await world.meshctl(
                "ca", "rotate", "paris", "--step", step
            ) or (step == "drop")
            await world.is_taken()
            name = f"n{step}"
            world.apiserver.manifest(name, node(name, f"192.0.2.{30 + number}", "10.8.0.0/24"))
            await until(lambda name=name: _told(recording, name))
            assert store.connections == 1, step
        assert world.apiserver.log.read_text().count("degraded") == 0
        reader.cancel()
    assert world.pki.authority.bundle == world.pki.authority.certificate != old.certificate

    stolen = world.pki.folder / "stolen.crt", world.pki.folder / "stolen.key"
    old.client("remote-rome").write(*stolen)
    config = _with(world.client, *stolen)
    assert not await world.is_refused(config), "the running etcd is known to believe the old CA"
    world.etcd.kill()
    world.etcd.start()
    await world.etcd.ready()
    await world.is_taken()
    assert await world.is_refused(config)


@provokes("CA_REFUSED")
async def test_an_authority_that_may_have_none_below_it_asks_for_a_restart(world: World) -> None:
    _shorten(world)
    world.etcd.kill()
    world.etcd.start()
    await world.etcd.ready()
    await world.apiserver.ready()
    said = await world.meshctl("ca", "rotate", "paris", code=3)
    assert "CA_REFUSED" in said
    assert "restart the etcd of paris" in said
    await world.is_taken()
    world.etcd.kill()
    world.etcd.start()
    await world.etcd.ready()
    await world.meshctl("ca", "rotate", "paris")
    await world.is_taken()
    assert world.pki.authority.bundle == world.pki.authority.certificate


async def test_a_revoked_peer_is_refused(world: World) -> None:
    await world.apiserver.ready()
    recording, standing = Recording(), asyncio.Event()
    async with open_etcd(world.client) as store, asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(_follow(recording, store, standing))
        await standing.wait()
        said = await world.meshctl("ca", "revoke", "paris", "rome")
        assert "remote-rome is removed" in said
        assert await world.is_refused(world.client, Denied)
        with pytest.raises(Denied):
            await store.get("cilium/cluster-config/paris")
        world.apiserver.manifest("late", node("late", "192.0.2.40", "10.8.0.0/24"))
        await until(lambda: _told(recording, "late"))
        assert "a watch that the peer has open goes on" in said
        reader.cancel()
    assert "was removed" in await world.meshctl("ca", "revoke", "paris", "rome")


async def test_the_status_tells_when_what_is_in_use_ends(world: World) -> None:
    await world.apiserver.ready()

    async def seen() -> set[str]:
        found = {one["what"]: one for one in (await world.apiserver.status())["certificates"]}
        assert all(one["not-after"] > 1.7e9 for one in found.values())
        return set(found) if len(found) >= 3 else set()

    served = f"server of 127.0.0.1:{world.etcd.port}"
    assert await until(seen) == {"CA of paris (own)", "client of paris (own)", served}
    _, text = await world.apiserver.ask("GET /metrics")
    assert 'certificate_not_after_timestamp_seconds{fingerprint="' in text


async def _follow(recording: Recording, store: Any, standing: asyncio.Event) -> None:
    """Rome may not list everything, so only what it may."""
    revision = 0
    async for page in store.pages("cilium/state/"):
        revision = page.revision
    async for batch in store.changes("cilium/state/", after=revision):
        recording.changes += batch.events
        standing.set()


async def _told(recording: Recording, name: str) -> bool:
    return any(key.endswith(f"/{name}") for key in recording.put())


def _with(config: EtcdConfig, certificate: Path, key: Path) -> EtcdConfig:
    from msgspec.structs import replace

    return replace(config, cert_file=str(certificate), key_file=str(key))


def _shorten(world: World) -> None:
    """Give the authority the path length 0 that many have, and issue everything anew."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = pki._name("an older CA")
    builder = pki._builder(name, name, key.public_key(), 100, None)
    made = pki.Authority(pki._as_authority(builder, path_length=0).sign(key, hashes.SHA256()), key)
    made.write(world.pki.ca, world.pki.key)
    for path in world.pki.folder.glob("*.crt"):
        if path != world.pki.ca:
            pki.write_private(path, made.renew(certificates_in(path)[0]))
    for change in making(Peering(world.rome, world.paris)):
        change.do()
