"""What the agent answers over HTTP beyond what every process does (``clustermesh.http``)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from agent.audit.auditor import Impossible
from agent.probes.cluster import ProbeStatus
from clustermesh.audit import AuditReport
from clustermesh.findings import ProbeAnswer
from clustermesh.flows import Filter
from clustermesh.http import Answer, Query, Refused
from clustermesh.status import (
    IdentityStatus,
    NodeStatus,
    RemoteConfig,
    RemoteStatus,
    ServiceStatus,
    SyncedKinds,
)

NEVER = "0001-01-01T00:00:00.000Z"


class Picture(Protocol):
    """Where the answers come from; see ``agent.dataplane``."""

    def services(self) -> Sequence[ServiceStatus]:
        """Every frontend with its backends."""
        ...

    def nodes(self) -> Sequence[NodeStatus]:
        """Every node of the mesh."""
        ...

    def identities(self) -> Sequence[IdentityStatus]:
        """Every identity of the mesh."""
        ...


class Cluster(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """RemoteCluster of GET /v1/cluster (contract kvstore 8): zero values are left out."""

    name: str
    ready: bool = False
    connected: bool = False
    status: str = ""
    num_failures: int = 0
    last_failure: str = ""
    num_nodes: int = 0
    num_identities: int = 0
    num_endpoints: int = 0
    num_shared_services: int = 0
    num_service_exports: int = 0
    num_endpoint_slices: int = 0
    config: dict[str, object] = {}
    synced: dict[str, object] = {}


class ClusterMesh(msgspec.Struct, frozen=True, rename="kebab"):
    """ClusterMeshStatus (contract kvstore 8)."""

    clusters: tuple[Cluster, ...]


def reads(
    picture: Picture,
    remotes: Callable[[], Sequence[RemoteStatus]],
    probes: Callable[[], Sequence[ProbeStatus]],
) -> dict[str, Answer]:
    """Path to answer. ``?cluster=`` chooses; ``?namespace=`` and ``?name=`` choose services."""
    return {
        "/v1/cluster": lambda _: ClusterMesh(tuple(map(as_cluster, remotes()))),
        "/v1/probes": lambda query: _chosen(probes(), query, ("cluster",)),
        "/v1/services": lambda query: _chosen(picture.services(), query, ("namespace", "name")),
        "/v1/nodes": lambda query: _chosen(picture.nodes(), query, ("cluster", "name")),
        "/v1/identities": lambda query: _chosen(picture.identities(), query, ("cluster", "id")),
    }


def probed(now: Callable[[str], Awaitable[list[ProbeAnswer]]]) -> Answer:
    """GET /v1/probes/now?cluster=NAME: its nodes, asked through the mesh while one waits."""

    async def answer(query: Query) -> list[ProbeAnswer]:
        if query.keys() != {"cluster"}:
            raise Refused(400, "expected the parameter cluster, and no other")
        return await now(query["cluster"])

    return answer


def monitor(lines: Callable[[Filter], AsyncIterator[bytes]]) -> Answer:
    """GET /v1/monitor: flows as they are seen, chosen by the members of ``Filter``."""

    def answer(query: Query) -> AsyncIterator[bytes]:
        try:
            return lines(Filter.of(query))
        except ValueError as error:
            raise Refused(400, str(error)) from None

    return answer


def audit(run: Callable[[], Awaitable[AuditReport]]) -> Answer:
    """GET /v1/audit compares the maps with the etcds, POST /v1/audit mends what differs."""

    async def answer(_: Query) -> AuditReport:
        try:
            return await run()
        except Impossible as error:
            raise Refused(503, f"no audit is possible now: {error}") from None

    return answer


def as_cluster(remote: RemoteStatus) -> Cluster:
    """A remote in the shape of Cilium's API."""
    return Cluster(
        name=remote.name,
        ready=remote.ready,
        connected=remote.connected,
        status=remote.status,
        num_failures=remote.num_failures,
        last_failure=_moment(remote.last_failure),
        num_nodes=remote.num_nodes,
        num_identities=remote.num_identities,
        num_endpoints=remote.num_endpoints,
        num_shared_services=remote.num_shared_services,
        num_service_exports=remote.num_service_exports,
        num_endpoint_slices=remote.num_endpoint_slices,
        config=_given(remote.config),
        synced=_given(remote.synced),
    )


def _given(part: RemoteConfig | SyncedKinds) -> dict[str, object]:
    """Members that say something: None, 0 and empty text are left out, a telling False stays."""
    values = {it.encode_name: getattr(part, it.name) for it in msgspec.structs.fields(part)}
    kept = {"service-exports-enabled", "service-exports", "endpoint-slices"}
    return {name: it for name, it in values.items() if it or (it is False and name in kept)}


def _moment(seconds: float) -> str:
    """Unix seconds as Cilium's API writes them."""
    if not seconds:
        return NEVER
    when = datetime.fromtimestamp(seconds, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _chosen(rows: Sequence[object], query: Query, allowed: Sequence[str]) -> list[object]:
    if unknown := sorted(query.keys() - set(allowed)):
        known = ", ".join(allowed)
        raise Refused(400, f"unknown parameter {unknown[0]!r}; known are {known}")
    wanted = query.items()
    return [row for row in rows if all(str(getattr(row, key)) == val for key, val in wanted)]
