"""``meshctl lab generate``: fill etcds with clusters that do not exist, and keep them in motion."""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from clustermesh.keys import Layout
from clustermesh.lab.generate import fill
from clustermesh.lab.generate.churn import Rates, story
from clustermesh.lab.generate.world import Cluster, Shape, clusters
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.output import say
from clustermesh.meshctl.quantities import SECONDS, number, seconds
from kvstore.client import Store, StoreError
from kvstore.config import ConfigError, EtcdConfig

NUMBER = "NUMBER"
FAST = 100_000.0  # operations per second: the generator has no rate limit


class Motion(msgspec.Struct, frozen=True):
    """Changes a second, for so many seconds, as this seed tells them."""

    rate: float
    seconds: float
    seed: int


def generate(
    etcds: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Client files of the etcds to fill.", show_default=False
        ),
    ],
    layout: Annotated[
        Layout,
        typer.Option(
            metavar="LAYOUT", help="state: a cluster in each etcd; cache: spread over them."
        ),
    ] = Layout.STATE,
    clusters_: Annotated[
        int, typer.Option("--clusters", metavar=NUMBER, help="How many clusters.")
    ] = 4,
    nodes: Annotated[int, typer.Option(metavar=NUMBER, help="Nodes of a cluster.")] = 250,
    identities: Annotated[
        int, typer.Option(metavar=NUMBER, help="Identities of a cluster.")
    ] = 2_000,
    endpoints: Annotated[int, typer.Option(metavar=NUMBER, help="Pods of a cluster.")] = 25_000,
    services: Annotated[
        int, typer.Option(metavar=NUMBER, help="Global services of a cluster.")
    ] = 500,
    first_id: Annotated[int, typer.Option(metavar=NUMBER, help="Id of the first cluster.")] = 2,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="IPv6 beside IPv4.")] = False,  # noqa: FBT002  # typer makes it a flag
    rate: Annotated[
        float,
        typer.Option(parser=number, metavar=NUMBER, help="Changes per second then; 0: none."),
    ] = 0.0,
    duration: Annotated[
        float,
        typer.Option(
            "--seconds", parser=seconds, metavar=SECONDS, help="How long to go on changing."
        ),
    ] = 60.0,
    filled: Annotated[  # noqa: FBT002  # typer makes it a flag
        bool, typer.Option("--filled", help="They are there already: only change them.")
    ] = False,
    seed: Annotated[
        int, typer.Option(metavar=NUMBER, help="The same seed tells the same story.")
    ] = 1,
) -> None:
    """Fill etcds with clusters that do not exist.

    For measurements; then they are changed at a rate. What is there under other names is left
    alone. In the state layout an etcd holds one cluster.
    """
    try:
        shape = Shape(
            clusters=clusters_,
            nodes=nodes,
            identities=identities,
            endpoints=endpoints,
            services=services,
            first_id=first_id,
            ipv6=ipv6,
        )
    except ValueError as error:
        raise MeshctlError(f"{error}.", Exit.USAGE) from error
    configs = [_client(path) for path in etcds]
    world = clusters(shape)
    if layout is Layout.STATE and len(configs) != len(world):
        raise MeshctlError(
            f"in the state layout each of the {len(world)} clusters needs an etcd of its own;"
            f" {len(configs)} are named.",
            Exit.USAGE,
        )
    with contextlib.suppress(KeyboardInterrupt):
        try:
            motion = Motion(rate, duration, seed)
            asyncio.run(_generate(world, configs, layout, motion, filled=filled))
        except* StoreError as group:
            first = group.exceptions[0]
            raise MeshctlError(f"an etcd cannot be written: {first}.") from first


def _client(path: Path) -> EtcdConfig:
    try:
        return EtcdConfig.load(path)
    except ConfigError as error:
        raise MeshctlError(f"{path}: {error}.", Exit.USAGE) from error


async def _generate(
    world: Sequence[Cluster],
    configs: Sequence[EtcdConfig],
    layout: Layout,
    motion: Motion,
    *,
    filled: bool,
) -> None:
    from kvstore.etcd import open_etcd  # brings gRPC along: 0.1 s that other commands save

    async with AsyncExitStack() as stack:
        stores: list[Store] = [
            await stack.enter_async_context(open_etcd(msgspec.structs.replace(config, qps=FAST)))
            for config in configs
        ]
        place = {cluster.name: stores[at % len(stores)] for at, cluster in enumerate(world)}
        for cluster in () if filled else world:
            written = await fill.fill(place[cluster.name], [cluster], layout)
            say(f"{cluster.name} (id {cluster.id}): {written} keys")
        if motion.rate > 0:
            changes = story(world, Rates().scaled(motion.rate), seed=motion.seed)
            done = await fill.churn(place, changes, layout, seconds=motion.seconds)
            say(f"{done} changes in {motion.seconds:g} s")
