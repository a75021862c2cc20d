"""Who may do what in the etcd: each role reads its ranges, nobody but an administrator writes."""

import pytest

from kvstore.client import Denied, PutOp
from kvstore.etcd import open_etcd
from tests.support.apiserver import Apiserver, listed, until
from tests.support.etcd import Etcd

MAY = {
    "remote-rome": {
        "prefixes": ("cilium/.heartbeat", "cilium/state/", "cilium/synced/paris/"),
        "keys": ("cilium/cluster-config/paris",),
        "never": ("cilium/cluster-config/", "cilium/cache/", "cilium/synced/", "clustermesh/"),
    },
    "local-paris": {
        "prefixes": ("cilium/.heartbeat", "cilium/cache/", "cilium/cluster-config/"),
        "keys": ("cilium/cluster-config/rome",),
        "never": ("cilium/state/", "clustermesh/local/"),
    },
    "agent-paris": {
        "prefixes": ("cilium/state/", "cilium/cache/", "cilium/synced/", "clustermesh/local/"),
        "keys": ("cilium/cluster-config/paris",),
        "never": ("cilium/", "clustermesh/", "other/"),
    },
}


@pytest.mark.parametrize("user", sorted(MAY))
async def test_a_role_reads_its_ranges_and_writes_nothing(
    apiserver: Apiserver, etcd: Etcd, user: str
) -> None:
    apiserver.peers("remote-rome")
    await apiserver.ready()
    async with open_etcd(etcd.config(user)) as store:
        for prefix in MAY[user]["prefixes"]:
            await listed(store, prefix)
        for key in MAY[user]["keys"]:
            await store.get(key)
        for prefix in MAY[user]["never"]:
            with pytest.raises(Denied):
                await listed(store, prefix)
        for key in ("cilium/state/nodes/v1/paris/x", "cilium/cache/x", "other"):
            with pytest.raises(Denied):
                await store.commit([PutOp(key, b"x")])


async def test_a_stranger_may_nothing(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready()
    async with open_etcd(etcd.config("mallory")) as store:
        with pytest.raises(Denied):
            await listed(store, "cilium/state/")


async def test_peers_come_and_go_with_the_users_file(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready()
    assert "remote-rome" not in users(etcd)
    apiserver.peers("remote-rome", "remote-oslo")
    await until(lambda: _has(etcd, {"remote-rome", "remote-oslo"}))
    apiserver.users.write_text("users: [")
    await until(lambda: _troubled(apiserver, "users.yaml"))
    apiserver.peers("remote-oslo")
    await until(lambda: _lacks(etcd, "remote-rome"))
    own = {"root", "admin-paris", "local-paris", "agent-paris", "remote"}
    assert users(etcd) == own | {"remote-oslo"}
    assert (await apiserver.status())["trouble"] == []


async def test_peers_removed_while_nobody_looked_are_gone_after_the_start(
    apiserver: Apiserver, etcd: Etcd
) -> None:
    apiserver.peers("remote-rome")
    await apiserver.ready()
    assert "remote-rome" in users(etcd)
    apiserver.stop()
    apiserver.users.write_text("users:\n")
    await apiserver.ready()
    assert "remote-rome" not in users(etcd)


async def test_without_a_users_file_peers_are_left_alone(apiserver: Apiserver, etcd: Etcd) -> None:
    await apiserver.ready()
    etcd.ctl("user", "add", "remote-hand", "--no-password")
    etcd.ctl("user", "grant-role", "remote-hand", "remote")
    apiserver.stop()
    apiserver.users_flag = ()
    await apiserver.ready()
    assert "remote-hand" in users(etcd)


def users(etcd: Etcd) -> set[str]:
    return set(etcd.ctl("user", "list").split())


async def _has(etcd: Etcd, wanted: set[str]) -> bool:
    return wanted <= users(etcd)


async def _lacks(etcd: Etcd, name: str) -> bool:
    return name not in users(etcd)


async def _troubled(apiserver: Apiserver, part: str) -> bool:
    return any(part in line for line in (await apiserver.status())["trouble"])
