"""The node's data path as the agent holds it: open maps, the state page, what is attached."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from bpf import features
from bpf.balancer import Balancer, forget_balancer, load_balancer
from bpf.clsact import remove_filters
from bpf.errors import AttachError, LoadError
from bpf.kernel_maps import KernelCounters, KernelMap, KernelTables
from bpf.layout_events import MonitorValue
from bpf.links import CGROUP_HOOKS, Hook, ensure_link, tcx_supported
from bpf.loader import Loaded, load_part
from bpf.maps import BpfMap, Counters, DictCounters, DictMap, DictTables, MapKind, Tables
from bpf.monitor import Ring, monitor_state
from bpf.pins import Pins, remove_link, share
from bpf.sides import Side, Way
from bpf.specs import MAPS, DatapathSettings, MapSpec
from bpf.state import State
from bpf.syscalls import ProgramInfo

_SIDES: Final = (Side("ingress", "cm_from_overlay"), Side("egress", "cm_to_overlay"))


@dataclass(frozen=True, slots=True)
class Maps:
    """Every map by what it is for. Names and bytes: contract datapath 1."""

    tunnel: BpfMap
    ipcache: BpfMap
    nodes: BpfMap
    services4: BpfMap
    services6: BpfMap
    backends4: BpfMap
    backends6: BpfMap
    reverse_nat4: BpfMap
    reverse_nat6: BpfMap
    source_ranges4: BpfMap
    source_ranges6: BpfMap
    affinity4: BpfMap
    affinity6: BpfMap
    affinity_match: BpfMap
    reverse_sockets4: BpfMap
    reverse_sockets6: BpfMap
    tables4: Tables
    tables6: Tables
    metrics: Counters


_MEMBERS: Final = {spec.member: spec for spec in MAPS if spec.member is not None}


def maps_in_memory(settings: DatapathSettings | None = None) -> Maps:
    """The same maps without a kernel: for tests, and to show what would be written."""
    room = settings or DatapathSettings.small()

    def make(spec: MapSpec) -> DictMap | DictTables | DictCounters:
        if spec.kind is MapKind.HASH_OF_MAPS:
            size = room.table_size * 4
            return DictTables(spec.name, table_size=size, max_entries=spec.max_entries(room))
        if spec.kind is MapKind.PERCPU_HASH:
            return DictCounters()
        return DictMap(
            spec.name,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries(room),
            kind=spec.kind,
        )

    return Maps(**{name: make(spec) for name, spec in _MEMBERS.items()})  # type: ignore[arg-type]  # by kind


_Handle = KernelMap | KernelTables | KernelCounters


def _handle(spec: MapSpec, fd: int, settings: DatapathSettings) -> _Handle:
    if spec.kind is MapKind.HASH_OF_MAPS:
        return KernelTables(fd, spec.name, table_size=settings.table_size * 4)
    if spec.kind is MapKind.PERCPU_HASH:
        return KernelCounters(fd, spec.name)
    return KernelMap(fd, spec.name)


class Datapath:
    """Loaded programs and open maps of one node. Closing it detaches nothing."""

    def __init__(self, pins: Pins, settings: DatapathSettings, loaded: Loaded) -> None:
        self._pins = pins
        self._settings = settings
        self._loaded = loaded
        self._balancer: Balancer | None = None
        self._handles = {
            member: _handle(spec, os.dup(loaded.maps[spec.name]), settings)
            for member, spec in _MEMBERS.items()
        }
        self.maps = Maps(**self._handles)  # type: ignore[arg-type]  # by kind
        self.state = State(loaded.maps["cm_state"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Everything stays pinned and goes on working."""
        self.state.close()
        for handle in self._handles.values():
            handle.close()
        self._loaded.close()

    def attach_overlay(self, ifindex: int) -> bool:
        """Both ends of the VXLAN device with this index in the process's network namespace; whether
        anything had to change. Call it again whenever the device may have been made anew, and
        never on the thread of an event loop: a change speaks netlink, and waits for the answer."""
        way = Way(self._settings.tcx and tcx_supported())
        changed = [
            way.ensure(side, ifindex, self._loaded.programs[side.program], self._pin(side))
            for side in _SIDES
        ]
        return any(changed)

    def _pin(self, side: Side) -> Path:
        return self._pins.links / f"overlay_{side.name}"

    def detach_overlay(self, ifindex: int) -> None:
        for side in _SIDES:
            remove_link(self._pin(side))
        remove_filters(ifindex)

    def attach_sock_lb(self, cgroup: Path) -> bool:
        """The socket programs on a cgroup2 folder and all below; whether anything had to change."""
        try:
            handle = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise AttachError(
                f"cannot open the control group {cgroup}: {error.strerror}"
            ) from error
        try:
            target = os.fstat(handle).st_ino
            changed = [
                ensure_link(
                    Hook(self._pins.links / f"sock_{hook}", attach_type, target, handle),
                    self._loaded.programs[f"cm_{hook}"],
                )
                for hook, attach_type in CGROUP_HOOKS.items()
            ]
        finally:
            os.close(handle)
        return any(changed)

    def detach_sock_lb(self) -> None:
        for hook in CGROUP_HOOKS:
            remove_link(self._pins.links / f"sock_{hook}")

    def share_pins(self, folder: Path) -> None:
        """The maps whose layout others know also where foreign tools look for them."""
        share({**self._loaded.maps, **(self._balancer.maps() if self._balancer else {})}, folder)

    def balancer(self) -> Balancer:
        """What balances packets on devices: loaded now, for whoever asks to close."""
        self._balancer = load_balancer(self._pins.balancer, self._settings, self._loaded.maps)
        return self._balancer

    def forget_balancer(self) -> bool:
        """Nothing of that is wanted any more; whether there was anything."""
        return forget_balancer(self._pins.balancer)

    def listen(self) -> Ring:
        """The ring of events, for one reader at a time."""
        return Ring(self._loaded.maps["cm_events"], self._loaded.maps["cm_monitor"])

    def monitor_state(self) -> MonitorValue:
        """What listeners want at present, and what they missed since the maps were made."""
        return monitor_state(self._loaded.maps["cm_monitor"])

    def programs(self) -> Iterator[ProgramInfo]:
        """With run counts and times while the kernel counts them (kernel.bpf_stats_enabled)."""
        yield from self._loaded.counted()
        if self._balancer is not None:
            yield from self._balancer.programs()


def load(root: Path, settings: DatapathSettings | None = None) -> Datapath:
    """Adopts or makes the maps and programs pinned under `root`, a folder on a BPF file system.

    PinMismatchError when pinned maps differ from the settings, FeatureMissingError when the kernel
    is too old, LoadError when it refuses for another reason.
    With everything in place this makes no map, loads no program and writes to no map.
    """
    chosen = settings or DatapathSettings()
    pins = Pins(root)
    try:
        loaded = load_part(pins, chosen)
    except LoadError:
        features.require()  # says more than the verifier, when it is that
        raise
    return Datapath(pins, chosen, loaded)
