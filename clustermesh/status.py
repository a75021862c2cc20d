"""What agent and apiserver say of themselves over HTTP, as values; meshctl reads them."""

import msgspec


class Count(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Entries in a map and how many it holds at most."""

    entries: int
    max_entries: int


class RemoteConfig(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", omit_defaults=True):
    """What the handshake with a remote cluster gave (contract kvstore 8, ``config``)."""

    required: bool = True
    retrieved: bool = False
    cluster_id: int = 0
    kvstoremesh: bool = False
    sync_canaries: bool = False
    service_exports_enabled: bool | None = None
    endpoint_slices_export_mode: str = ""


class SyncedKinds(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Which kinds of a cluster have been listed in full on this connection; None: not followed."""

    nodes: bool = False
    services: bool = False
    identities: bool = False
    endpoints: bool = False
    service_exports: bool | None = None
    endpoint_slices: bool | None = None


class Propagation(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """How long a cluster's facts take from its apiserver into a node's maps, in seconds.

    Of the newest ``samples`` probes (``clustermesh.propagation``), None of none. ``age`` is that of
    the newest probe, ``missed`` were overtaken by later ones. ``ahead`` is what was added to all
    because the writer's clock is ahead of the reader's by that much at least: no figure is
    negative. A clock that is behind makes the figures too long; one reader cannot tell.
    """

    p50: float | None
    p99: float | None
    samples: int
    missed: int
    age: float
    ahead: float = 0.0


class RemoteStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One remote cluster as one agent sees it (names of contract kvstore 8, then ours).

    ``last_failure`` and ``connected_since`` are Unix seconds, 0 for never; ``newest_fact_age`` is
    in seconds, None when nothing came yet. ``unconfirmed``: the facts are those that an earlier
    run left in its checkpoint.
    """

    name: str
    ready: bool = False
    connected: bool = False
    status: str = ""
    num_failures: int = 0
    last_failure: float = 0.0
    last_failure_reason: str = ""
    num_nodes: int = 0
    num_identities: int = 0
    num_endpoints: int = 0
    num_shared_services: int = 0
    num_service_exports: int = 0
    num_endpoint_slices: int = 0
    config: RemoteConfig = RemoteConfig()
    synced: SyncedKinds = SyncedKinds()
    connected_since: float = 0.0
    heartbeat_age: float | None = None
    newest_fact_age: float | None = None
    unconfirmed: bool = False
    held: str = ""
    refused_values: int = 0
    cache_revocations: int = 0
    round_trip: float | None = None
    """Seconds of a question to its etcd and the answer, the least of late; None: not known yet."""
    rtt: float | None = None
    """Seconds to a node of the cluster and back, through the overlay; None: not known."""
    loss: float | None = None
    """Share of probes through the overlay that got no answer."""
    propagation: Propagation | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One object that was refused; ``reason`` names the field and what was expected."""

    what: str
    reason: str
    since: float


class CertificateStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A certificate in use; ``what`` it is for, such as ``client of cluster-b``.

    ``not_after`` is in Unix seconds, ``fingerprint`` the SHA-256 of its DER in hex. ``file`` is
    empty when it was seen on the wire. ``authority``: it signs others.
    """

    what: str = ""
    subject: str
    fingerprint: str
    not_after: float
    file: str = ""
    authority: bool = False


class Probed(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """POST /v1/trust/probe of an apiserver: whether its etcd takes a connection, or why not."""

    ok: bool
    said: str = ""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/status of an agent. ``trouble`` holds full sentences, empty when all is well;
    ``written``: what was told so far is in the maps.
    """

    node: str
    cluster: str
    cluster_id: int
    version: str
    ready: bool
    started: float
    own: RemoteStatus
    remotes: tuple[RemoteStatus, ...]
    num_services: int = 0
    num_global_services: int = 0
    maps: dict[str, Count] = {}
    map_writes: int = 0
    written: bool = True
    last_round: str = ""
    audited: float = 0.0
    """When the maps were last compared with the etcds, Unix seconds; 0 for never."""
    differences: int = 0
    """Entries that were not as the etcds say then."""
    trouble: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    certificates: tuple[CertificateStatus, ...] = ()


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One backend (``ip:port``) of a frontend; ``why`` says what keeps it out when not ``used``."""

    id: int
    address: str
    cluster: str
    state: str = "active"
    used: bool = True
    why: str = ""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/services of an agent: one frontend (``ip:port/PROTO``) of a service.

    ``source_ranges``: it serves these clients only, on the node's devices; sockets leave it alone.
    """

    id: int
    namespace: str
    name: str
    frontend: str
    type: str = "ClusterIP"
    is_global: bool = False
    shared: bool = False
    affinity: str = "none"
    source_ranges: tuple[str, ...] = ()
    backends: tuple[BackendStatus, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/nodes of an agent: one node of the mesh."""

    name: str
    cluster: str
    ipv4: str = ""
    ipv4_cidrs: tuple[str, ...] = ()
    ipv6: str = ""
    ipv6_cidrs: tuple[str, ...] = ()
    overlay: tuple[str, ...] = ()
    source: str = ""


class IdentityStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/identities of an agent: number and labels (``source:key=value``)."""

    id: int
    cluster: str
    labels: tuple[str, ...]


class SourceKind(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One kind of object that the apiserver reads. Times are Unix seconds, 0 for never."""

    synced: bool = False
    objects: int = 0
    last_event: float = 0.0


class ImportStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One service of the Multi-Cluster Services API as an apiserver sees it.

    ``derived`` is the Service that stands for it, with its ``addresses``; ``export`` the reason of
    the own export's condition ``Valid``, empty when this cluster exports nothing of that name.
    """

    namespace: str
    name: str
    type: str = ""
    clusters: tuple[str, ...] = ()
    derived: str = ""
    addresses: tuple[str, ...] = ()
    conflict: str = ""
    export: str = ""
    problem: str = ""


class ApiserverStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/status of an apiserver."""

    cluster: str
    cluster_id: int
    version: str
    ready: bool
    started: float
    source: str
    etcd: str
    kinds: dict[str, SourceKind] = {}
    keys: dict[str, int] = {}
    pending: int = 0
    heartbeat: float = 0.0
    trouble: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    imports: tuple[ImportStatus, ...] = ()
    remotes: tuple[RemoteStatus, ...] = ()
    certificates: tuple[CertificateStatus, ...] = ()
    peers: tuple[str, ...] | None = None
    """The etcd users of other clusters as they are in the etcd; None: nobody told us."""


class KvstoremeshStatus(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """GET /v1/status of a kvstoremesh. ``role`` is ``leading``, or says who leads."""

    cluster: str
    cluster_id: int
    version: str
    ready: bool
    started: float
    replica: str
    role: str
    etcd: str
    remotes: tuple[RemoteStatus, ...] = ()
    pending: int = 0
    trouble: tuple[str, ...] = ()
    certificates: tuple[CertificateStatus, ...] = ()
