"""``clustermesh-agent``: settings, refusals, then the agent until a signal; or ``cleanup``."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from clustermesh import logs  # before anything imports structlog, which it makes lighter

# isort: split
from agent import preflight
from agent.agent import Agent
from agent.balancing import Balancing
from agent.settings import CILIUM_PINS, PINS, Settings
from bpf import namespace, pins
from bpf.datapath import Datapath
from bpf.datapath import load as load_datapath
from bpf.errors import BpfError
from bpf.specs import DatapathSettings
from clustermesh import process
from clustermesh.http import listening
from clustermesh.settings import load

PROGRAM = "clustermesh-agent"
SUMMARY = (
    "Keeps this node's tunnel, address and load-balancer maps true to what every cluster of the"
    " mesh says. `clustermesh-agent cleanup` removes everything it made."
)


def main() -> None:
    """The console script."""
    argv = sys.argv[1:]
    if argv[:1] == ["cleanup"]:
        from agent import cleanup

        sys.exit(process.run(lambda: cleanup.run(argv[1:]), program=f"{PROGRAM} cleanup"))
    sys.exit(process.run(lambda: run(argv), program=PROGRAM))


async def run(argv: Sequence[str]) -> None:
    """Check, take over what an earlier run left in the kernel, and serve until cancelled.

    Nothing is taken down at the end: maps, programs, links, device and routes go on working.
    """
    settings = load(Settings, argv, program=PROGRAM, summary=SUMMARY)
    cgroup = preflight.cgroup_root(settings.cgroup_root)
    with (
        logs.running(level=settings.log_level, form=settings.log_format) as control,
        preflight.alone(settings.state_dir),
        listening(socket=settings.api_socket, listen=settings.api_listen) as sockets,
    ):
        preflight.check(bpf_root=settings.bpf_root, cgroup=cgroup)
        with _datapath(settings) as datapath, _balancing(datapath, settings) as balancing:
            if balancing is None:  # an earlier start may have had devices; it speaks netlink
                await asyncio.to_thread(_forget_balancer, datapath, settings)
            _pins_for_others(datapath, settings)
            agent = Agent(
                settings, datapath=datapath, balancing=balancing, cgroup=cgroup, log=control
            )
            await agent.run(sockets)


def _datapath(settings: Settings) -> Datapath:
    try:
        return load_datapath(settings.bpf_root / PINS, _sizes(settings))
    except (BpfError, ValueError) as error:
        raise process.Fault(str(error)) from None


@contextmanager
def _balancing(datapath: Datapath, settings: Settings) -> Iterator[Balancing | None]:
    """What serves on the operator's devices; None when there are none."""
    if not settings.lb_devices:
        yield None
        return
    try:
        balancer = datapath.balancer()
    except BpfError as error:
        raise process.Fault(str(error)) from None
    with balancer:
        yield Balancing(balancer, settings.lb_devices, interval=settings.lb_gc_interval)


def _forget_balancer(datapath: Datapath, settings: Settings) -> None:
    root = settings.bpf_root / PINS
    if pins.Pins(root).balancer.root.is_dir():
        pins.unshare(root, settings.bpf_root / CILIUM_PINS)  # ours tell whose those are: they first
        datapath.forget_balancer()


def _pins_for_others(datapath: Datapath, settings: Settings) -> None:
    folder = settings.bpf_root / CILIUM_PINS
    try:
        if settings.cilium_pins:
            datapath.share_pins(folder)
        else:
            pins.unshare(settings.bpf_root / PINS, folder)  # an earlier start may have had them
    except (BpfError, OSError) as error:
        raise process.Fault(str(error)) from None


def _sizes(settings: Settings) -> DatapathSettings:
    room = settings.map_entries
    sizes = DatapathSettings.small(room) if room else DatapathSettings()
    return replace(sizes, table_size=settings.table_size, host_netns=namespace.cookie())


if __name__ == "__main__":
    main()
