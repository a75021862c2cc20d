"""What is known of one cluster's life: kept by its task, shown as status."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from clustermesh.keys import Kind
from clustermesh.local import AnyKind, LocalKind
from clustermesh.model import ClusterConfig
from clustermesh.status import RemoteConfig, RemoteStatus, SyncedKinds
from kvstore.events import shown
from kvstore.heartbeat import Pulse

log = structlog.get_logger()
WARNINGS: Final = 20  # bad values named in the log per cluster and connection; all are counted

Counts = Callable[[str, AnyKind], int]


class Connection(Protocol):
    """What a present connection knows of itself."""

    @property
    def etcd(self) -> str:
        """Which etcd answers, where that can be told."""
        ...

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds since the heartbeat changed, None before the handshake."""
        ...

    @property
    def held(self) -> str:
        """Why deletions are held, empty when they are not."""
        ...

    @property
    def round_trip(self) -> float | None:
        """Seconds of a question and its answer, None when that is not known."""
        ...


class Progress:
    """One cluster's connection as numbers, ages and sentences."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.config: ClusterConfig | None = None
        self.pulse = Pulse()
        """Its heartbeat, over all connections."""
        self.unconfirmed = False
        """Whether facts of an earlier run are in use that the cluster has not told yet."""
        self.confirmed = False
        """Whether every kind has been read in full, and believed, since the process started."""
        self.refused = 0
        self.revocations = 0
        """How often services were let go because the cluster stayed away."""
        self.on_change: Callable[[], None] = lambda: None
        self.settled = asyncio.Event()
        """Set when nobody needs to wait for the cluster: it was ready once, or is overdue."""
        self._trouble: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._synced: dict[AnyKind, bool] = {}
        self._unsettled: set[AnyKind] = set()
        """Kinds of which it is not believed that what the list lacked is gone."""
        self._connected_at = 0.0
        self._away_since: float | None = None
        self._failures = 0
        self._last_failure = 0.0
        self._last_reason = ""
        self._newest: float | None = None
        self._warned = 0

    # -- told by the cluster's task -----------------------------------------------------------

    def begin(self, kinds: tuple[AnyKind, ...]) -> None:
        """A connection stands and these kinds will be read in full."""
        self._synced = dict.fromkeys(kinds, False)
        self._unsettled = set(kinds)
        self._warned = 0
        self.trouble("connection", None)

    def end(self) -> None:
        """The connection is over; facts stay."""
        self._synced = dict.fromkeys(self._synced, False)
        self._connected_at = 0.0
        self._trouble.clear()
        self.on_change()

    def note(self, part: str, sentence: str | None) -> None:
        """Something is wrong that does not touch the connection, or no longer (None)."""
        if sentence is None:
            self._notes.pop(part, None)
        elif self._notes.get(part) != sentence:
            self._notes[part] = sentence
            log.warning("cluster in trouble", cluster=self.cluster, reason=sentence)

    def trouble(self, part: str, sentence: str | None) -> None:
        """``part`` of the connection is in trouble, or well again (None)."""
        was = bool(self._trouble)
        if sentence is None:
            self._trouble.pop(part, None)
        else:
            if not was:
                self._failures += 1
                log.warning("cluster unreachable", cluster=self.cluster, reason=sentence)
            self._trouble[part] = sentence
            self._last_failure = time.time()
            self._last_reason = sentence
            self._connected_at = 0.0
        if self._trouble and self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()
        if not self._trouble:
            self._away_since = None
        if not self._trouble and not self._connected_at:
            self._connected_at = time.time()
            log.info("cluster connected", cluster=self.cluster)
        self.on_change()

    def awaiting(self, kind: AnyKind, sentence: str | None) -> None:
        """The producer has not told all of a kind yet, or now has (None)."""
        if sentence is None:
            self._notes.pop(kind, None)
        elif kind not in self._notes:
            self._notes[kind] = sentence
            log.info("waiting for a full list", cluster=self.cluster, kind=str(kind))

    def told(self, kind: AnyKind) -> None:
        """The kind has been read in full, whether or not what it lacked is believed to be gone."""
        self._synced[kind] = True
        if self.ready:
            self.settled.set()
            if not self._unsettled:
                self.unconfirmed = False
                self.confirmed = True
        self.on_change()

    def synced(self, kind: AnyKind) -> None:
        """The kind has been read in full, and that is all there is."""
        self._unsettled.discard(kind)
        self.told(kind)

    def news(self) -> None:
        """A fact came."""
        self._newest = asyncio.get_running_loop().time()

    def bad_value(self, kind: AnyKind, key: str, reason: str) -> None:
        """A value was refused; what it replaces stays for now."""
        self.refused += 1
        self._warned += 1
        if self._warned <= WARNINGS:
            log.warning(
                "value refused",
                cluster=self.cluster,
                kind=str(kind),
                key=shown(key),
                reason=reason,
            )
        elif self._warned == WARNINGS + 1:
            log.warning("more values refused, not named", cluster=self.cluster)

    # -- asked ----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the cluster's etcd answers."""
        return self._connected_at > 0

    @property
    def away_for(self) -> float:
        """Seconds since the connection was lost, or could not be made; 0 while it stands."""
        since = self._away_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    @property
    def ready(self) -> bool:
        """Connected, known, and every kind read in full (contract kvstore 8)."""
        return (
            self.connected
            and self.config is not None
            and bool(self._synced)
            and all(self._synced.values())
        )

    def sentence(self) -> str:
        """What is wrong now, empty when nothing is."""
        return next(iter([*self._trouble.values(), *self._notes.values()]), "")

    def status(self, counts: Counts, session: Connection | None) -> RemoteStatus:
        """All of it; ``session`` is the present connection."""
        now = asyncio.get_running_loop().time()
        services = LocalKind.SERVICES if LocalKind.SERVICES in self._synced else Kind.SERVICES
        return RemoteStatus(
            name=self.cluster,
            ready=self.ready,
            connected=self.connected,
            status=self.sentence() or (session.etcd if session else ""),
            num_failures=self._failures,
            last_failure=self._last_failure,
            last_failure_reason=self._last_reason,
            num_nodes=counts(self.cluster, Kind.NODES),
            num_identities=counts(self.cluster, Kind.IDENTITIES),
            num_endpoints=counts(self.cluster, Kind.IPS),
            num_shared_services=counts(self.cluster, services),
            num_service_exports=counts(self.cluster, Kind.SERVICE_EXPORTS),
            num_endpoint_slices=counts(self.cluster, Kind.ENDPOINT_SLICES),
            config=self._config(),
            synced=self._kinds(),
            connected_since=self._connected_at,
            heartbeat_age=session.heartbeat_age if session else None,
            newest_fact_age=None if self._newest is None else now - self._newest,
            unconfirmed=self.unconfirmed,
            held=session.held if session else "",
            refused_values=self.refused,
            cache_revocations=self.revocations,
            round_trip=session.round_trip if session else None,
        )

    def _config(self) -> RemoteConfig:
        if self.config is None:
            return RemoteConfig()
        capabilities = self.config.capabilities
        return RemoteConfig(
            retrieved=True,
            cluster_id=self.config.id,
            kvstoremesh=capabilities.cached,
            sync_canaries=capabilities.synced_canaries,
            service_exports_enabled=capabilities.service_exports_enabled,
            endpoint_slices_export_mode=capabilities.endpoint_slices_export_mode,
        )

    def _kinds(self) -> SyncedKinds:
        done = self._synced
        services = (Kind.SERVICES, LocalKind.SERVICES, Kind.ENDPOINT_SLICES)
        return SyncedKinds(
            nodes=done.get(Kind.NODES) is True,
            services=any(done.get(kind) is True for kind in services),
            identities=done.get(Kind.IDENTITIES) is True,
            endpoints=done.get(Kind.IPS) is True,
            service_exports=done.get(Kind.SERVICE_EXPORTS),
            endpoint_slices=done.get(Kind.ENDPOINT_SLICES),
        )
