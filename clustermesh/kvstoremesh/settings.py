"""What a kvstoremesh can be told."""

import socket
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from clustermesh.apiserver.settings import CLUSTER_NAME
from clustermesh.settings import about, seconds, text

SUMMARY = "Copies what remote clusters publish into the own cluster's etcd, for its agents."


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """Everything; the descriptions are what ``--help`` shows."""

    cluster_name: Annotated[str, text("name of the own cluster", pattern=CLUSTER_NAME)]
    cluster_id: Annotated[int, about("number of the own cluster in the mesh", ge=1, le=511)]
    max_connected_clusters: Annotated[
        Literal[255, 511], about("size of the mesh, equal in all its clusters")
    ] = 255
    etcd_config: Annotated[
        Path, about("client file (YAML) of the own etcd, with the certificate of admin-<cluster>")
    ]
    clustermesh_config: Annotated[
        Path, about("directory with one etcd client file per remote cluster, named after it")
    ] = Path("/var/lib/cilium/clustermesh")
    scan_interval: Annotated[
        float, seconds("how often that directory is read without an event", ge=0.05)
    ] = 30.0
    etcd_qps: Annotated[
        float, about("transactions (of up to 128 keys) a second after the first sync", ge=1)
    ] = 1000.0
    lease_ttl: Annotated[float, seconds("how long copies outlive this process", ge=5, le=86400)] = (
        900.0
    )
    heartbeat_limit: Annotated[
        float, seconds("without a heartbeat of a cluster its deletions are held", ge=0.1)
    ] = 120.0
    config_recheck: Annotated[
        float, seconds("how often a remote cluster-config is read again", ge=0.05)
    ] = 30.0
    handshake_timeout: Annotated[float, seconds("for a cluster-config", ge=0.1)] = 60.0
    reconnect_ceiling: Annotated[
        float, seconds("longest wait between two tries to reach a cluster", ge=0.05)
    ] = 30.0
    doubt: Annotated[
        float, seconds("for so long deletions are held after a source was wiped or restored", ge=0)
    ] = 30.0
    per_cluster_ready_timeout: Annotated[
        float, seconds("readiness does not wait longer for a cluster without connection", ge=0)
    ] = 15.0
    global_ready_timeout: Annotated[
        float, seconds("readiness does not wait longer for anything", ge=0)
    ] = 600.0
    clustermesh_cache_ttl: Annotated[
        float, seconds("services of a cluster away for longer are let go; 0: never", ge=0)
    ] = 0.0
    drain_on_removal: Annotated[
        bool, about("remove the copy of a cluster whose file is removed")
    ] = True
    drain_wait: Annotated[
        float, seconds("between removing a cluster's config and its copy", ge=0)
    ] = 180.0
    drain_retry: Annotated[
        float, seconds("first wait after a removal was interrupted", ge=0.01)
    ] = 2.0
    max_keys_per_kind: Annotated[
        int, about("a cluster that publishes more of a kind is not copied any further", ge=1)
    ] = 1_000_000
    leader_ttl: Annotated[
        float, seconds("how soon another replica takes over from one that died", ge=2)
    ] = 15.0
    replica_name: Annotated[str, about("what tells this replica from the others")] = msgspec.field(
        default_factory=socket.gethostname
    )
    api_socket: Annotated[Path | None, about("unix socket of the HTTP interface")] = Path(
        "/run/clustermesh/kvstoremesh.sock"
    )
    api_listen: Annotated[str, about("HTTP also on host:port, such as 0.0.0.0:9881")] = ""
    api_serve_addr: Annotated[str, about("the same, under Cilium's name; localhost:9889 there")] = (
        ""
    )
    prometheus_serve_addr: Annotated[str, about("the same; :9964 there, for metrics")] = ""
    health_port: Annotated[
        int,
        about(
            "the same, on every address; 9880 or 9881 there, for health; 0: none", ge=0, le=65535
        ),
    ] = 0
    start_timeout: Annotated[
        float, seconds("how long a start waits for etcd before it gives up", ge=1)
    ] = 60.0
    validate: Annotated[bool, about("check the configuration, reach the etcds, and exit")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("least level that is logged")
    ] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], about("form of the log")] = "auto"

    @property
    def cluster(self) -> str:
        """As ``remotes.handshake.Me`` calls it."""
        return self.cluster_name

    @property
    def max_clusters(self) -> int:
        """As ``remotes.handshake.Me`` calls it."""
        return self.max_connected_clusters

    @property
    def listens(self) -> tuple[str, ...]:
        """Where HTTP is answered besides the socket; every address answers everything."""
        health = f":{self.health_port}" if self.health_port else ""
        found = (self.api_listen, self.api_serve_addr, self.prometheus_serve_addr, health)
        return tuple(address for address in found if address)

    def __post_init__(self) -> None:
        """Checks across fields; raises ``ValueError`` with a sentence."""
        if self.cluster_id > self.max_connected_clusters:
            raise ValueError(
                f"--cluster-id: {self.cluster_id} needs --max-connected-clusters=511, "
                "in all clusters of the mesh"
            )
