"""Who may read what in a cluster's etcd: users, roles and ranges (contract kvstore 7)."""

import re
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec

from kvstore._proto import etcd_pb2 as rpc
from kvstore.channel import dial
from kvstore.client import Conflict, StoreError, Unavailable
from kvstore.config import ConfigError, EtcdConfig, document_of
from kvstore.dial import addresses
from kvstore.lists import after_prefix, to_bytes
from kvstore.wire import Link, Method

PEER_ROLE = "remote"


class User(msgspec.Struct, frozen=True, order=True):
    """Somebody who is known by the common name of a certificate; there are no passwords."""

    name: str
    role: str


class Range(msgspec.Struct, frozen=True, order=True):
    """What a role may read: every key with a prefix, or one key."""

    start: bytes
    end: bytes

    @classmethod
    def prefix(cls, text: str) -> "Range":
        return cls(to_bytes(text), after_prefix(to_bytes(text)))

    @classmethod
    def key(cls, text: str) -> "Range":
        return cls(to_bytes(text), b"")


def roles(cluster: str) -> Mapping[str, frozenset[Range]]:
    """The roles of a cluster's etcd and what each may read; none but ``root`` may write."""
    heartbeat = Range.prefix("cilium/.heartbeat")
    return {
        "local": frozenset(
            (
                heartbeat,
                *map(Range.prefix, ("cilium/cache/", "cilium/cluster-config/", "cilium/synced/")),
            )
        ),
        PEER_ROLE: frozenset(
            (
                heartbeat,
                Range.key(f"cilium/cluster-config/{cluster}"),
                Range.prefix("cilium/state/"),
                Range.prefix(f"cilium/synced/{cluster}/"),
            )
        ),
        "agent": frozenset(
            (
                heartbeat,
                *map(
                    Range.prefix,
                    (
                        "cilium/state/",
                        "cilium/cache/",
                        "cilium/cluster-config/",
                        "cilium/synced/",
                        "clustermesh/local/",
                    ),
                ),
            )
        ),
    }


def own_users(cluster: str) -> tuple[User, ...]:
    """Everybody but the peers."""
    return (
        User("root", "root"),
        User(f"admin-{cluster}", "root"),
        User(f"local-{cluster}", "local"),
        User("remote", PEER_ROLE),
        User(f"agent-{cluster}", "agent"),
    )


def everybody(cluster: str, peers: Collection[User]) -> tuple[User, ...]:
    """Own users and peers. A list of peers that names one of the own users, an administrator say,
    takes no role from them.
    """
    own = own_users(cluster)
    names = {user.name for user in own}
    return (*own, *(peer for peer in peers if peer.name not in names))


class _File(msgspec.Struct, frozen=True):
    users: tuple[User, ...] | None = None
    """None: the chart writes ``users:`` and nothing after it when there are no peers."""


def load_users(path: Path) -> tuple[User, ...]:
    """The peers named in a users file (``users: [{name, role}]``); raises ``ConfigError`` or
    ``OSError``.
    """
    return parse_users(path.read_bytes())


def parse_users(content: bytes) -> tuple[User, ...]:
    """The same from what such a file holds; nobody when it is empty. Raises ``ConfigError``."""
    document = document_of(content)
    try:
        users = msgspec.convert({} if document is None else document, _File).users or ()
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at ")
        raise ConfigError(f"{at.strip('`') or '$'}: {reason}") from None
    for index, user in enumerate(users):
        if not re.fullmatch(r"[\w.:@-]+", user.name):
            raise ConfigError(
                f"$.users[{index}].name: expected a certificate's common name, got {user.name!r}"
            )
        if user.role != PEER_ROLE:
            raise ConfigError(f"$.users[{index}].role: expected {PEER_ROLE}, got {user.role!r}")
    return users


async def ensure_auth(config: EtcdConfig, cluster: str, peers: Collection[User] | None) -> None:
    """Make an etcd's users and roles what they should be, and turn authentication on, as the last
    step.

    ``peers`` None: nobody knows them, so those that are there stay.

    Works on an empty etcd as well as on one that has all that, or a part of it; users and ranges
    that are missing are added, wrong ones taken away, peers that are no longer listed removed.
    Raises ``Unavailable`` or ``Denied`` (when authentication is on already and ``config``'s
    certificate is not an administrator's).
    """
    async with _administration(config) as admin:
        await admin.add_role("root")
        for role, ranges in roles(cluster).items():
            await admin.shape_role(role, ranges)
        if peers is None:
            await admin.add_users(own_users(cluster))
        else:
            await admin.shape_users(everybody(cluster, peers))
        await admin.enable()


async def keep_peers(config: EtcdConfig, cluster: str, peers: Collection[User]) -> None:
    """Make the peers of a running etcd equal to a users list that has changed."""
    async with _administration(config) as admin:
        await admin.shape_users(everybody(cluster, peers))


