"""The cluster's own configuration in etcd: written first, and put back when somebody changes it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from clustermesh.keys import cluster_config
from clustermesh.logs import get_logger
from kvstore.client import Reader, StoreError
from kvstore.events import Delete, Put
from kvstore.watch import ending, follow

log = get_logger()
Report = Callable[[str | None], None]


class Renewer(Protocol):
    """Writes what should be there, though it was written before."""

    def put(self, key: str, value: bytes) -> None:
        """Keep the key at this value."""
        ...

    def rewrite(self, key: str) -> None:
        """Write the key once more: somebody else changed it."""
        ...


class Announcement:
    """Owner of ``cilium/cluster-config/<own>`` (contract kvstore 1.4)."""

    def __init__(self, output: Renewer, *, cluster: str, value: bytes, report: Report) -> None:
        self._output = output
        self._key = cluster_config(cluster)
        self._value = value
        self._report = report

    def write(self) -> None:
        """Announce the cluster."""
        self._output.put(self._key, self._value)

    async def watch(self, store: Reader) -> None:
        """Put it back as soon as somebody edits or removes it; for ever."""
        # The prefix of one key is also that of longer names: `paris` and `paris2`.
        async with ending(follow(store, self._key)) as story:
            async for events in story:
                for event in events:
                    match event:
                        case Put(self._key, value) if value != self._value:
                            self._put_back(value)
                        case Put(self._key):
                            self._report(None)
                        case Delete(self._key):
                            self._put_back(None)

    async def recheck(self, store: Reader, *, every: float) -> None:
        """Read it back now and then, should a watch ever miss something; for ever."""
        while True:
            await asyncio.sleep(every)
            try:
                entry = await store.get(self._key)
            except StoreError:
                continue  # the connection's own condition tells
            if entry is None or entry.value != self._value:
                self._put_back(None if entry is None else entry.value)

    def _put_back(self, found: bytes | None) -> None:
        text = "removed" if found is None else f"changed to {found.decode(errors='replace')}"
        log.warning("cluster-config put back", key=self._key, was=text)
        if found is not None:
            self._report(
                f"somebody else writes {self._key} ({text}): is another apiserver using this etcd?"
            )
        self._output.rewrite(self._key)
