"""``--validate``: every fault that can be found without publishing anything, one line each."""

import asyncio
import sys
from collections.abc import Iterator, Sequence

from clustermesh.apiserver import start, userfile
from clustermesh.apiserver.settings import Settings
from clustermesh.apiserver.sources import Supply, opened
from clustermesh.export import Exporter
from clustermesh.identities import Allocator
from clustermesh.keys import identity_range
from clustermesh.process import Fault
from clustermesh.remotes import directory
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import ObjectChange

WAIT = 30.0  # seconds for a source to be read in full


async def validate(settings: Settings) -> None:
    """Write what is wrong to stderr and raise ``Fault``, or say that all is well."""
    faults = [*_configuration(settings)]
    try:
        async with opened(settings, lambda _: None) as supply, asyncio.timeout(WAIT):
            faults += await _objects(supply)
    except TimeoutError:
        faults.append(f"the source was not read in full within {WAIT:g} s")
    except Fault as fault:
        faults.append(str(fault))
    for line in faults:
        sys.stderr.write(f"{line}\n")
    if faults:
        raise Fault(f"not valid: {len(faults)} faults")
    sys.stdout.write("valid\n")


def _configuration(settings: Settings) -> Iterator[str]:
    try:
        start.etcd_config(settings)
    except Fault as fault:
        yield str(fault)
    if settings.cluster_users_config_path is not None:
        try:
            userfile.read(settings.cluster_users_config_path)
        except Fault as fault:
            yield str(fault)
    if settings.clustermesh_config is not None:
        remotes, problem = directory.scan(settings.clustermesh_config, own=settings.cluster_name)
        yield from filter(None, (problem, *(each.problem for each in remotes.values())))


async def _objects(supply: Supply) -> list[str]:
    reading = _Reading(supply)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(supply.source.run(reading), name="source")
        await reading.done.wait()
        following.cancel()
    return list(reading.faults())


class _Reading:
    """A sink that keeps what is wrong, until everything has been read once."""

    def __init__(self, supply: Supply) -> None:
        export = supply.export
        numbers = Allocator(identity_range(export.cluster_id, export.max_clusters))
        self._exporter = Exporter(export, numbers)
        self._left = set(supply.source.kinds)
        self._refused: dict[str, str] = {}
        self._trouble: dict[ObjectKind | None, str] = {}
        self.done = asyncio.Event()

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        self._exporter.apply(kind, changes)

    def synced(self, kind: ObjectKind) -> None:
        self._left.discard(kind)
        self._settle()

    def refused(self, what: str, reason: str | None) -> None:
        if reason is None:
            self._refused.pop(what, None)
        else:
            self._refused[what] = reason

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        if reason is None:
            self._trouble.pop(kind, None)
        else:
            self._trouble[kind] = reason
        self._settle()

    def faults(self) -> Iterator[str]:
        yield from self._trouble.values()
        for what, reason in (*self._refused.items(), *self._exporter.refusals()):
            yield f"{what}: {reason}"

    def _settle(self) -> None:
        if self._trouble or not self._left:
            self.done.set()
