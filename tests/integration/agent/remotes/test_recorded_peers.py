"""What real Cilium wrote, put into a real etcd and followed: both layouts, and the accidents."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.checkpoint import Checkpoint
from agent.facts import Me
from agent.remotes.remotes import Places, Remotes
from clustermesh.keys import Kind
from clustermesh.remotes.session import Waits
from kvstore.client import DeletePrefixOp, PutOp
from kvstore.etcd import open_etcd
from tests.support import vectors
from tests.support.agent_sink import RecordingSink
from tests.support.etcd import Etcd, running_etcd
from tests.support.remote_world import until

pytestmark = pytest.mark.etcd

ME = Me("home", 99, "node-a", "192.0.2.1")
WAITS = Waits(handshake=5, config=0.1, ceiling=0.2, heartbeat=60, connect=3600, sync=3600)


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with running_etcd() as server:
        yield server


async def fill(etcd: Etcd, recording: Path) -> None:
    async with open_etcd(etcd.config()) as store:
        for record in vectors.records(recording):
            await store.commit([PutOp(record.key, record.value)])


def configure(directory: Path, cluster: str, etcd: Etcd) -> None:
    directory.mkdir(exist_ok=True)
    (directory / cluster).write_text(f"endpoints:\n- {etcd.url}\n")


class Listening:
    """The remotes of a directory, and what they told."""

    def __init__(self, tmp_path: Path, me: Me = ME) -> None:
        self.directory = tmp_path / "remotes"
        self.sink = RecordingSink()
        checkpoint = Checkpoint(tmp_path / "state", interval=0.05, report=lambda _: None)
        self.remotes = Remotes(
            Places(directory=self.directory, scan_interval=60),
            me=me,
            sink=self.sink,
            checkpoint=checkpoint,
            opener=open_etcd,
            waits=WAITS,
            report=lambda _: None,
        )
        self.checkpoint = checkpoint

    def ready(self, *clusters: str) -> Callable[[], bool]:
        def holds() -> bool:
            rows = self.remotes.statuses(self.sink.count)
            return sorted(row.name for row in rows if row.ready) == sorted(clusters)

        return holds


async def beside(listening: Listening, story: Callable[[], object]) -> None:
    async with asyncio.TaskGroup() as tasks:
        life = tasks.create_task(listening.remotes.run())
        writer = tasks.create_task(listening.checkpoint.run())
        await story()
        life.cancel()
        writer.cancel()


def written(recording: Path, part: str) -> set[str]:
    """Names below a prefix in a recording."""
    keys = (record.key for record in vectors.records(recording))
    return {key.removeprefix(part) for key in keys if key.startswith(part)}


async def test_a_recorded_apiserver_is_followed(etcd: Etcd, tmp_path: Path) -> None:
    recording = vectors.APISERVER / "etcd.jsonl"
    await fill(etcd, recording)
    listening = Listening(tmp_path)
    configure(listening.directory, "cl1", etcd)

    async def story() -> None:
        await until(listening.ready("cl1"))
        names = listening.sink.names
        services = written(recording, "cilium/state/services/v1/cl1/")
        assert names("cl1", Kind.SERVICES) == services
        assert names("cl1", Kind.NODES) == written(recording, "cilium/state/nodes/v1/cl1/")
        (status,) = listening.remotes.statuses(listening.sink.count)
        addresses = written(recording, "cilium/state/ip/v1/default/")
        identities = written(recording, "cilium/state/identities/v1/id/")
        refused = len(addresses) + len(identities) - status.num_endpoints - status.num_identities
        assert status.refused_values == refused
        assert status.num_endpoints > 0
        assert status.config.cluster_id == 7
        assert status.synced.service_exports is True

    await beside(listening, story)


async def test_a_recorded_cache_is_followed(etcd: Etcd, tmp_path: Path) -> None:
    recording = vectors.MOCK / "etcd.jsonl"
    await fill(etcd, recording)
    listening = Listening(tmp_path)
    for cluster in ("cluster-001", "cluster-002"):
        configure(listening.directory, cluster, etcd)

    async def story() -> None:
        await until(listening.ready("cluster-001", "cluster-002"))
        names = listening.sink.names
        for cluster in ("cluster-001", "cluster-002"):
            for kind in (Kind.NODES, Kind.SERVICES, Kind.IPS):
                there = written(recording, f"cilium/cache/{kind}/v1/{cluster}/")
                assert names(cluster, kind) == there
                assert there
        rows = listening.remotes.statuses(listening.sink.count)
        assert all(row.config.kvstoremesh for row in rows)

    await beside(listening, story)


async def test_a_mesh_of_511_is_followed_by_one_of_511(etcd: Etcd, tmp_path: Path) -> None:
    await fill(etcd, vectors.APISERVER / "etcd-max511.jsonl")
    listening = Listening(tmp_path, ME._replace(max_clusters=511))
    configure(listening.directory, "cl1", etcd)

    async def story() -> None:
        await until(listening.ready("cl1"))
        assert listening.sink.ids == {"cl1": 300}

    await beside(listening, story)


async def test_an_etcd_that_dies_comes_back_and_is_removed(etcd: Etcd, tmp_path: Path) -> None:
    await fill(etcd, vectors.APISERVER / "etcd-shared-only.jsonl")
    listening = Listening(tmp_path)
    configure(listening.directory, "cl1", etcd)
    sink = listening.sink

    async def story() -> None:
        await until(listening.ready("cl1"))
        services = sink.names("cl1", Kind.SERVICES)
        etcd.kill()
        await until(listening.ready())
        assert sink.names("cl1", Kind.SERVICES) == services
        etcd.start()
        await until(listening.ready("cl1"))
        gone = min(services)
        async with open_etcd(etcd.config()) as store:
            await store.commit([DeletePrefixOp(f"cilium/state/services/v1/cl1/{gone}")])
        await until(lambda: gone not in sink.names("cl1", Kind.SERVICES))
        etcd.kill()
        (listening.directory / "cl1").unlink()
        await until(lambda: ("drain", "cl1") in sink.calls)
        assert sink.facts == {}
        await until(lambda: listening.remotes.statuses(sink.count) == [])

    await beside(listening, story)


async def test_the_double_failure(etcd: Etcd, tmp_path: Path) -> None:
    """The peer's etcd dies, then the agent: the next one begins with the peer's services."""
    await fill(etcd, vectors.APISERVER / "etcd-shared-only.jsonl")
    first = Listening(tmp_path)
    configure(first.directory, "cl1", etcd)

    async def learn() -> None:
        await until(first.ready("cl1"))

    await beside(first, learn)
    etcd.kill()
    second = Listening(tmp_path)

    async def remember() -> None:
        await until(lambda: ("unconfirmed", "cl1") in second.sink.calls)
        for kind in (Kind.SERVICES, Kind.NODES):
            assert second.sink.names("cl1", kind) == first.sink.names("cl1", kind)
        (status,) = second.remotes.statuses(second.sink.count)
        assert status.unconfirmed
        assert not status.ready

    await beside(second, remember)


async def test_an_unreadable_configuration_is_no_empty_one(etcd: Etcd, tmp_path: Path) -> None:
    """The directory is not mounted at the start: what was configured last time is kept."""
    await fill(etcd, vectors.APISERVER / "etcd-shared-only.jsonl")
    first = Listening(tmp_path)
    configure(first.directory, "cl1", etcd)

    async def learn() -> None:
        await until(first.ready("cl1"))

    await beside(first, learn)
    first.directory.rename(tmp_path / "away")
    second = Listening(tmp_path)

    async def mount() -> None:
        await until(lambda: ("unconfirmed", "cl1") in second.sink.calls)
        assert second.sink.expected == {"cl1"}
        services = first.sink.names("cl1", Kind.SERVICES)
        assert second.sink.names("cl1", Kind.SERVICES) == services
        (tmp_path / "away").rename(second.directory)
        await until(second.ready("cl1"))
        assert ("drain", "cl1") not in second.sink.calls
        assert second.sink.names("cl1", Kind.SERVICES) == services

    await beside(second, mount)


async def test_one_bad_file_harms_no_other(etcd: Etcd, tmp_path: Path) -> None:
    await fill(etcd, vectors.APISERVER / "etcd-shared-only.jsonl")
    listening = Listening(tmp_path)
    configure(listening.directory, "cl1", etcd)
    (listening.directory / "broken").write_text("endpoints: [\n")
    (listening.directory / "nobody").write_text("endpoints:\n- http://127.0.0.1:1\n")

    async def story() -> None:
        await until(listening.ready("cl1"))
        await until(lambda: len(listening.remotes.trouble()) == 2)
        broken, nobody = listening.remotes.trouble()
        assert "broken" in broken
        assert "trying again in" in nobody

    await beside(listening, story)