class _Administration:
    """The steps, each of which may be repeated."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def enable(self) -> None:
        await self._link.call(_ENABLE, rpc.AuthEnableRequest())

    async def add_role(self, role: str) -> None:
        await _unless_there(self._link.call(_ROLE_ADD, rpc.AuthRoleAddRequest(name=role)))

    async def shape_role(self, role: str, wanted: Collection[Range]) -> None:
        """Exactly these ranges, to read."""
        await self.add_role(role)
        found = (await self._link.call(_ROLE_GET, rpc.AuthRoleGetRequest(role=role))).perm
        right = {
            Range(one.key, one.range_end) for one in found if one.perm_type == rpc.Permission.READ
        }
        for stranger in {Range(one.key, one.range_end) for one in found} - set(wanted):
            request = rpc.AuthRoleRevokePermissionRequest(
                role=role, key=stranger.start, range_end=stranger.end
            )
            await self._link.call(_ROLE_REVOKE, request)
        for missing in set(wanted) - right:
            permission = rpc.Permission(
                perm_type=rpc.Permission.READ, key=missing.start, range_end=missing.end
            )
            await self._link.call(
                _ROLE_GRANT, rpc.AuthRoleGrantPermissionRequest(name=role, perm=permission)
            )

    async def add_users(self, wanted: Collection[User]) -> None:
        """Each of these with its one role."""
        for user in wanted:
            await self._shape_user(user)

    async def shape_users(self, wanted: Collection[User]) -> None:
        """Each of these with its one role; peers of whom nobody speaks any more are removed."""
        names = {user.name for user in wanted}
        await self.add_users(wanted)
        for name in (await self._link.call(_USER_LIST, rpc.AuthUserListRequest())).users:
            if name not in names and await self._roles(name) == {PEER_ROLE}:
                await self._link.call(_USER_DELETE, rpc.AuthUserDeleteRequest(name=name))

    async def _shape_user(self, user: User) -> None:
        add = rpc.AuthUserAddRequest(name=user.name, options=rpc.UserAddOptions(no_password=True))
        await _unless_there(self._link.call(_USER_ADD, add))
        has = await self._roles(user.name)
        if user.role not in has:
            await self._link.call(
                _USER_GRANT, rpc.AuthUserGrantRoleRequest(user=user.name, role=user.role)
            )
        for role in has - {user.role}:
            await self._link.call(
                _USER_REVOKE, rpc.AuthUserRevokeRoleRequest(name=user.name, role=role)
            )

    async def _roles(self, name: str) -> set[str]:
        return set((await self._link.call(_USER_GET, rpc.AuthUserGetRequest(name=name))).roles)


async def _unless_there(call: Awaitable[object]) -> None:
    try:
        await call
    except Conflict:
        return


@asynccontextmanager
async def _administration(config: EtcdConfig) -> AsyncIterator[_Administration]:
    """A connection of its own; the endpoints are tried once each."""
    last: StoreError = Unavailable("no endpoint is configured")
    for address in addresses(config, Random()):  # noqa: S311 - spreads load
        try:
            link = await dial(address, config)
        except Unavailable as error:
            last = Unavailable(f"{address.endpoint}: {error}")
            continue
        try:
            yield _Administration(link)
        finally:
            await link.close()
        return
    raise last


_ENABLE = Method("/etcdserverpb.Auth/AuthEnable", rpc.AuthEnableRequest, rpc.AuthEnableResponse)
_USER_ADD = Method("/etcdserverpb.Auth/UserAdd", rpc.AuthUserAddRequest, rpc.AuthUserAddResponse)
_USER_GET = Method("/etcdserverpb.Auth/UserGet", rpc.AuthUserGetRequest, rpc.AuthUserGetResponse)
_USER_LIST = Method(
    "/etcdserverpb.Auth/UserList", rpc.AuthUserListRequest, rpc.AuthUserListResponse
)
_USER_DELETE = Method(
    "/etcdserverpb.Auth/UserDelete", rpc.AuthUserDeleteRequest, rpc.AuthUserDeleteResponse
)
_USER_GRANT = Method(
    "/etcdserverpb.Auth/UserGrantRole", rpc.AuthUserGrantRoleRequest, rpc.AuthUserGrantRoleResponse
)
_USER_REVOKE = Method(
    "/etcdserverpb.Auth/UserRevokeRole",
    rpc.AuthUserRevokeRoleRequest,
    rpc.AuthUserRevokeRoleResponse,
)
_ROLE_ADD = Method("/etcdserverpb.Auth/RoleAdd", rpc.AuthRoleAddRequest, rpc.AuthRoleAddResponse)
_ROLE_GET = Method("/etcdserverpb.Auth/RoleGet", rpc.AuthRoleGetRequest, rpc.AuthRoleGetResponse)
_ROLE_GRANT = Method(
    "/etcdserverpb.Auth/RoleGrantPermission",
    rpc.AuthRoleGrantPermissionRequest,
    rpc.AuthRoleGrantPermissionResponse,
)
_ROLE_REVOKE = Method(
    "/etcdserverpb.Auth/RoleRevokePermission",
    rpc.AuthRoleRevokePermissionRequest,
    rpc.AuthRoleRevokePermissionResponse,
)
