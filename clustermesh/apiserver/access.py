"""Who may log in to the etcd, kept right while the process runs: as peers come, after a wipe."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from clustermesh.apiserver import start, userfile
from clustermesh.health import Board
from clustermesh.logs import get_logger
from clustermesh.process import Fault
from kvstore.client import Store, StoreError
from kvstore.config import EtcdConfig
from kvstore.users import User, keep_peers

log = get_logger()
CONDITION = "etcd users"


class Access:
    """The owner of users and roles."""

    def __init__(
        self, config: EtcdConfig, *, cluster: str, users_file: Path | None, board: Board
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._file = users_file
        self._board = board
        self._peers: Sequence[User] | None = None
        """None: nobody told us, so peers that are in the etcd are left alone."""
        self._applied: Sequence[User] | None = None
        self._one = asyncio.Lock()
        """Two lists must not be written at once: the older one could come last."""

    async def ensure(self) -> None:
        """Users, roles and authentication as they should be. Raises ``Fault`` or ``StoreError``."""
        if self._file is not None and self._peers is None:
            try:
                self._peers = userfile.read(self._file)
            except Fault as fault:
                self._board.degraded(CONDITION, str(fault))
        async with self._one:
            peers = self._peers
            await start.secure(self._config, self._cluster, peers)
            self._applied = peers

    @property
    def peers(self) -> tuple[str, ...] | None:
        """The users of other clusters that are in the etcd; None when nobody told us of any."""
        return None if self._applied is None else tuple(user.name for user in self._applied)

    async def follow_connections(self, store: Store) -> None:
        """Do it again on each new connection, for ever: the etcd may have been wiped."""
        met = store.connections
        while True:
            met = await store.connected(beyond=met)
            try:
                await self.ensure()
            except (Fault, StoreError) as error:
                log.warning("etcd users not checked", reason=str(error))

    async def follow_file(self, *, recheck: float) -> None:
        """Keep peers equal to the users file, for ever."""
        if self._file is None:
            return
        await userfile.follow(
            self._file,
            self._apply,
            applied=self._peers,
            recheck=recheck,
            report=self._board.reporter(CONDITION),
        )

    async def _apply(self, users: Sequence[User]) -> None:
        self._peers = users
        if start.by_certificate(self._config):
            async with self._one:
                await keep_peers(self._config, self._cluster, users)
                self._applied = users
