"""Who may do what in a cluster's etcd, tried with each certificate."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Denied, PutOp, Store, Unavailable
from kvstore.config import ConfigError
from kvstore.etcd import open_etcd
from kvstore.users import User, ensure_auth, keep_peers, load_users
from kvstore.watch import ending
from tests.support.etcd import BINARIES, WHEEL, Etcd, running_etcd
from tests.support.store_contract import everything, first_changes

OWN = "paris"
LOGIN = {"username": "root", "password": "s3cret"}
PEERS = (User("remote-rome", "remote"), User("remote-oslo", "remote"))

KEYS = (
    "cilium/.heartbeat",
    "cilium/cluster-config/paris",
    "cilium/cluster-config/rome",
    "cilium/state/nodes/v1/paris/n1",
    "cilium/cache/nodes/v1/rome/n1",
    "cilium/synced/paris/cilium/state/nodes/v1",
    "cilium/synced/rome/cilium/cache/nodes/v1",
    "clustermesh/local/v1/services/default/web",
    "secrets/of/somebody",
)
"""One key of everything that is in a cluster's etcd."""

MAY_READ = {
    "local-paris": {0, 1, 2, 4, 5, 6},
    "remote": {0, 1, 3, 5},
    "remote-rome": {0, 1, 3, 5},
    "agent-paris": {0, 1, 2, 3, 4, 5, 6, 7},
    "admin-paris": set(range(9)),
    "root": set(range(9)),
    "stranger": set(),
}
MAY_LIST = {
    "local-paris": ("cilium/cluster-config/", "cilium/synced/", "cilium/cache/"),
    "remote-rome": ("cilium/state/", "cilium/synced/paris/", "cilium/.heartbeat"),
    "agent-paris": ("cilium/state/ip/", "cilium/synced/rome/", "clustermesh/local/v1/"),
}
MAY_NOT_LIST = {
    "local-paris": ("cilium/state/", "cilium/", ""),
    "remote-rome": ("cilium/cluster-config/", "cilium/cluster-config/paris", "cilium/synced/", ""),
    "agent-paris": ("cilium/", "clustermesh/", ""),
}


@pytest.fixture(scope="module", params=sorted(BINARIES))
def etcd(request: pytest.FixtureRequest) -> Iterator[Etcd]:
    with running_etcd(BINARIES[request.param], tls=True) as etcd:
        yield etcd


async def begin(etcd: Etcd) -> None:
    await ensure_auth(etcd.config("admin-paris"), OWN, PEERS)
    async with open_etcd(etcd.config("admin-paris")) as store:
        await store.commit([PutOp(key, b"value") for key in KEYS])


async def refused(store: Store, key: str) -> bool:
    try:
        await store.get(key)
    except Denied:
        return True
    return False


@pytest.mark.parametrize("user", sorted(MAY_READ))
async def test_each_certificate_reads_what_its_role_says_and_nothing_else(
    etcd: Etcd, user: str
) -> None:
    await begin(etcd)
    async with open_etcd(etcd.config(user)) as store:
        read = {at for at, key in enumerate(KEYS) if not await refused(store, key)}
    assert read == MAY_READ[user]


@pytest.mark.parametrize("user", sorted(MAY_LIST))
async def test_listing_and_watching_need_the_whole_range(etcd: Etcd, user: str) -> None:
    await begin(etcd)
    async with open_etcd(etcd.config(user)) as store:
        for prefix in MAY_LIST[user]:
            _, revision = await everything(store, prefix)
            async with ending(store.changes(prefix, after=revision)) as batches:
                await anext(batches)
        for prefix in MAY_NOT_LIST[user]:
            with pytest.raises(Denied):
                await everything(store, prefix)
            async with ending(store.changes(prefix, after=revision)) as batches:
                with pytest.raises(Denied):
                    await anext(batches)


@pytest.mark.parametrize("user", ["local-paris", "remote", "remote-rome", "agent-paris", "nobody"])
async def test_nobody_but_an_administrator_writes(etcd: Etcd, user: str) -> None:
    await begin(etcd)
    async with open_etcd(etcd.config(user)) as store:
        for key in KEYS:
            with pytest.raises(Denied):
                await store.commit([PutOp(key, b"mine")])


async def test_nobody_without_a_certificate_gets_in(etcd: Etcd) -> None:
    await begin(etcd)
    bare = etcd.config("root", cert_file=None, key_file=None)
    async with open_etcd(bare) as store:
        with pytest.raises(Unavailable):
            await store.get(KEYS[0])


async def test_doing_it_twice_changes_nothing(etcd: Etcd) -> None:
    await begin(etcd)
    before = _dump(etcd)
    await ensure_auth(etcd.config("admin-paris"), OWN, PEERS)
    assert _dump(etcd) == before
    assert "remote-rome" in before


