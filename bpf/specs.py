"""Which maps there are and how large; how a pinned map differs from that. Contract datapath 1."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bpf.maps import MapKind
from bpf.syscalls import MapInfo

NO_PREALLOC: Final = 1
MMAPABLE: Final = 1 << 10
TABLE_SIZES: Final = (251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071)


@dataclass(frozen=True, slots=True)
class DatapathSettings:
    """Room in the maps, in entries, and how to attach. Pinned maps keep what they have."""

    ipcache: int = 512_000
    tunnel: int = 65_536
    nodes: int = 16_384
    services: int = 65_536
    backends: int = 65_536
    reverse_nat: int = 65_536
    affinity: int = 65_536
    reverse_sockets: int = 262_144
    tables: int = 65_536
    metrics: int = 1_024
    connections: int = 524_288
    """TCP connections that are translated packet by packet, in each family."""
    other_connections: int = 262_144
    fragments: int = 8_192
    """Datagrams in parts that are being translated."""
    flows: int = 8_192
    """Conversations of which a monitor is told once in a while."""
    events: int = 262_144
    """Bytes of the ring in which a monitor finds events: a power of two, whole pages."""
    table_size: int = 1_021
    """Entries of one selection table: one of TABLE_SIZES."""
    host_netns: int = 0
    """Cookie of the host's network namespace (bpf.namespace), where node ports are on the loopback
    device, too; 0: nowhere."""
    tcx: bool = True
    """False attaches by clsact also where the kernel has TCX (6.6)."""

    def __post_init__(self) -> None:
        if self.table_size not in TABLE_SIZES:
            allowed = ", ".join(map(str, TABLE_SIZES))
            raise ValueError(f"table_size: one of {allowed}, got {self.table_size}")

    @classmethod
    def small(cls, entries: int = 4_096) -> "DatapathSettings":
        """For a lab or a test: every map has this much room."""
        return cls(
            ipcache=entries,
            tunnel=entries,
            nodes=entries,
            services=entries,
            backends=entries,
            reverse_nat=entries,
            affinity=entries,
            reverse_sockets=entries,
            tables=entries,
            flows=entries,
            connections=entries,
            other_connections=entries,
            fragments=entries,
        )


@dataclass(frozen=True, slots=True)
class MapSpec:
    """One map as maps.h declares it. `size` names the setting that gives its room, `member` the
    member of datapath.Maps through which the agent has it."""

    member: str | None
    name: str
    kind: MapKind
    key_size: int
    value_size: int
    size: str | None
    flags: int = NO_PREALLOC

    def max_entries(self, settings: DatapathSettings) -> int:
        return int(getattr(settings, self.size)) if self.size else 1


_HASH: Final = MapKind.HASH
_LRU: Final = MapKind.LRU_HASH

MAPS: Final[tuple[MapSpec, ...]] = (
    MapSpec("tunnel", "cilium_tunnel_map", _HASH, 20, 20, "tunnel"),
    MapSpec("ipcache", "cilium_ipcache", MapKind.LPM_TRIE, 24, 12, "ipcache"),
    MapSpec("nodes", "cm_nodes", _HASH, 4, 16, "nodes"),
    MapSpec("services4", "cilium_lb4_services_v2", _HASH, 12, 12, "services"),
    MapSpec("services6", "cilium_lb6_services_v2", _HASH, 24, 12, "services"),
    MapSpec("backends4", "cilium_lb4_backends_v3", _HASH, 4, 12, "backends"),
    MapSpec("backends6", "cilium_lb6_backends_v3", _HASH, 4, 24, "backends"),
    MapSpec("reverse_nat4", "cilium_lb4_reverse_nat", _HASH, 2, 6, "reverse_nat"),
    MapSpec("reverse_nat6", "cilium_lb6_reverse_nat", _HASH, 2, 18, "reverse_nat"),
    MapSpec("source_ranges4", "cilium_lb4_source_range", MapKind.LPM_TRIE, 12, 1, "services"),
    MapSpec("source_ranges6", "cilium_lb6_source_range", MapKind.LPM_TRIE, 24, 1, "services"),
    MapSpec("affinity4", "cilium_lb4_affinity", _LRU, 16, 16, "affinity", 0),
    MapSpec("affinity6", "cilium_lb6_affinity", _LRU, 24, 16, "affinity", 0),
    MapSpec("affinity_match", "cilium_lb_affinity_match", _HASH, 8, 1, "affinity"),
    MapSpec("reverse_sockets4", "cilium_lb4_reverse_sk", _LRU, 16, 8, "reverse_sockets", 0),
    MapSpec("reverse_sockets6", "cilium_lb6_reverse_sk", _LRU, 32, 20, "reverse_sockets", 0),
    MapSpec("tables4", "cilium_lb4_maglev", MapKind.HASH_OF_MAPS, 2, 4, "tables"),
    MapSpec("tables6", "cilium_lb6_maglev", MapKind.HASH_OF_MAPS, 2, 4, "tables"),
    MapSpec("metrics", "cilium_metrics", MapKind.PERCPU_HASH, 8, 16, "metrics"),
    MapSpec(None, "cm_state", MapKind.ARRAY, 4, 32, None, MMAPABLE),
    MapSpec(None, "cm_limits", MapKind.PERCPU_ARRAY, 4, 16, None, 0),
    MapSpec(None, "cm_events", MapKind.RING, 0, 0, "events", 0),
    MapSpec(None, "cm_monitor", MapKind.ARRAY, 4, 48, None, MMAPABLE),
    MapSpec(None, "cm_flows", _LRU, 40, 16, "flows", 0),
)

OBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "overlay": ("cm_to_overlay", "cm_from_overlay"),
    "sock_lb": tuple(
        f"cm_{hook}{family}"
        for hook in ("connect", "sendmsg", "recvmsg", "getpeername")
        for family in (4, 6)
    ),
}


BALANCER_MAPS: Final[tuple[MapSpec, ...]] = (
    MapSpec("tcp4", "cilium_ct4_global", _LRU, 14, 56, "connections", 0),
    MapSpec("other4", "cilium_ct_any4_global", _LRU, 14, 56, "other_connections", 0),
    MapSpec("tcp6", "cilium_ct6_global", _LRU, 38, 56, "connections", 0),
    MapSpec("other6", "cilium_ct_any6_global", _LRU, 38, 56, "other_connections", 0),
    MapSpec(None, "cm_fragments", _LRU, 12, 4, "fragments", 0),
    MapSpec(None, "cm_fragments6", _LRU, 40, 4, "fragments", 0),
)


@dataclass(frozen=True, slots=True)
class Part:
    """Programs and maps that are made together. `source`: the object that declares the maps."""

    source: str
    maps: tuple[MapSpec, ...]
    objects: dict[str, tuple[str, ...]]


CORE: Final = Part("maps", MAPS, OBJECTS)
BALANCER: Final = Part(
    "lb_maps", BALANCER_MAPS, {"lb": ("cm_lb_ingress", "cm_lb_bridge", "cm_lb_egress")}
)
"""Only on nodes that balance packets: its maps take their room at once."""


def differences(spec: MapSpec, info: MapInfo, settings: DatapathSettings) -> Iterator[str]:
    """Each way in which a pinned map is not the one we would make."""
    wanted = {
        "type": (info.kind, int(spec.kind)),
        "key size": (info.key_size, spec.key_size),
        "value size": (info.value_size, spec.value_size),
        "room": (info.max_entries, spec.max_entries(settings)),
        "flags": (info.flags, spec.flags),
    }
    for what, (has, needs) in wanted.items():
        if has != needs:
            yield f"{spec.name}: {what} is {has}, configured {needs}"
