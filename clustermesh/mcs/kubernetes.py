"""Imports through a Kubernetes API server: one replica at a time makes true what should be."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Final

from clustermesh.logs import get_logger
from clustermesh.mcs.embedded import status
from clustermesh.mcs.imports import Imports, collision, held
from clustermesh.mcs.names import Name
from clustermesh.mcs.plan import Step, There, Versions, plan
from clustermesh.model import ServiceExport
from clustermesh.sources.kubernetes import discovery
from clustermesh.sources.kubernetes.api import Api
from clustermesh.sources.kubernetes.failures import ApiFailure, Conflict, Missing, Unsupported
from clustermesh.sources.kubernetes.lease import Lease
from clustermesh.sources.kubernetes.request import JSON, MERGE_PATCH, Request
from clustermesh.sources.kubernetes.resources import EXPORTS, IMPORTS
from clustermesh.sources.objects import ObjectKind
from clustermesh.sources.port import ObjectChange, SourceSink
from clustermesh.status import ImportStatus
from kvstore.backoff import Backoff

log = get_logger()
AT_ONCE: Final = 16
"""Names worked on at the same time."""


class Writer:
    """A sink before the sink, which hears what there is; ``run`` writes what should be.

    Whatever is written comes back as news, and the name is worked out again: level-based, so a
    lost or repeated write is made good. A refusal by the server is told of one name and hurts no
    other.
    """

    def __init__(
        self,
        imports: Imports,
        inner: SourceSink,
        *,
        kinds: Collection[ObjectKind],
        api: Api,
        lease: Lease,
        unread: Callable[[], Collection[str] | None],
        report: Callable[[str | None], None],
        retry: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is written before the ``kinds`` have been read in full.

        ``unread``: clusters that have not told all yet; None while it is not known which.
        """
        self._imports = imports
        self._inner = inner
        self._api = api
        self._lease = lease
        self._unread = unread
        self._report = report
        self._retry = retry
        self._now = now
        self._wake = asyncio.Event()
        self._awaited = set(kinds)
        self._read = asyncio.Event()
        self._problems: dict[Name, str] = {}

    # --- the source ----------------------------------------------------------------------------

    def apply(self, kind: ObjectKind, changes: Sequence[ObjectChange]) -> None:
        """As ``SourceSink``."""
        self._imports.heard(changes)
        if kind is not ObjectKind.SERVICE_IMPORT:
            self._inner.apply(kind, changes)
        self._stir()

    def synced(self, kind: ObjectKind) -> None:
        """As ``SourceSink``; imports are read for us only."""
        if kind is not ObjectKind.SERVICE_IMPORT:
            self._inner.synced(kind)
        self._awaited.discard(kind)
        if not self._awaited:
            self._read.set()

    def refused(self, what: str, reason: str | None) -> None:
        """As ``SourceSink``."""
        self._inner.refused(what, reason)

    def trouble(self, kind: ObjectKind | None, reason: str | None) -> None:
        """As ``SourceSink``: without imports all else is published as ever."""
        if kind is ObjectKind.SERVICE_IMPORT:
            self._report(reason)
        else:
            self._inner.trouble(kind, reason)

    # --- other clusters ------------------------------------------------------------------------

    def told(self, cluster: str, name: Name, export: ServiceExport | None) -> None:
        """As ``remotes.Listener``."""
        self._imports.told(cluster, name, export)
        self._stir()

    def exported_by(self, cluster: str) -> list[Name]:
        """As ``remotes.Listener``."""
        return self._imports.exported_by(cluster)

    def complete(self, cluster: str) -> None:
        """What waited for it can go on."""
        log.debug("exports read", cluster=cluster)
        self._imports.touch_everything()
        self._stir()

    def _stir(self) -> None:
        if self._imports.touched:
            self._wake.set()

    # --- what follows --------------------------------------------------------------------------

    async def run(self) -> None:
        """Write while we hold the lease, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.run(), name="lease of imports")
            await self._read.wait()
            versions = await self._versions()
            while True:
                await self._wake.wait()
                if not self._lease.held:
                    self._lease.taken.clear()
                    await self._lease.taken.wait()
                    self._imports.touch_everything()  # another replica may have written meanwhile
                self._wake.clear()
                names = self._imports.take(AT_ONCE)
                failed = await self._turn_all(names, versions)
                if failed:
                    await asyncio.sleep(self._retry)
                    for name in failed:
                        self._imports.touched[name] = None
                self._stir()

    def statuses(self) -> tuple[ImportStatus, ...]:
        """Every import, by name."""
        found = []
        for name in self._imports:
            wanted = self._imports.wanted(name)
            if wanted.service_import is not None or wanted.conditions:
                derived = self._imports.derived(name)
                ips = derived.spec.cluster_ips if derived is not None else ()
                found.append(status(name, wanted, ips, self._problems.get(name, "")))
        return tuple(found)

    async def _versions(self) -> Versions:
        """Of the API that the server has; waits until it has it."""
        waits = Backoff(first=0.5, ceiling=30.0)
        while True:
            try:
                imports = await discovery.serves(self._api, IMPORTS)
                exports = await discovery.serves(self._api, EXPORTS)
            except ApiFailure as failure:
                problem = str(failure)
            else:
                if imports is not None and exports is not None:
                    self._report(None)
                    return Versions(imports.version, exports.version)
                problem = "the API server does not serve it; install the CRDs of the MCS-API"
            wait = next(waits)
            self._report(f"{IMPORTS.title}: {problem}; asking again in {wait:.1f} s")
            await asyncio.sleep(wait)

    async def _turn_all(self, names: Sequence[Name], versions: Versions) -> list[Name]:
        """Work on several names at once; those that have to be tried again."""
        failed: list[Name] = []
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(self._turn(name, versions, failed), name=f"import {name[1]}")
        return failed

    async def _turn(self, name: Name, versions: Versions, failed: list[Name]) -> None:
        unread = self._unread()
        there = self._imports.imports.get(name)
        if unread is None or held(there, unread):
            return  # touched again when the clusters have spoken
        wanted = self._imports.wanted(name)
        derived = self._imports.derived(name)
        clash = collision(derived) if wanted.derived is not None else ""
        present = There(
            service_import=there,
            derived=None if clash or collision(derived) else derived,
            slices=self._imports.copies(name),
            export=self._imports.own_export(name),
        )
        steps = plan(wanted, present, versions, now=_rfc3339(self._now()))
        problem = clash
        for step in steps:
            if clash and step.path.endswith("/services"):
                continue
            problem = problem or await self._do(step, name, failed)
        self._tell(name, problem)
        nothing = there is None and derived is None and not present.slices
        if wanted.service_import is None and present.export is None and nothing:
            self._imports.forget(name)

    async def _do(self, step: Step, name: Name, failed: list[Name]) -> str:
        """One request; why it cannot be done, if it cannot."""
        body = None if step.body is None else json.dumps(step.body).encode()
        content = MERGE_PATCH if step.method == "PATCH" else JSON
        try:
            await self._api.send(Request(step.method, step.path, body=body, content=content))
        except Conflict:
            log.debug("made by somebody else meanwhile", path=step.path)
        except Missing as failure:
            if step.method != "DELETE":
                failed.append(name)
                return f"{step.method} {step.path}: {failure}"
        except Unsupported as failure:
            return f"{step.method} {step.path}: {failure}"  # until something about it changes
        except ApiFailure as failure:
            failed.append(name)
            return f"{step.method} {step.path}: {failure}"
        else:
            log.info("import written", method=step.method, path=step.path)
        return ""

    def _tell(self, name: Name, problem: str) -> None:
        if problem:
            self._problems[name] = problem
        else:
            self._problems.pop(name, None)
        self._inner.refused(f"ServiceImport {name[0]}/{name[1]}", problem or None)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
