"""Load balancing per packet, on devices that the operator names: maps, programs and links."""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from struct import Struct, pack
from types import TracebackType
from typing import Final, Self

from bpf import syscalls
from bpf.clsact import AMONG_OTHERS, ensure_filter, remove_filters
from bpf.errors import AttachError
from bpf.kernel_maps import KernelMap
from bpf.links import TCX_EGRESS, TCX_INGRESS, Hook, ensure_link, tcx_supported
from bpf.loader import load_maps, load_programs
from bpf.pins import Pins, cleanup, remove_link
from bpf.specs import BALANCER, DatapathSettings

_SIDES: Final = (
    ("ingress", TCX_INGRESS, "cm_lb_ingress"),
    ("egress", TCX_EGRESS, "cm_lb_egress"),
)
_SIDES_OF_BRIDGE: Final = (("ingress", TCX_INGRESS, "cm_lb_bridge"), _SIDES[1])
_SIOCETHTOOL: Final = 0x8946
_DRIVER: Final = Struct("I32s160x")
_GET_DRIVER: Final = 3
"""ethtool's question for a device's driver."""


class Balancer:
    """Programs that translate packets, and the connections they know. Closing detaches nothing."""

    def __init__(
        self, pins: Pins, settings: DatapathSettings, maps: dict[str, int], programs: dict[str, int]
    ) -> None:
        self._pins = pins
        self._tcx = settings.tcx and tcx_supported()
        self._filtered: frozenset[int] | None = None
        """Indices of devices with our filters, where there is no TCX; None: not known yet."""
        self._map_fds = maps
        self._program_fds = programs
        self.connections = tuple(
            KernelMap(os.dup(maps[spec.name]), spec.name) for spec in BALANCER.maps if spec.member
        )
        """TCP and the others, IPv4 and IPv6: contract datapath 1.13."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Everything stays pinned and goes on working."""
        for connections in self.connections:
            connections.close()
        for fd in (*self._map_fds.values(), *self._program_fds.values()):
            os.close(fd)
        self._map_fds.clear()
        self._program_fds.clear()

    def attach(self, devices: Mapping[str, int]) -> bool:
        """Both sides of exactly these devices, by name and index in the process's namespace;
        whether anything had to change. Not on the thread of an event loop."""
        changed = self._detach_others(devices)
        failed: AttachError | None = None
        for name, ifindex in devices.items():
            for side, attach_type, program in _sides(name):
                hook = Hook(self._pins.links / _pin(name, side), attach_type, ifindex, ifindex)
                try:
                    changed = self._attach(hook, side, program) or changed
                except AttachError as error:  # one bad device does not keep the others back
                    failed = error
        if failed is not None:
            raise failed
        return changed

    def _attach(self, hook: Hook, side: str, program: str) -> bool:
        fd = self._program_fds[program]
        if self._tcx:
            changed = ensure_link(hook, fd)
            if changed:  # an earlier life may have used the other way
                remove_filters(hook.target, priority=AMONG_OTHERS)
            return changed
        changed = ensure_filter(hook.target, side, program, fd, priority=AMONG_OTHERS)
        remove_link(hook.path)
        return changed

    def _detach_others(self, devices: Mapping[str, int]) -> bool:
        wanted = {_pin(name, side) for name in devices for side, _, _ in _SIDES}
        others = [path for path in self._pins.links.iterdir() if path.name not in wanted]
        for path in others:
            remove_link(path)
        return self._remove_filters(frozenset(devices.values())) or bool(others)

    def _remove_filters(self, wanted: frozenset[int]) -> bool:
        """No pin says where an earlier life's filters are: the first time every device is asked."""
        if self._tcx:
            return False
        before, self._filtered = self._filtered, wanted
        if before is None:
            before = frozenset(index for index, _ in socket.if_nameindex())
        gone = [remove_filters(index, priority=AMONG_OTHERS) for index in before - wanted]
        return any(gone)

    def maps(self) -> Mapping[str, int]:
        """Its maps by name, as descriptors that stay its own."""
        return self._map_fds

    def programs(self) -> Iterator[syscalls.ProgramInfo]:
        """With run counts and times while the kernel counts them (kernel.bpf_stats_enabled)."""
        for fd in self._program_fds.values():
            yield syscalls.program_info(fd)


def _sides(device: str) -> tuple[tuple[str, int, str], ...]:
    """A bridge's packets may be known to netfilter before they are seen here."""
    asked = ctypes.create_string_buffer(_DRIVER.pack(_GET_DRIVER, b""), _DRIVER.size)
    request = pack("16sQ16x", device.encode(), ctypes.addressof(asked))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError:  # its driver does not say
            return _SIDES
    _, driver = _DRIVER.unpack(asked.raw)
    return _SIDES_OF_BRIDGE if driver.rstrip(b"\0") == b"bridge" else _SIDES


def _pin(device: str, side: str) -> str:
    """A BPF file system takes no dots (contract datapath 4), and no device's name has colons."""
    return f"{device.replace('.', ':')}_{side}"


def load_balancer(pins: Pins, settings: DatapathSettings, core: Mapping[str, int]) -> Balancer:
    """Adopts or makes what is pinned under `pins`; `core` are the open maps of the data path."""
    pins.prepare()
    maps = load_maps(pins, settings, BALANCER, core)
    try:
        programs = load_programs(pins, settings, {**core, **maps}, BALANCER)
    except BaseException:
        for fd in maps.values():
            os.close(fd)
        raise
    return Balancer(pins, settings, maps, programs)


def forget_balancer(pins: Pins) -> bool:
    """Detaches and removes all of it, for a node that balances no more; whether there was anything.

    Filters have no pins: every device is asked.
    """
    if not pins.root.is_dir():
        return False
    for index, _ in socket.if_nameindex():
        remove_filters(index, priority=AMONG_OTHERS)
    cleanup(pins.root)  # last: the folder tells that there may be filters
    return True
