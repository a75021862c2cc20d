"""What a kvstoremesh says of itself, as values: status, Cilium's list of clusters, metrics."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec

from clustermesh.apiserver.measured import Measured, scope
from clustermesh.apiserver.metrics import Requests
from clustermesh.health import Board
from clustermesh.keys import Kind
from clustermesh.kvstoremesh.metrics import Copied, Reading
from clustermesh.kvstoremesh.remote import Remote
from clustermesh.kvstoremesh.settings import Settings
from clustermesh.status import KvstoremeshStatus, RemoteConfig, RemoteStatus, SyncedKinds
from clustermesh.trust.expiry import InUse
from clustermesh.version import VERSION
from kvstore.etcd import EtcdStore


class ClusterEntry(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", omit_defaults=True):
    """A remote cluster in GET /v1/cluster, as Cilium's tools read it (contract kvstore 8)."""

    name: str
    ready: bool = False
    connected: bool = False
    status: str = ""
    num_failures: int = 0
    last_failure: str
    num_nodes: int = 0
    num_identities: int = 0
    num_endpoints: int = 0
    num_shared_services: int = 0
    num_service_exports: int = 0
    num_endpoint_slices: int = 0
    config: "ConfigEntry"
    synced: SyncedKinds


class ConfigEntry(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", omit_defaults=True):
    """Its config there; nothing that is false or empty is written, ``required`` always true."""

    required: bool
    retrieved: bool = False
    cluster_id: int = 0
    kvstoremesh: bool = False
    sync_canaries: bool = False
    service_exports_enabled: bool | None = None
    endpoint_slices_export_mode: str = ""


def entry(status: RemoteStatus) -> ClusterEntry:
    """The same in Cilium's words."""
    same = {
        field: getattr(status, field)
        for field in ClusterEntry.__struct_fields__
        if field not in ("last_failure", "config")
    }
    config = {field: getattr(status.config, field) for field in RemoteConfig.__struct_fields__}
    return ClusterEntry(
        **same, last_failure=_moment(status.last_failure), config=ConfigEntry(**config)
    )


def _moment(unix: float) -> str:
    """RFC 3339 with milliseconds; 0 is Go's zero time, which says never."""
    if not unix:
        return "0001-01-01T00:00:00.000Z"
    text = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Report:
    """Reads the parts; owns the few facts that none of them has."""

    def __init__(
        self,
        settings: Settings,
        board: Board,
        *,
        etcd: EtcdStore,
        measured: Measured,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.role = "waiting for the own etcd"
        self.leads: Callable[[], bool] = lambda: False
        self.remotes: Callable[[], Iterable[Remote]] = lambda: ()
        self.sentences: Callable[[], Iterable[str]] = lambda: ()
        self._settings = settings
        self._board = board
        self._etcd = etcd
        self._measured = measured
        self._certificates = InUse(
            own=settings.cluster_name,
            client=settings.etcd_config,
            remotes=settings.clustermesh_config,
        )
        self._now = now
        self._started = now()
        self._synced_at = 0.0

    def first_sync_done(self) -> None:
        """Everything that could be had at the start is in the cache."""
        self._synced_at = self._synced_at or self._now()

    def status(self) -> KvstoremeshStatus:
        """GET /v1/status."""
        remotes = [*self.remotes()]
        return KvstoremeshStatus(
            cluster=self._settings.cluster_name,
            cluster_id=self._settings.cluster_id,
            version=VERSION,
            ready=self._board.ready,
            started=self._started,
            replica=self._settings.replica_name,
            role=self.role,
            etcd=self._etcd.status_text(),
            remotes=tuple(remote.status() for remote in remotes),
            pending=sum(remote.holding.publisher.pending for remote in remotes),
            trouble=(*self._board.trouble(), *self.sentences()),
            certificates=self._certificates.read(),
        )

    def clusters(self) -> list[ClusterEntry]:
        """GET /v1/cluster."""
        return [entry(remote.status()) for remote in self.remotes()]

    def reading(self) -> Reading:
        """GET /metrics."""
        took = self._synced_at - self._started if self._synced_at else 0.0
        return Reading(
            cluster=self._settings.cluster_name,
            leads=self.leads(),
            copies=[_copied(remote) for remote in self.remotes()],
            requests=Requests(
                succeeded=self._measured.succeeded,
                failed=self._measured.failed,
                in_flight=self._measured.in_flight,
                seconds=self._measured.seconds,
                limit=self._etcd.config.qps,
            ),
            errors=self._measured.errors,
            bootstrap_seconds=took,
            certificates=self._certificates.read(),
        )


def _copied(remote: Remote) -> Copied:
    holding, status = remote.holding, remote.status()
    return Copied(
        status=status,
        read=_read(status.synced),
        whole=frozenset(holding.whole),
        keys={kind: len(copy.known) for kind, copy in holding.copies.items()},
        queued=Counter(map(scope, holding.publisher.queued())),
        events={kind: copy.events for kind, copy in holding.copies.items()},
    )


def _read(synced: SyncedKinds) -> dict[Kind, bool]:
    """Which of the kinds that are followed have been read in full."""
    found = {
        Kind.NODES: synced.nodes,
        Kind.IDENTITIES: synced.identities,
        Kind.IPS: synced.endpoints,
        Kind.SERVICES: synced.services,
        Kind.SERVICE_EXPORTS: synced.service_exports,
        Kind.ENDPOINT_SLICES: synced.endpoint_slices,
    }
    return {kind: done for kind, done in found.items() if done is not None}
