"""What the apiserver says of itself, as values: status for people, a reading for metrics."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from clustermesh.apiserver.heartbeat import Heart
from clustermesh.apiserver.imports import ImportSide
from clustermesh.apiserver.measured import Measured, scope
from clustermesh.apiserver.metrics import Reading, Requests
from clustermesh.apiserver.publication import Publication
from clustermesh.apiserver.settings import Settings
from clustermesh.health import Board
from clustermesh.keys import Kind
from clustermesh.sources.objects import KubernetesObject, ObjectKind, Ref
from clustermesh.status import ApiserverStatus, CertificateStatus, SourceKind
from clustermesh.version import VERSION
from kvstore.etcd import EtcdStore

HEAD = len("cilium/state/serviceexports/v1")
"""Characters of a key that name its scope: a hundred thousand keys have few beginnings."""


class Objects(Protocol):
    """What the exporter knows."""

    def known(self) -> Mapping[Ref, KubernetesObject]:
        """The objects."""
        ...

    def wanted(self) -> Mapping[str, bytes]:
        """The keys that should be there, with their values."""
        ...


class Report:
    """Reads the parts; owns the few facts that none of them has."""

    def __init__(
        self,
        settings: Settings,
        board: Board,
        publication: Publication,
        heart: Heart,
        *,
        source: str,
        objects: Objects,
        etcd: EtcdStore,
        queued: Callable[[], Iterable[str]],
        measured: Measured,
        kinds: Iterable[Kind],
        started: float,
        imports: ImportSide | None = None,
        certificates: Callable[[], tuple[CertificateStatus, ...]] = tuple,
        peers: Callable[[], tuple[str, ...] | None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._board = board
        self._publication = publication
        self._heart = heart
        self._source = source
        self._objects = objects
        self._etcd = etcd
        self._queued = queued
        self._measured = measured
        self._scopes = tuple(f"{kind}/v1" for kind in kinds)
        self._certificates = certificates
        self._peers = peers
        self._now = now
        self._started = started
        self._imports = imports
        self._synced_at = 0.0

    def first_sync_done(self) -> None:
        """Everything there was at the start is in etcd, canaries included."""
        self._synced_at = self._synced_at or self._now()

    def status(self) -> ApiserverStatus:
        """GET /v1/status."""
        imports = self._imports
        return ApiserverStatus(
            cluster=self._settings.cluster_name,
            cluster_id=self._settings.cluster_id,
            version=VERSION,
            ready=self._board.ready,
            started=self._started,
            source=self._source,
            etcd=self._etcd.status_text(),
            kinds=self._kinds(),
            keys=self._keys(),
            pending=sum(1 for _ in self._queued()),
            heartbeat=self._heart.last,
            trouble=(*self._board.trouble(), *(imports.trouble() if imports else ())),
            refusals=self._publication.refusals.listed(),
            imports=imports.statuses() if imports else (),
            remotes=imports.remotes() if imports else (),
            certificates=self._certificates(),
            peers=self._peers(),
        )

    def reading(self) -> Reading:
        """GET /metrics."""
        waited = self._etcd.waited
        nothing = dict.fromkeys(self._scopes, 0)
        took = self._synced_at - self._started if self._synced_at else 0.0
        return Reading(
            cluster=self._settings.cluster_name,
            keys=self._keys(),
            pending=nothing | Counter(map(scope, self._queued())),
            errors=nothing | dict(self._measured.errors),
            requests=Requests(
                succeeded=self._measured.succeeded,
                failed=self._measured.failed,
                in_flight=self._measured.in_flight,
                seconds=self._measured.seconds,
                limit=self._etcd.config.qps,
                waited=(waited.least, waited.mean, waited.most),
            ),
            initial_sync=dict.fromkeys(self._scopes, bool(self._synced_at)),
            bootstrap_seconds=took,
            kinds=self._kinds(),
            refused=len(self._publication.refusals),
            heartbeat=self._heart.last,
            certificates=self._certificates(),
        )

    def _kinds(self) -> dict[str, SourceKind]:
        counts: Counter[ObjectKind] = Counter(ref.kind for ref in self._objects.known())
        return self._publication.kinds(counts)

    def _keys(self) -> dict[str, int]:
        heads = Counter(key[:HEAD] for key in self._objects.wanted())
        counts: Counter[str] = Counter()
        for head, count in heads.items():
            counts[scope(head)] += count
        return dict(counts)
