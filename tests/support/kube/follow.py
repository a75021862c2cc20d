"""The Kubernetes source at work during a block of a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.kubernetes.source import open_kubernetes
from tests.support.kube.sink import RecordingSink

QUICK = KubernetesSettings(first_wait=0.05, longest_wait=0.3, refused_wait=0.3)
"""Waits short enough for tests; nothing depends on how long they are."""


@contextlib.asynccontextmanager
async def task_of(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """The work goes on during the block; should it fail, so does the block."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def following(
    kubeconfig: Path, settings: KubernetesSettings = QUICK
) -> AsyncIterator[RecordingSink]:
    """A sink to which the source tells everything."""
    sink = RecordingSink()
    chosen = msgspec.structs.replace(settings, kubeconfig=kubeconfig)

    async def follow() -> None:
        async with open_kubernetes(chosen, lambda said: sink.trouble(None, said)) as source:
            sink.kinds = source.kinds
            await source.run(sink)

    async with task_of(follow()):
        yield sink
