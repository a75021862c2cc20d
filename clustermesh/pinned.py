"""Pinned eBPF maps as they are. ``clustermesh-maps PIN`` prints one for meshctl, which decodes it.

meshctl has it run in a node's pod where the maps are not of its own machine.
"""

import sys
from contextlib import closing
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from bpf.errors import BpfError
from bpf.kernel_maps import KernelCounters, KernelMap, KernelTables

PAIR: Final = Struct("=QQ")
"""A counter's value: packets and bytes, over all processors."""

Entries = list[tuple[bytes, bytes]]


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """Key and value of every entry; or the number of the error, and what it says."""

    entries: Entries = []
    errno: int = 0
    error: str = ""


def entries(pin: Path) -> Entries:
    """Of the kind that its name has. A selection table is the value of its service. Raises
    ``OSError``, ``BpfError``.
    """
    if pin.name.endswith("_maglev"):
        with closing(KernelTables.pinned(pin, read_only=True)) as tables:
            read = [(key, tables.read(key)) for key in tables.keys()]  # noqa: SIM118  # not a dict
        return [(key, table) for key, table in read if table is not None]
    if pin.name == "cilium_metrics":
        with closing(KernelCounters.pinned(pin, read_only=True)) as counters:
            return [(key, PAIR.pack(*pair)) for key, pair in counters.read().items()]
    with closing(KernelMap.pinned(pin, read_only=True)) as opened:
        return list(opened.items())


def main() -> None:
    """The console script."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: clustermesh-maps PIN")
    try:
        told = Told(entries=entries(Path(sys.argv[1])))
    except OSError as error:
        told = Told(errno=error.errno or 1, error=error.strerror or str(error))
    except BpfError as error:
        told = Told(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
