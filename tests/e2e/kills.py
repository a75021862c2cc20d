"""Agents die at random moments while things change; afterwards everything is as it should be."""

import time
from collections.abc import Callable
from random import Random

from tests.e2e import checks
from tests.e2e.world import World

GLOBAL, SHARED = "service.cilium.io/global", "service.cilium.io/shared"
AFFINITY = "service.cilium.io/affinity"
AGENTS = tuple(f"{cluster}/node-{n}/agent" for cluster in sorted(checks.BOTH) for n in checks.NODES)

CACHES = tuple(f"{cluster}/kvstoremesh" for cluster in sorted(checks.BOTH))

Change = tuple[tuple[str, ...], tuple[str, ...], Callable[[World], None]]


def _annotation(where: str, word: str, value: str, clusters: set[str]) -> Change:
    """An annotation of one cluster's service, how it is taken back, and who answers there then."""
    target = f"{where}/rebel-base"
    back = f"{word}=true" if word == GLOBAL else f"{word}-"
    return (
        ("annotate", target, f"{word}={value}"),
        ("annotate", target, back),
        lambda mesh: checks.settled(mesh, where, clusters),
    )


def changes() -> list[Change]:
    """What may change: each is done, seen, and undone."""
    a, b = "cluster-a", "cluster-b"
    return [
        _annotation(a, AFFINITY, "local", {a}),
        _annotation(b, AFFINITY, "remote", {a}),
        _annotation(a, GLOBAL, "false", {a}),
        (
            ("annotate", f"{b}/rebel-base", f"{SHARED}=false"),
            ("annotate", f"{b}/rebel-base", f"{SHARED}-"),
            lambda mesh: checks.settled(mesh, a, {a}),
        ),
        (
            ("scale", f"{a}/rebel-base", "0"),
            ("scale", f"{a}/rebel-base", "2"),
            lambda mesh: checks.settled(mesh, b, {b}),
        ),
    ]


def under_fire(
    mesh: World, random: Random, *command: str, targets: tuple[str, ...] = AGENTS
) -> None:
    """A change, with agents killed before, during and after it as chance will have it."""
    victims = random.sample(targets, random.randint(1, len(targets)))
    before = random.random() < 0.5
    if before:
        mesh.lab("kill", *victims)
    mesh.lab(*command)
    if not before:
        time.sleep(random.uniform(0, 0.3))
        mesh.lab("kill", *victims)
    if random.random() < 0.5:  # again, while they are coming back
        mesh.lab("restart")
        mesh.lab("kill", *random.sample(targets, 1))
    mesh.lab("restart")


def story(mesh: World, seed: int, *, steps: int, targets: tuple[str, ...] = AGENTS) -> None:
    """Some changes under fire; after each what it asks for is true, at the end everything is."""
    random = Random(seed)
    for there, back, seen in random.sample(changes(), steps):
        print(f"seed {seed}: {' '.join(there)}")
        under_fire(mesh, random, *there, targets=targets)
        try:
            seen(mesh)
        finally:
            mesh.lab(*back)
    for cluster in sorted(checks.BOTH):
        checks.settled(mesh, cluster, checks.BOTH)
    mesh.meshctl("status", "--wait", "--timeout", "60")
    checks.the_short_list(mesh)
