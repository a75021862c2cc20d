"""Services packet by packet: on the operator's devices, and the end of connections.

The programs never look at lifetimes (contract datapath 1.13): what has outlived its own is deleted
here, a slice at a time.
"""

import asyncio
import fcntl
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Final

import structlog

from agent.datapath_metrics import PREFIX
from bpf.balancer import Balancer
from bpf.errors import BpfError
from bpf.kernel_maps import KernelMap
from bpf.layout_ct import LIFETIME

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = structlog.get_logger()

SLICE: Final = 2_000
"""Entries looked at before everybody else has a turn."""
SIOCGIFHWADDR: Final = 0x8927
ETHERNET: Final = 1


class Balancing:
    """Attaches the programs to the devices, and forgets connections."""

    def __init__(
        self,
        balancer: Balancer,
        devices: Sequence[str],
        *,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._balancer = balancer
        self._devices = devices
        self._interval = interval
        self._clock = clock
        self._live: dict[str, int] = {}
        self._expired = 0
        self._troubles: tuple[str, ...] = ()
        self._unwalked = ""

    # -- devices ----------------------------------------------------------------------------------

    def attach(self) -> bool:
        """Compare, in every round of the network, on a thread in the node's namespace; whether
        anything had to change. A device that comes later is attached to when it comes."""
        found: dict[str, int] = {}
        troubles = []
        for name in self._devices:
            try:
                found[name] = _usable(name)
            except OSError as error:
                troubles.append(f"services are not balanced on {name}: {error.strerror or error}")
        changed = False
        try:
            changed = self._balancer.attach(found)
        except (BpfError, OSError) as error:
            troubles.append(f"services are not balanced on every device: {error}")
        self._troubles = tuple(troubles)
        return changed

    def trouble(self) -> list[str]:
        """What an operator should know, in full sentences."""
        return [*self._troubles, *filter(None, [self._unwalked])]

    # -- connections ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Forget what has ended, until cancelled."""
        while True:
            try:
                await self.collect()
                self._unwalked = ""
            except BpfError as error:
                self._unwalked = f"connections that have ended are not forgotten: {error}"
                log.warning("connections not walked", reason=str(error))
            await asyncio.sleep(self._interval)

    async def collect(self) -> int:
        """One walk over every connection; how many were forgotten."""
        gone = 0
        for table in self._balancer.connections:
            gone += await self._collect(table)
        self._expired += gone
        return gone

    async def _collect(self, table: KernelMap) -> int:
        now = int(self._clock())
        ended, seen = [], 0
        for key, value in table.items():
            seen += 1
            if LIFETIME.unpack(value)[0] < now:
                ended.append(key)
            if not seen % SLICE:
                await asyncio.sleep(0)
        for start in range(0, len(ended), SLICE):
            keys = ended[start : start + SLICE]
            table.drop_many([key for key in keys if _has_ended(table.get(key), now)])
            await asyncio.sleep(0)
        self._live[table.name] = seen - len(ended)
        return len(ended)

    # -- asked ------------------------------------------------------------------------------------

    def families(self) -> "Iterator[Metric]":
        """Metrics, as of the last walk."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        live = GaugeMetricFamily(
            PREFIX + "connections",
            "Entries of connections that are translated, at the last walk",
            labels=["map"],
        )
        room = GaugeMetricFamily(
            PREFIX + "connections_max", "Entries that there is room for", labels=["map"]
        )
        for table in self._balancer.connections:
            live.add_metric([table.name], self._live.get(table.name, 0))
            room.add_metric([table.name], table.max_entries)
        ended = CounterMetricFamily(
            PREFIX + "connections_expired", "Entries that were forgotten because they had ended"
        )
        ended.add_metric([], self._expired)
        yield from (live, room, ended)


def _has_ended(value: bytes | None, now: int) -> bool:
    """Asked again before it goes: a packet may have come meanwhile."""
    return value is not None and LIFETIME.unpack(value)[0] < now


def _usable(name: str) -> int:
    """The device's index; ``OSError`` when it is not there or no Ethernet."""
    index = socket.if_nametoindex(name)
    request = pack("16s16x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        kind = unpack_from("=H", fcntl.ioctl(any_socket, SIOCGIFHWADDR, request), 16)[0]
    if kind != ETHERNET:
        raise OSError(0, "it has no Ethernet header")
    return index
