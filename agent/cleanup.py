"""``clustermesh-agent cleanup``: the node as it was before the agent."""

import asyncio
import sys
from collections.abc import Sequence

from agent import preflight
from agent.checkpoint import FOLDERS
from agent.network import network
from agent.network.wanted import Place
from agent.settings import CILIUM_PINS, PINS, CleanupSettings
from bpf import pins
from bpf.balancer import forget_balancer
from clustermesh.settings import load

SUMMARY = (
    "Remove everything clustermesh-agent put on this node: programs, maps, device, routes, rules."
)


async def run(argv: Sequence[str]) -> None:
    """Remove everything and say what was there. Doing it twice is fine."""
    settings = load(CleanupSettings, argv, program="clustermesh-agent cleanup", summary=SUMMARY)
    with preflight.alone(settings.state_dir):
        gone = await asyncio.to_thread(remove, settings)
        for folder in FOLDERS:
            for path in (settings.state_dir / folder).glob("*"):
                path.unlink()
    for what in gone or ["nothing was left"]:
        sys.stdout.write(f"removed {what}\n" if gone else f"{what}\n")


def remove(settings: CleanupSettings) -> list[str]:
    """Detach first, so that nothing goes on by half; what was removed, in words."""
    gone = []
    root = settings.bpf_root / PINS
    if pins.unshare(root, settings.bpf_root / CILIUM_PINS):
        gone.append(f"their pins under {settings.bpf_root / CILIUM_PINS}")
    if root.exists():
        forget_balancer(pins.Pins(root).balancer)
        pins.cleanup(root)
        gone.append(f"programs and maps pinned under {root}")
    place = Place(device=settings.device, table=settings.route_table)
    return gone + network.remove(place)
