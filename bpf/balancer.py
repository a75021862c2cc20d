"""Load balancing per packet, on devices that the operator names: maps, programs and links."""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from struct import Struct, pack
from typing import Final, Self

from bpf.clsact import AMONG_OTHERS, remove_filters
from bpf.errors import AttachError
from bpf.kernel_maps import KernelMap
from bpf.links import tcx_supported
from bpf.loader import Loaded, load_part
from bpf.pins import Pins, cleanup, remove_link
from bpf.sides import Side, Way
from bpf.specs import BALANCER, DatapathSettings
from bpf.syscalls import ProgramInfo

_SIDES: Final = (Side("ingress", "cm_lb_ingress"), Side("egress", "cm_lb_egress"))
_SIDES_OF_BRIDGE: Final = (Side("ingress", "cm_lb_bridge"), _SIDES[1])
_SIOCETHTOOL: Final = 0x8946
_DRIVER: Final = Struct("I32s160x")
_GET_DRIVER: Final = 3
"""ethtool's question for a device's driver."""


class Balancer:
    """Programs that translate packets, and the connections they know. Closing detaches nothing."""

    def __init__(self, pins: Pins, settings: DatapathSettings, loaded: Loaded) -> None:
        self._pins = pins
        self._way = Way(settings.tcx and tcx_supported(), AMONG_OTHERS)
        self._filtered: frozenset[int] | None = None
        """Indices of devices with our filters, where there is no TCX; None: not known yet."""
        self._loaded = loaded
        self.connections = tuple(
            KernelMap(os.dup(loaded.maps[spec.name]), spec.name)
            for spec in BALANCER.maps
            if spec.member
        )
        """TCP and the others, IPv4 and IPv6: contract datapath 1.13."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Everything stays pinned and goes on working."""
        for connections in self.connections:
            connections.close()
        self._loaded.close()

    def attach(self, devices: Mapping[str, int]) -> bool:
        """Both sides of exactly these devices, by name and index in the process's namespace;
        whether anything had to change. Not on the thread of an event loop."""
        changed = self._detach_others(devices)
        failed: AttachError | None = None
        for name, ifindex in devices.items():
            for side in _sides(name):
                fd, pin = self._loaded.programs[side.program], self._pins.links / _pin(name, side)
                try:
                    changed = self._way.ensure(side, ifindex, fd, pin) or changed
                except AttachError as error:  # one bad device does not keep the others back
                    failed = error
        if failed is not None:
            raise failed
        return changed

    def _detach_others(self, devices: Mapping[str, int]) -> bool:
        wanted = {_pin(name, side) for name in devices for side in _SIDES}
        others = [path for path in self._pins.links.iterdir() if path.name not in wanted]
        for path in others:
            remove_link(path)
        return self._remove_filters(frozenset(devices.values())) or bool(others)

    def _remove_filters(self, wanted: frozenset[int]) -> bool:
        """No pin says where an earlier life's filters are: the first time every device is asked."""
        if self._way.tcx:
            return False
        before, self._filtered = self._filtered, wanted
        if before is None:
            before = frozenset(index for index, _ in socket.if_nameindex())
        gone = [remove_filters(index, priority=AMONG_OTHERS) for index in before - wanted]
        return any(gone)

    def maps(self) -> Mapping[str, int]:
        """Its maps by name, as descriptors that stay its own."""
        return self._loaded.maps

    def programs(self) -> Iterator[ProgramInfo]:
        """With run counts and times while the kernel counts them (kernel.bpf_stats_enabled)."""
        return self._loaded.counted()


def _sides(device: str) -> tuple[Side, ...]:
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


def _pin(device: str, side: Side) -> str:
    """A BPF file system takes no dots (contract datapath 4), and no device's name has colons."""
    return f"{device.replace('.', ':')}_{side.name}"


def load_balancer(pins: Pins, settings: DatapathSettings, core: Mapping[str, int]) -> Balancer:
    """Adopts or makes what is pinned under `pins`; `core` are the open maps of the data path."""
    return Balancer(pins, settings, load_part(pins, settings, BALANCER, core))


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
