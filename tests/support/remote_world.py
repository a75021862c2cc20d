"""Peers made of stores in memory, and a remote or two that listen to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from agent.checkpoint import Checkpoint
from agent.facts import Me
from agent.remotes.remote import Remote
from clustermesh import gojson, keys
from clustermesh.keys import Kind, Layout
from clustermesh.model import (
    Capabilities,
    Cidr,
    ClusterConfig,
    ClusterService,
    Identity,
    IPEntry,
    Node,
    NodeAddress,
    Port,
)
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.handshake import Ids
from clustermesh.remotes.session import Waits
from kvstore.client import DeleteOp, PutOp, Store
from kvstore.config import EtcdConfig
from kvstore.memory import MemoryStore
from kvstore.watch import FollowSettings
from tests.support.agent_sink import RecordingSink

ME: Final = Me("home", 1, "node-a", "192.0.2.1")
NO_DOUBT: Final = FollowSettings(first_wait=0.005, ceiling=0.02, doubt=0.0)
QUICK: Final = Waits(handshake=5.0, config=0.02, ceiling=0.02, heartbeat=60.0, follow=NO_DOUBT)
KINDS: Final = (Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES)


def opener(
    stores: dict[str, MemoryStore],
) -> Callable[[EtcdConfig], AbstractAsyncContextManager[Store]]:
    """Connects to the store named by the host of the first endpoint."""

    @asynccontextmanager
    async def connect(config: EtcdConfig) -> AsyncIterator[Store]:
        yield stores[config.endpoints[0].host]

    return connect


def file_of(cluster: str, *, host: str = "", version: str = "") -> RemoteFile:
    """A cluster's file whose endpoint is the store of that name."""
    config = EtcdConfig.of(f"http://{host or cluster}:2379")
    return RemoteFile(cluster, Path(cluster), f"{host}{version}", config=config)


def service(cluster: str, number: int, name: str) -> ClusterService:
    return ClusterService(
        cluster=cluster,
        namespace="shop",
        name=name,
        frontends={"10.96.0.1": {"http": Port(protocol="TCP", port=80)}},
        backends={f"10.{number}.0.9": {"http": Port(protocol="TCP", port=8080)}},
        include_external=True,
        shared=True,
        cluster_id=number,
    )


def node(cluster: str, number: int, name: str) -> Node:
    return Node(
        name=name,
        cluster=cluster,
        addresses=(NodeAddress("InternalIP", f"192.0.2.{number}"),),
        ipv4_alloc_cidr=Cidr.of(f"10.{number}.0.0/24"),
        cluster_id=number,
    )


class Peer:
    """A cluster's control plane, writing into a store in memory."""

    def __init__(self, cluster: str, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.store = MemoryStore()

    async def put(self, key: str, value: bytes) -> None:
        await self.store.commit([PutOp(key, value)])

    async def delete(self, key: str) -> None:
        await self.store.commit([DeleteOp(key)])

    async def publish(self, fact: keys.Fact) -> None:
        await self.put(keys.key_of(self.cluster, fact), keys.encode(fact))

    async def withdraw(self, fact: keys.Fact) -> None:
        await self.delete(keys.key_of(self.cluster, fact))

    async def describe(self, *, capabilities: Capabilities | None = None) -> None:
        """Write the cluster-config."""
        chosen = capabilities or Capabilities(synced_canaries=True, max_connected_clusters=255)
        config = ClusterConfig(id=self.number, capabilities=chosen)
        await self.put(keys.cluster_config(self.cluster), gojson.encode(config))

    async def canaries(self) -> None:
        for kind in KINDS:
            await self.put(keys.canary(kind, Layout.STATE, self.cluster), b"now")

    async def beat(self, text: str) -> None:
        await self.put(keys.HEARTBEAT, text.encode())

    async def open_shop(self) -> None:
        """A node, an identity, an address, two services; complete."""
        await self.describe()
        labels = f"k8s:app=cart;k8s:io.cilium.k8s.policy.cluster={self.cluster};"
        identity = (self.number << 16) + 9
        address = IPEntry(ip=f"10.{self.number}.0.9", host_ip=f"192.0.2.{self.number}", id=identity)
        for fact in (
            node(self.cluster, self.number, "n1"),
            Identity(identity, labels),
            address,
            service(self.cluster, self.number, "cart"),
            service(self.cluster, self.number, "till"),
        ):
            await self.publish(fact)
        await self.canaries()
        await self.beat("1")


class World:
    """Peers, a sink, and the remotes that were begun."""

    def __init__(self, directory: Path, *, waits: Waits = QUICK) -> None:
        self.sink = RecordingSink()
        self.peers: dict[str, Peer] = {}
        self.ids = Ids(ME)
        self.waits = waits
        self.troubles: list[str | None] = []
        self.checkpoint = Checkpoint(directory, interval=0.01, report=self.troubles.append)

    def peer(self, cluster: str, number: int) -> Peer:
        return self.peers.setdefault(cluster, Peer(cluster, number))

    def remote(self, cluster: str) -> Remote:
        return Remote(
            cluster,
            me=ME,
            sink=self.sink,
            ids=self.ids,
            record=self.checkpoint.record(cluster),
            opener=opener({name: peer.store for name, peer in self.peers.items()}),
            waits=self.waits,
        )


@asynccontextmanager
async def living(remote: Remote, file: RemoteFile | None = None) -> AsyncIterator[Remote]:
    """The remote's task runs meanwhile."""
    remote.configure(file or file_of(remote.cluster))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(remote.run())
        yield remote
        task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.001)


async def list_again(peer: Peer, remote: Remote) -> None:
    """The peer's etcd is away, and comes back as another one with the same keys: its history is
    lost, so that everything is listed again."""
    peer.store.outage()
    await until(lambda: not remote.progress.connected)
    backup = peer.store.snapshot()
    peer.store.replace_cluster_id(2)
    peer.store.restore(backup)
    peer.store.heal()


async def settle() -> None:
    """Let everything that can happen by itself happen."""
    await asyncio.sleep(0.05)
