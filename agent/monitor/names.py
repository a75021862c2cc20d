"""Who an address is: cluster, namespace, pod, labels, services, as the agent knows at present.

Identities, nodes and services are in the agent's memory. Pods' names are not, since a mesh may have
a million of them: their cluster's etcd is asked, over the connection there is, and the answer kept
for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from clustermesh.flows import FlowEnd
from clustermesh.model import IPEntry
from clustermesh.status import IdentityStatus, NodeStatus, ServiceStatus

NAMESPACE: Final = "k8s:io.kubernetes.pod.namespace="
RESERVED: Final = {
    1: "reserved:host",
    2: "reserved:world",
    3: "reserved:unmanaged",
    4: "reserved:health",
    5: "reserved:init",
    6: "reserved:remote-node",
    7: "reserved:kube-apiserver",
    8: "reserved:ingress",
    9: "reserved:world-ipv4",
    10: "reserved:world-ipv6",
}
"""Contract datapath 1.15."""

KEPT: Final = 4096
"""Addresses whose pods are remembered."""

PodOf = Callable[[str, str], Awaitable[IPEntry | None]]
"""Cluster and address to the fact about it; None when it has none or nobody answers."""


class Known(Protocol):
    """What is asked of ``agent.dataplane.Dataplane``."""

    def identity(self, number: int) -> IdentityStatus | None:
        """An identity of the mesh."""
        ...

    def nodes(self) -> Sequence[NodeStatus]:
        """Every node of the mesh."""
        ...

    def services(self) -> Sequence[ServiceStatus]:
        """Every frontend with its backends."""
        ...


class Names:
    """Answers about ends of flows. Times are those of the loop, in seconds."""

    def __init__(self, known: Known, pod_of: PodOf, *, lifetime: float, patience: float) -> None:
        self._known = known
        self._pod_of = pod_of
        self._lifetime = lifetime
        self._patience = patience
        self._pods: dict[str, tuple[float, IPEntry | None]] = {}
        self._nodes: dict[str, NodeStatus] = {}
        self._services: dict[tuple[str, int], tuple[str, ...]] = {}
        self._read_at = float("-inf")

    async def end(self, address: str, port: int, identity: int) -> FlowEnd:
        """Everything that is known of one end."""
        self._refresh()
        found = self._known.identity(identity)
        labels = found.labels if found else tuple(filter(None, [RESERVED.get(identity, "")]))
        cluster = found.cluster if found else ""
        node = self._nodes.get(address)
        if node is not None:
            cluster = cluster or node.cluster
        entry = await self._pod(cluster, address) if found and node is None else None
        labelled = (it.removeprefix(NAMESPACE) for it in labels if it.startswith(NAMESPACE))
        return FlowEnd(
            address=address,
            port=port,
            identity=identity,
            cluster=cluster,
            namespace=(entry.namespace if entry else "") or next(labelled, ""),
            pod=entry.pod if entry else "",
            node=node.name if node else "",
            labels=labels,
            services=self._services.get((address, port), ()),
        )

    def _refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._read_at < self._lifetime:
            return
        self._read_at = now
        self._nodes = {
            address: node
            for node in self._known.nodes()
            for address in (node.ipv4, node.ipv6, *node.overlay)
            if address
        }
        behind: dict[tuple[str, int], set[str]] = {}
        for service in self._known.services():
            name = f"{service.namespace}/{service.name}"
            for backend in service.backends:
                behind.setdefault(_place(backend.address), set()).add(name)
        self._services = {place: tuple(sorted(names)) for place, names in behind.items()}

    async def _pod(self, cluster: str, address: str) -> IPEntry | None:
        loop = asyncio.get_running_loop()
        kept = self._pods.get(address)
        if kept is not None and loop.time() - kept[0] < self._lifetime:
            return kept[1]
        entry = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                entry = await self._pod_of(cluster, address)
        self._pods.pop(address, None)
        self._pods[address] = (loop.time(), entry)
        if len(self._pods) > KEPT:
            del self._pods[next(iter(self._pods))]
        return entry


def _place(written: str) -> tuple[str, int]:
    """``10.1.0.5:80`` or ``[fd00::5]:80``."""
    address, _, port = written.rpartition(":")
    return address.removeprefix("[").removesuffix("]"), int(port) if port.isdecimal() else 0
