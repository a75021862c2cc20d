"""What the apiserver can be told."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from clustermesh.mcs import pool
from clustermesh.settings import about, seconds, text

SUMMARY = "Publishes a cluster's nodes, identities, addresses and services into its etcd."
CLUSTER_NAME = r"^([a-z0-9][-a-z0-9]{0,30})?[a-z0-9]$"


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """Settings of clustermesh-apiserver; the numbers of etcd are those of contract kvstore 5.2."""

    cluster_name: Annotated[
        str,
        text(
            "name of this cluster: 1 to 32 of a-z, 0-9 and -, beginning and ending without -",
            pattern=CLUSTER_NAME,
        ),
    ]
    cluster_id: Annotated[int, about("number of this cluster, unique in the mesh", ge=1, le=511)]
    max_connected_clusters: Annotated[
        Literal[255, 511], about("size of the mesh, equal in all its clusters")
    ] = 255
    etcd_config: Annotated[
        Path, about("etcd client file (YAML) that holds the certificate of admin-<cluster>")
    ]
    source: Annotated[
        Literal["directory", "kubernetes"], about("where the cluster's objects come from")
    ] = "kubernetes"
    manifests: Annotated[Path | None, about("directory of manifests, for --source directory")] = (
        None
    )
    kubeconfig: Annotated[
        Path | None, about("for --source kubernetes; without it, the pod's service account")
    ] = None
    kube_context: Annotated[str, about("context of the kubeconfig; empty: its current one")] = ""
    kube_namespace: Annotated[
        str, about("where replicas elect who numbers identities; empty: the pod's own namespace")
    ] = ""
    flavour: Annotated[
        Literal["auto", "cilium", "core"],
        about("take nodes, identities and addresses from Cilium's custom resources, or from pods"),
    ] = "auto"
    cilium_endpoint_slices: Annotated[
        bool, about("flavour cilium: read CiliumEndpointSlice objects, not CiliumEndpoint")
    ] = False
    first_address_is_overlay: Annotated[
        bool, about("flavour core: the CNI has the first address of a node's pod range")
    ] = False
    mcs_api: Annotated[
        bool, about("MCS-API: export ServiceExports; with --clustermesh-config also import")
    ] = False
    clustermesh_config: Annotated[
        Path | None,
        about("MCS-API: directory of the other clusters' etcd client files, named after them"),
    ] = None
    clustermesh_config_recheck: Annotated[
        float, seconds("how often that directory is read when nothing tells of a change", ge=0.05)
    ] = 30.0
    clusterset_cidrs: Annotated[
        str,
        about(
            "MCS-API, --source directory: addresses of imported services, at most one range of "
            "each family, with commas; clients are led on at connect, so nothing routes them"
        ),
    ] = "198.19.0.0/16"
    endpoint_slices: Annotated[
        Literal["services-only", "services-and-endpointslices", "endpointslices-only"],
        about("how services travel to other clusters"),
    ] = "services-only"
    global_namespaces: Annotated[
        bool, about("namespaces without the annotation clustermesh.cilium.io/global export too")
    ] = True
    cluster_users_config_path: Annotated[
        Path | None, about("file of the etcd users that other clusters log in as")
    ] = None
    cluster_users_recheck: Annotated[
        float, seconds("how often the file of users is looked at", ge=0.05)
    ] = 2.0
    join_listen: Annotated[
        str, about("let clusters join with a token on host:port (TLS), such as 0.0.0.0:9882")
    ] = ""
    join_address: Annotated[
        str, about("how they reach it, host:port with commas; without it, as in --join-listen")
    ] = ""
    join_mesh: Annotated[
        Path | None, about("mesh file with this cluster's entry: CA, endpoints, where files go")
    ] = None
    join_secrets: Annotated[
        bool, about("instead of --join-mesh: CA, tokens and files are Secrets of this namespace")
    ] = False
    join_peers: Annotated[
        str,
        about("with --join-secrets: clusters to let in without a token, with commas, each once"),
    ] = ""
    join_kvstoremesh: Annotated[
        bool, about("with --join-secrets: agents read copies that this cluster's kvstoremesh makes")
    ] = False
    etcd_qps: Annotated[
        float, about("operations per second against etcd after the first sync", ge=1)
    ] = 200.0
    state_dir: Annotated[Path, about("where the numbers given to identities are kept")] = Path(
        "/var/lib/clustermesh-apiserver"
    )
    api_socket: Annotated[Path | None, about("unix socket of the HTTP interface")] = Path(
        "/run/clustermesh/apiserver.sock"
    )
    api_listen: Annotated[str, about("HTTP also on host:port, such as 0.0.0.0:9880")] = ""
    lease_ttl: Annotated[
        float, seconds("how long what is published outlives this process", ge=5, le=86400)
    ] = 900.0
    heartbeat_interval: Annotated[
        float, seconds("between heartbeats; peers miss them after two minutes", ge=1, le=60)
    ] = 60.0
    propagation_interval: Annotated[
        float,
        seconds("between propagation probes, which other clusters' agents time; 0: none", ge=0),
    ] = 0.0
    config_recheck: Annotated[
        float, seconds("how often the own cluster-config is read back", ge=1)
    ] = 300.0
    start_timeout: Annotated[
        float, seconds("how long a start waits for etcd before it gives up", ge=1)
    ] = 60.0
    replace_cluster_id: Annotated[
        bool, about("take over an etcd in which this cluster has another id")
    ] = False
    validate: Annotated[bool, about("check the configuration and the source, and exit")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("least level that is logged")
    ] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], about("form of the log")] = "auto"

    @property
    def imports(self) -> bool:
        """Whether services of other clusters are imported."""
        return self.mcs_api and self.clustermesh_config is not None

    def __post_init__(self) -> None:
        """Checks across fields; raises ``ValueError`` with a sentence."""
        if self.cluster_name == "default":
            raise ValueError(
                "--cluster-name: `default` stands for a cluster outside of any mesh; "
                "choose another name"
            )
        if self.cluster_id > self.max_connected_clusters:
            raise ValueError(
                f"--cluster-id: {self.cluster_id} needs --max-connected-clusters=511, "
                "in all clusters of the mesh"
            )
        if self.source == "directory" and self.manifests is None:
            raise ValueError("--manifests is required with --source=directory")
        try:
            pool.parse(self.clusterset_cidrs)
        except ValueError as error:
            raise ValueError(f"--clusterset-cidrs: {error}") from None
