"""The way onto a device before TCX (Linux 6.6): a clsact queue, one direct-action filter a side.

A filter holds its program and lives as long as the device; its name tells which program it runs.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from bpf import syscalls
from bpf.errors import AttachError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_PARENTS: Final = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_HANDLE: Final = 1
FIRST: Final = 1
"""Priority on a device of ours."""
AMONG_OTHERS: Final = 472
"""Priority on somebody else's device, where the first place may be taken."""
_PREFIX: Final = "cm_"


def _present(ip: "IPRoute", ifindex: int, side: str) -> str | None:
    """The name of our filter on this side, if it is there."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        found = list(ip.get_filters(ifindex, parent=_PARENTS[side]))
    except NetlinkError:
        return None  # no clsact queue there
    for message in found:
        options = message.get_attr("TCA_OPTIONS")
        name = options.get_attr("TCA_BPF_NAME") if options else None
        if isinstance(name, str) and name.startswith(_PREFIX):
            return name
    return None


def ensure_filter(
    ifindex: int, side: str, program: str, program_fd: int, *, priority: int = FIRST
) -> bool:
    """The program filters that side of the device; whether anything had to change."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    name = f"{program}/{syscalls.program_info(program_fd).id}"
    try:
        with IPRoute() as ip:
            if _present(ip, ifindex, side) == name:
                return False
            with suppress(NetlinkError):  # somebody's clsact queue serves as well
                ip.tc("add", "clsact", ifindex)
            ip.tc(
                "replace-filter",
                "bpf",
                ifindex,
                _HANDLE,
                fd=program_fd,
                name=name,
                parent=_PARENTS[side],
                prio=priority,
                classid=1,
                direct_action=True,
            )
    except (NetlinkError, OSError) as error:
        raise AttachError(f"cannot attach {program} by clsact: {error}") from error
    return True


def remove_filters(ifindex: int, *, priority: int = FIRST) -> bool:
    """Takes our filters off the device; whether there were any. No device is fine."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    found = False
    with IPRoute() as ip:
        for side, parent in _PARENTS.items():
            with suppress(NetlinkError, OSError):
                if _present(ip, ifindex, side) is not None:
                    ip.tc("del-filter", "bpf", ifindex, _HANDLE, parent=parent, prio=priority)
                    found = True
    return found
