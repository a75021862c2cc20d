"""Settings of the agent: every path, limit and wait, read once from file, environment and flags."""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from agent.network.wanted import Place
from agent.probes.prober import ProbeSettings
from bpf.specs import TABLE_SIZES
from clustermesh.remotes.session import Waits
from clustermesh.settings import about, seconds, text

PINS: Final = "clustermesh"
"""The folder below the BPF file system in which everything of ours is pinned."""

CILIUM_PINS: Final = Path("tc", "globals")
"""The folder below it in which cilium-dbg looks for maps."""

NAME: Final = r"^([a-z0-9][-a-z0-9]{0,30})?[a-z0-9]$"


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What ``clustermesh-agent`` needs to know (contract kvstore 3 for names, ids and modes)."""

    cluster_name: Annotated[str, text("name of this cluster, 1 to 32 characters", pattern=NAME)]
    cluster_id: Annotated[int, about("id of this cluster in the mesh", ge=1, le=511)]
    node_name: Annotated[str, about("name of this node; empty: the host's name")] = ""
    node_ip: Annotated[str, about("address of this node that other nodes' packets come to")]
    etcd_config: Annotated[Path, about("etcd client file of the own cluster (YAML)")]
    clustermesh_config: Annotated[Path, about("directory with one etcd client file per remote")]
    max_connected_clusters: Annotated[
        Literal[255, 511], about("size of the mesh, equal in all its clusters")
    ] = 255

    state_dir: Annotated[Path, about("where the agent keeps what it must know after a restart")] = (
        Path("/var/lib/clustermesh")
    )
    bpf_root: Annotated[Path, about("bpf file system; pins go to clustermesh/ below it")] = Path(
        "/sys/fs/bpf"
    )
    cilium_pins: Annotated[
        bool, about("pin the cilium_ maps under tc/globals as well, for cilium-dbg and its like")
    ] = False
    cgroup_root: Annotated[
        Path | None,
        about("cgroup2 directory whose sockets are served (default: the mount)"),
    ] = None
    kube_proxy_replacement: Annotated[
        bool, about("serve every service, not only the global ones")
    ] = False
    table_size: Annotated[int, about("slots of a selection table, one of the primes")] = 1021
    map_entries: Annotated[
        int, about("room of every map, in entries; 0: each map's own default", ge=0, le=8_388_608)
    ] = 0

    lb_devices: Annotated[
        tuple[str, ...],
        about(
            "devices on which services are balanced packet by packet, for clients outside of the"
            " cluster, virtual machines and forwarded traffic; empty: nowhere"
        ),
    ] = ()
    lb_gc_interval: Annotated[
        float, seconds("how often connections that have ended are forgotten", ge=0.1)
    ] = 30.0

    device: Annotated[
        str, text("name of our VXLAN device", pattern=r"^[a-zA-Z][-_a-zA-Z0-9]{0,14}$")
    ] = "cm_vxlan"
    tunnel_port: Annotated[int, about("UDP port on the wire", ge=1, le=65535)] = 8472
    device_port: Annotated[
        int, about("UDP port of our device; 0: the wire's, or a free one beside it", ge=0, le=65535)
    ] = 0
    mtu: Annotated[int, about("MTU of our device; 0: the underlay's less the header", ge=0)] = 0
    route_table: Annotated[int, about("number of our routing table", ge=1, le=0xFFFFFFFF)] = 8472
    rule_priority: Annotated[
        int, about("priority of the rule that leads to our table", ge=1, le=32765)
    ] = 472
    native_routing: Annotated[
        tuple[str, ...],
        about("remote clusters whose nodes are on our links: IPv4 goes there without the tunnel"),
    ] = ()
    host_routes: Annotated[
        int, about("most routes to single pods outside announced ranges", ge=0)
    ] = 4096

    stale_after: Annotated[
        float, seconds("age of our facts from which local backends are left alone", ge=1)
    ] = 300.0
    stamp_interval: Annotated[float, seconds("how often fresh facts are stamped", ge=0.1)] = 10.0
    propagation_delay: Annotated[
        float, seconds("after its start in which an agent times no propagation probe", ge=0)
    ] = 15.0
    heartbeat_limit: Annotated[
        float, seconds("silence of a peer after which its deletions are held", ge=1)
    ] = 120.0
    handshake_timeout: Annotated[
        float, seconds("most that one question of the handshake may take", ge=0.1)
    ] = 60.0
    config_interval: Annotated[
        float,
        seconds("how often a peer's cluster-config is read again; of copies, all at once", ge=0.1),
    ] = 30.0
    retry_ceiling: Annotated[float, seconds("longest wait between two attempts", ge=0.1)] = 30.0
    connect_timeout: Annotated[
        float, seconds("how long a start waits for a remote that does not answer", ge=0)
    ] = 15.0
    cache_ttl: Annotated[
        float,
        seconds("after how long without connection a remote's services are let go; 0: never", ge=0),
    ] = 0.0
    sync_timeout: Annotated[
        float, seconds("how long a start waits for remotes before it says ready", ge=0)
    ] = 60.0
    scan_interval: Annotated[
        float, seconds("how often directories are read even without an event", ge=0.1)
    ] = 30.0
    checkpoint_interval: Annotated[
        float, seconds("least time between two writes of the checkpoint", ge=0.01)
    ] = 2.0
    audit_interval: Annotated[
        float, seconds("how often the maps are compared with the etcds; 0: only when asked", ge=0)
    ] = 300.0
    probe_port: Annotated[int, about("TCP port asked on remote nodes", ge=1, le=65535)] = 4240
    probe_interval: Annotated[float, seconds("how often a remote cluster is asked", ge=0.1)] = 1.0
    probe_timeout: Annotated[float, seconds("how long a node may take to answer", ge=0.05)] = 0.75
    probe_rate: Annotated[
        float,
        about(
            "probes per second; beyond it clusters are asked less often, if they answer every 2 s",
            ge=0.1,
        ),
    ] = 20.0
    network_interval: Annotated[
        float, seconds("how often device, routes and rules are compared without an event", ge=0.1)
    ] = 30.0
    network_settle: Annotated[
        float, seconds("pause between a netlink event and the comparison", ge=0)
    ] = 0.2

    monitor_beat: Annotated[
        float, seconds("how often a listener is told what it missed", ge=0.1, le=60)
    ] = 1.0
    monitor_names: Annotated[
        float, seconds("how long a listener's names of pods and services are kept", ge=0)
    ] = 30.0
    monitor_patience: Annotated[
        float, seconds("most that the name of a pod is waited for", ge=0.01)
    ] = 1.0

    api_socket: Annotated[Path, about("unix socket of the HTTP API")] = Path(
        "/run/clustermesh/agent.sock"
    )
    api_listen: Annotated[str, about("HOST:PORT for the HTTP API on TCP; empty: none")] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("least level that is logged")
    ] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], about("form of the log")] = "auto"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def place(self) -> Place:
        """Where on the node we put things of the network."""
        return Place(
            device=self.device,
            table=self.route_table,
            priority=self.rule_priority,
            wire_port=self.tunnel_port,
            device_port=self.device_port,
            mtu=self.mtu,
            node_ip=self.node_ip,
            balances=bool(self.lb_devices),
        )

    @property
    def waits(self) -> Waits:
        """How long the connections to etcds wait for what."""
        return Waits(
            handshake=self.handshake_timeout,
            config=self.config_interval,
            ceiling=self.retry_ceiling,
            heartbeat=self.heartbeat_limit,
            connect=self.connect_timeout,
            sync=self.sync_timeout,
            cache=self.cache_ttl,
        )

    @property
    def probes(self) -> ProbeSettings:
        """How other clusters' nodes are probed."""
        return ProbeSettings(
            port=self.probe_port,
            interval=self.probe_interval,
            timeout=self.probe_timeout,
            rate=self.probe_rate,
        )

    @property
    def node(self) -> str:
        """The node's name."""
        return self.node_name or socket.gethostname()


