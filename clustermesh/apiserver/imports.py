"""The import side of the Multi-Cluster Services API, put together for either source."""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from clustermesh.apiserver.settings import Settings
from clustermesh.mcs.imports import Cluster, Imports
from clustermesh.mcs.names import Name
from clustermesh.mcs.remotes import Me, Remotes
from clustermesh.model import ServiceExport
from clustermesh.remotes.session import Waits
from clustermesh.sources.port import SourceSink
from clustermesh.status import ImportStatus, RemoteStatus
from kvstore.shared import Connections

Report = Callable[[str | None], None]
Unread = Callable[[], Collection[str] | None]


class Importer(SourceSink, Protocol):
    """Hears of exports here and elsewhere, and makes services of them."""

    def told(self, cluster: str, name: Name, export: ServiceExport | None) -> None:
        """What another cluster exports under a name; None: nothing any more."""
        ...

    def exported_by(self, cluster: str) -> list[Name]:
        """The names that another cluster exports."""
        ...

    def complete(self, cluster: str) -> None:
        """All that the cluster exports has been told."""
        ...

    def statuses(self) -> tuple[ImportStatus, ...]:
        """Every import, by name."""
        ...

    async def run(self) -> None:
        """Do what takes time; for ever."""
        ...


Makes = Callable[[Imports, SourceSink, Unread, Report], Importer]
"""What a source offers: an importer that hands on to a sink."""


class Reports(Protocol):
    """Conditions (``health.Board``)."""

    def reporter(self, name: str) -> Report:
        """Takes a reason why ``name`` is not well, or None."""
        ...


class ImportSide:
    """Remote clusters' exports, and the importer that is told of them. ``sink`` is the source's."""

    def __init__(
        self, settings: Settings, here: Cluster, inner: SourceSink, makes: Makes, board: Reports
    ) -> None:
        imports = Imports(
            settings.cluster_name,
            here,
            global_namespaces=settings.global_namespaces,
            declared_only=settings.source == "kubernetes",
        )
        self.sink = makes(imports, inner, self.unread, board.reporter("imports"))
        self._connections = Connections()
        self._remotes = self._listening(settings, board)

    def _listening(self, settings: Settings, board: Reports) -> Remotes | None:
        if settings.clustermesh_config is None:
            return None
        me = Me(
            cluster=settings.cluster_name,
            cluster_id=settings.cluster_id,
            max_clusters=settings.max_connected_clusters,
        )
        return Remotes(
            settings.clustermesh_config,
            me=me,
            listener=self.sink,
            opener=self._connections.open,
            waits=Waits(),
            scan_interval=settings.clustermesh_config_recheck,
            report=board.reporter("clustermesh-config"),
        )

    def unread(self) -> Collection[str] | None:
        """Clusters that have not told all since the start; None: not known which there are."""
        return self._remotes.unread() if self._remotes is not None else ()

    async def settled(self) -> None:
        """Wait until every configured cluster has told all once."""
        if self._remotes is not None:
            await self._remotes.all_told()

    async def run(self) -> None:
        """Follow other clusters, and write; for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.sink.run(), name="imports")
            if self._remotes is not None:
                tasks.create_task(self._connections.run(), name="etcds of other clusters")
                tasks.create_task(self._remotes.run(), name="exports of other clusters")

    def statuses(self) -> tuple[ImportStatus, ...]:
        """Every import, by name."""
        return self.sink.statuses()

    def remotes(self) -> tuple[RemoteStatus, ...]:
        """Every other cluster, by name."""
        return self._remotes.statuses() if self._remotes is not None else ()

    def trouble(self) -> tuple[str, ...]:
        """What is wrong with other clusters, a sentence each."""
        return self._remotes.trouble() if self._remotes is not None else ()
