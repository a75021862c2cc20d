"""Numbers of flavour core, recorded as MeshIdentity objects by the replica with the lease."""

import asyncio
import json
from collections.abc import Callable, Container, Iterable, Sequence

from clustermesh.identities.allocator import preferred
from clustermesh.sources import objects
from clustermesh.sources.kubernetes.failures import ApiFailure, Conflict
from clustermesh.sources.kubernetes.lease import Lease
from clustermesh.sources.kubernetes.request import Request, Sends
from clustermesh.sources.objects import MeshIdentity, ObjectKind
from clustermesh.sources.port import ObjectChange, Upsert
from kvstore.backoff import Backoff

PATH = "/apis/clustermesh.io/v1alpha1/meshidentities"
AT_ONCE = 16
"""Records written at the same time."""


class Numbers:
    """Implements ``export.Numbers``: a number is told once its record is in the API server.

    An object's name is its number, so the API server itself sees to it that no number is given
    twice. Every replica follows the records; the one with the lease writes those that are missing.
    Records are kept for ever; when every number has one, the oldest that nothing refers to is
    given away.
    """

    def __init__(self, api: Sends, numbers: range, lease: Lease) -> None:
        """``numbers``: of this cluster (``keys.identity_range``)."""
        self._api = api
        self._range = numbers
        self._lease = lease
        self._labels: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._waiting: dict[str, None] = {}
        self._lost: dict[str, int] = {}
        """Numbers in use whose record was deleted, by their labels."""
        self._synced = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self.in_use: Callable[[int], bool] = lambda _number: False
        """Whether anything published refers to a number (``Exporter.has_identity``)."""
        self.decided: Callable[[Iterable[str]], None] = lambda _labels: None
        """Told of labels that waited and now have a number (``Publication.decided``)."""

    def number(self, label_text: str) -> int | None:
        """The number of these labels; None until it is recorded."""
        known = self._numbers.get(label_text)
        if known is None:
            self._waiting[label_text] = None
            self._settled.clear()
            self._wake.set()
        return known

    def learn(self, changes: Sequence[ObjectChange]) -> None:
        """What the records say."""
        for change in changes:
            match change:
                case Upsert(MeshIdentity() as record):
                    self._record(record.metadata.name, record.spec.labels)
                case Upsert():
                    continue
                case _:
                    self._unrecord(change.ref.name)
        self._tell()

    def synced(self) -> None:
        """Every record that exists has been learned."""
        self._synced = True
        self._wake.set()

    async def settled(self) -> None:
        """Wait until nothing waits for a number."""
        self._tell()
        await self._settled.wait()

    async def run(self, report: Callable[[str | None], None]) -> None:
        """Give numbers while we hold the lease; ``report`` is told why that does not succeed."""
        waits = Backoff(first=0.5, ceiling=15.0)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._synced or not self._waiting:
                continue
            if not self._lease.held:
                self._lease.taken.clear()
                await self._lease.taken.wait()
            trouble = await self._give(list(self._waiting)[:AT_ONCE])
            if trouble:
                report(f"new identities wait: {trouble}")
                await asyncio.sleep(next(waits))
            else:
                report(None)
                waits.reset()
            self._wake.set()

    async def _give(self, batch: Sequence[str]) -> str:
        """Number and record; why that was not possible, or nothing."""
        promised: dict[int, str] = {}
        trouble = ""
        for labels in batch:
            number = self._free(labels, promised)
            if number is None:
                return f"all {len(self._range)} numbers of the cluster are in use"
            promised[number] = labels
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, labels in promised.items():
                    tasks.create_task(self._write(number, labels), name=f"identity/{number}")
        except* ApiFailure as group:
            trouble = f"cannot write MeshIdentity objects: {group.exceptions[0]}"
        return trouble

    def _free(self, labels: str, promised: Container[int]) -> int | None:
        """What it had, what the labels hash to, the next free one; else one to give away."""
        lost = self._lost.get(labels)
        if lost is not None and lost not in self._labels and lost not in promised:
            return lost
        start = preferred(labels, self._range) - self._range.start
        if len(self._labels) < len(self._range):
            for step in range(len(self._range)):
                number = self._range[(start + step) % len(self._range)]
                if number not in self._labels and number not in promised:
                    return number
        return next((n for n in self._labels if n not in promised and not self.in_use(n)), None)

    async def _write(self, number: int, labels: str) -> None:
        body = {
            "apiVersion": "clustermesh.io/v1alpha1",
            "kind": "MeshIdentity",
            "metadata": {"name": str(number)},
            "spec": {"labels": labels},
        }
        if number in self._labels:
            await self._api.send(Request("DELETE", f"{PATH}/{number}"))
        try:
            made = await self._api.send(Request("POST", PATH, body=json.dumps(body).encode()))
        except Conflict:  # written by another replica, and not yet seen here
            made = await self._api.send(Request("GET", f"{PATH}/{number}"))
        record = objects.decode(ObjectKind.MESH_IDENTITY, made)
        self.learn((Upsert(record),))

    def _record(self, name: str, labels: str) -> None:
        number = int(name) if name.isascii() and name.isdecimal() else -1
        if number not in self._range or not labels:
            return
        before = self._labels.get(number)
        if before is not None and before != labels and self._numbers.get(before) == number:
            del self._numbers[before]
        self._labels[number] = labels
        self._lost.pop(labels, None)
        self._numbers[labels] = min(number, self._numbers.get(labels, number))

    def _unrecord(self, name: str) -> None:
        """A record was deleted. While its number is in use it is ours to write again."""
        number = int(name) if name.isascii() and name.isdecimal() else -1
        labels = self._labels.pop(number, None)
        if labels is None or self._numbers.get(labels) != number:
            return
        del self._numbers[labels]
        if self.in_use(number):
            self._lost[labels] = number
            self._waiting[labels] = None
            self._wake.set()

    def _tell(self) -> None:
        known = [labels for labels in self._waiting if labels in self._numbers]
        for labels in known:
            del self._waiting[labels]
        if known:
            self.decided(known)
        if not self._waiting:
            self._settled.set()
