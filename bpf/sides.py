"""A program on one side of a device, in the way that the kernel has: a TCX link (Linux 6.6), before
that a filter of a clsact queue.
"""

from pathlib import Path
from typing import Final, NamedTuple

from bpf.clsact import FIRST, ensure_filter, remove_filters
from bpf.links import TCX_EGRESS, TCX_INGRESS, Hook, ensure_link
from bpf.pins import remove_link

_TCX: Final = {"ingress": TCX_INGRESS, "egress": TCX_EGRESS}


class Side(NamedTuple):
    """``ingress`` or ``egress``, and the name of the program that runs there."""

    name: str
    program: str


class Way(NamedTuple):
    """How this kernel attaches to devices. ``priority`` is that of a filter."""

    tcx: bool
    priority: int = FIRST

    def ensure(self, side: Side, ifindex: int, program_fd: int, pin: Path) -> bool:
        """The program runs on that side; whether anything had to change. An earlier life may have
        used the other way, which is given up. AttachError when the kernel refuses."""
        if not self.tcx:
            changed = ensure_filter(
                ifindex, side.name, side.program, program_fd, priority=self.priority
            )
            remove_link(pin)
            return changed
        changed = ensure_link(Hook(pin, _TCX[side.name], ifindex, ifindex), program_fd)
        if changed:
            remove_filters(ifindex, priority=self.priority)
        return changed
