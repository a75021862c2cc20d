"""The way onto a device before TCX (Linux 6.6): a clsact queue, one direct-action filter a side."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bpf import syscalls
from bpf.errors import AttachError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_PARENTS: Final = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_PRIORITY: Final = 1
_HANDLE: Final = 1
_PREFIX: Final = "cm_"


def _filter(ip: "IPRoute", ifindex: int, side: str) -> dict[str, Any] | None:
    """Our filter's options on this side, if it is there."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        found = list(ip.get_filters(ifindex, parent=_PARENTS[side]))
    except NetlinkError:
        return None  # no clsact queue there
    for message in found:
        options = message.get_attr("TCA_OPTIONS")
        if options is None or message.get_attr("TCA_KIND") != "bpf":
            continue
        name = options.get_attr("TCA_BPF_NAME") or ""
        if name.startswith(_PREFIX):
            return dict(options["attrs"])
    return None


def ensure_filter(ifindex: int, side: str, name: str, program_fd: int) -> bool:
    """The program filters that side of the device; whether anything had to change."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            present = _filter(ip, ifindex, side)
            if present and present.get("TCA_BPF_ID") == syscalls.program_info(program_fd).id:
                return False
            with suppress(FileExistsError, NetlinkError):  # somebody's clsact queue serves as well
                ip.tc("add", "clsact", ifindex)
            ip.tc(
                "replace-filter",
                "bpf",
                ifindex,
                _HANDLE,
                fd=program_fd,
                name=name,
                parent=_PARENTS[side],
                prio=_PRIORITY,
                classid=1,
                direct_action=True,
            )
    except (NetlinkError, OSError) as error:
        raise AttachError(f"cannot attach {name} by clsact: {error}") from error
    return True


def remove_filters(ifindex: int) -> None:
    """Takes our filters off the device; a device without them, or no device, is fine."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip, suppress(NetlinkError, OSError):
        for side, parent in _PARENTS.items():
            if _filter(ip, ifindex, side) is not None:
                ip.tc("del-filter", "bpf", ifindex, _HANDLE, parent=parent, prio=_PRIORITY)
