"""The Kubernetes source at work during a block of a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from clustermesh.sources.kubernetes.settings import KubernetesSettings
from clustermesh.sources.kubernetes.source import open_kubernetes
from tests.support.kube.sink import RecordingSink

QUICK = KubernetesSettings(first_wait=0.05, longest_wait=0.3, refused_wait=0.3)
"""Waits short enough for tests; nothing depends on how long they are."""


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

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        try:
            yield sink
        finally:
            task.cancel()