class CleanupSettings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What ``clustermesh-agent cleanup`` needs: where the agent had put things."""

    bpf_root: Annotated[Path, about("BPF file system that the agent used")] = Path("/sys/fs/bpf")
    state_dir: Annotated[Path, about("state directory that the agent used")] = Path(
        "/var/lib/clustermesh"
    )
    device: Annotated[str, about("the agent's VXLAN device")] = "cm_vxlan"
    route_table: Annotated[int, about("the agent's routing table", ge=1, le=0xFFFFFFFF)] = 8472


def _check(settings: Settings) -> None:
    if settings.cluster_id > settings.max_connected_clusters:
        raise ValueError(
            f"--cluster-id: {settings.cluster_id} needs --max-connected-clusters=511,"
            " in all clusters of the mesh"
        )
    if settings.table_size not in TABLE_SIZES:
        allowed = ", ".join(map(str, TABLE_SIZES))
        raise ValueError(f"--table-size: expected one of {allowed}, found {settings.table_size}")
    try:
        ipaddress.ip_address(settings.node_ip)
    except ValueError:
        raise ValueError(f"--node-ip: expected an address, found {settings.node_ip!r}") from None
    if settings.device in settings.lb_devices:
        raise ValueError(
            f"--lb-devices: {settings.device} is our own device, services are not there"
        )
    if settings.api_listen:
        listen(settings.api_listen)
    if settings.stamp_interval > settings.stale_after / 2:
        raise ValueError("--stamp-interval: expected at most half of --stale-after")


def listen(written: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, an IPv6 host in brackets; raises ``ValueError``."""
    host, _, port = written.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"--api-listen: expected HOST:PORT, found {written!r}")
    return host, int(port)