async def test_what_somebody_broke_is_mended(etcd: Etcd) -> None:
    await begin(etcd)
    before = _dump(etcd)
    etcd.ctl("role", "grant-permission", "remote", "--prefix=true", "readwrite", "secrets/")
    etcd.ctl("role", "revoke-permission", "local", "--prefix=true", "cilium/cache/")
    etcd.ctl("user", "grant-role", "remote-rome", "root")
    etcd.ctl("user", "delete", "local-paris")
    await ensure_auth(etcd.config("admin-paris"), OWN, PEERS)
    assert _dump(etcd) == before


async def test_peers_come_and_go_with_the_list(etcd: Etcd) -> None:
    await begin(etcd)
    etcd.ctl("role", "add", "theirs")
    etcd.ctl("user", "add", "somebody-else", "--no-password")
    etcd.ctl("user", "grant-role", "somebody-else", "theirs")
    async with (
        open_etcd(etcd.config("remote-rome")) as rome,
        open_etcd(etcd.config("remote-bern")) as bern,
    ):
        assert not await refused(rome, KEYS[0])
        assert await refused(bern, KEYS[0])
        await keep_peers(etcd.config("admin-paris"), OWN, [User("remote-bern", "remote")])
        assert await refused(rome, KEYS[0])
        assert not await refused(bern, KEYS[0])
    users = etcd.ctl("user", "list").split()
    assert "somebody-else" in users, "users that are none of ours are left alone"
    assert "remote" in users
    assert "remote-oslo" not in users


async def test_a_list_that_names_our_own_users_takes_no_role_from_them(etcd: Etcd) -> None:
    await begin(etcd)
    before = _dump(etcd)
    peers = [*PEERS, *(User(name, "remote") for name in ("root", "admin-paris", "agent-paris"))]
    for _ in range(2):  # they may still do it
        await keep_peers(etcd.config("admin-paris"), OWN, peers)
        await ensure_auth(etcd.config("admin-paris"), OWN, peers)
    assert _dump(etcd) == before


async def test_only_an_administrator_may_change_users(etcd: Etcd) -> None:
    await begin(etcd)
    with pytest.raises(Denied):
        await keep_peers(etcd.config("agent-paris"), OWN, [])


def test_a_users_file_may_not_hand_out_other_roles(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    file.write_text("users:\n- name: remote-rome\n  role: remote\n- name: evil\n  role: root\n")
    with pytest.raises(ConfigError, match=r"\$\.users\[1\]\.role: expected remote, got 'root'"):
        load_users(file)


@pytest.mark.parametrize(
    "text", ["users: 2001-99-99", "users: " + "[" * 5_000, "- a", "users: [", "x"]
)
def test_a_users_file_that_is_none_is_a_mistake_with_a_place(tmp_path: Path, text: str) -> None:
    file = tmp_path / "users.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"\$"):
        load_users(file)


async def test_a_password_works_and_outlives_its_tokens() -> None:
    with running_etcd(WHEEL, options=["--auth-token-ttl=1"]) as etcd:
        async with open_etcd(etcd.config(**LOGIN)) as early:
            await early.commit([PutOp("early", b"")])  # it lets everybody in
            etcd.ctl("user", "add", "root:s3cret")
            etcd.ctl("user", "grant-role", "root", "root")
            etcd.ctl("auth", "enable")
            assert await early.get("early") is not None
            assert early.connections == 1
            async with ending(early.changes("a", after=0)) as batches:
                with pytest.raises(Unavailable, match="its token has run out"):
                    await anext(batches)
            async with asyncio.timeout(20):
                await early.connected(beyond=1)
            async with ending(early.changes("a", after=0)) as batches:
                await anext(batches)
        wrong = etcd.config(**(LOGIN | {"password": "guess"}))
        async with open_etcd(wrong) as store:
            with pytest.raises(Denied, match="refuses user root"):
                await store.get("a")
        config = etcd.config(**LOGIN)
        assert "s3cret" not in repr(config)
        async with open_etcd(config) as store:
            revision = await store.commit([PutOp("a", b"1")])
            async with ending(store.changes("a", after=revision)) as batches:
                await anext(batches)
                etcd.ctl("--user=root:s3cret", "auth", "disable")
                etcd.ctl("auth", "enable")  # every token is invalid now
                assert await store.get("a") is not None
                last = await store.commit([PutOp("a", b"2")])
                assert (await first_changes(batches, 1))[0].revision == last
            assert store.connections == 1, "a new token, not a new connection"
            async with ending(store.changes("a", after=last)) as batches:
                with pytest.raises(Unavailable, match="its token has run out"):
                    await anext(batches)
            async with asyncio.timeout(20):
                await store.connected(beyond=1)
            async with ending(store.changes("a", after=revision)) as batches:
                assert (await first_changes(batches, 1))[0].revision == last


def _dump(etcd: Etcd) -> str:
    users = sorted(etcd.ctl("user", "list").split())
    roles = sorted(etcd.ctl("role", "list").split())
    return "\n".join(
        [etcd.ctl("user", "get", user) for user in users]
        + [etcd.ctl("role", "get", role) for role in roles]
    )
