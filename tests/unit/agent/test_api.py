"""GET /v1/cluster and the others, as values."""

from collections.abc import Sequence

import msgspec
import pytest

from agent.api import as_cluster, reads
from clustermesh.http import Refused
from clustermesh.status import (
    IdentityStatus,
    NodeStatus,
    RemoteConfig,
    RemoteStatus,
    ServiceStatus,
    SyncedKinds,
)

READY = RemoteStatus(
    name="manual",
    ready=True,
    connected=True,
    status="etcd: 1/1 connected",
    num_nodes=1,
    num_identities=1,
    num_endpoints=1,
    num_shared_services=1,
    config=RemoteConfig(
        retrieved=True, cluster_id=9, sync_canaries=True, service_exports_enabled=False
    ),
    synced=SyncedKinds(
        nodes=True, services=True, identities=True, endpoints=True, service_exports=True
    ),
)


class Picture:
    def services(self) -> Sequence[ServiceStatus]:
        return [
            ServiceStatus(id=1, namespace="shop", name="cart", frontend="10.96.0.1:80/TCP"),
            ServiceStatus(id=2, namespace="shop", name="till", frontend="10.96.0.2:80/TCP"),
        ]

    def nodes(self) -> Sequence[NodeStatus]:
        return [NodeStatus(name="n1", cluster="paris"), NodeStatus(name="n1", cluster="lyon")]

    def identities(self) -> Sequence[IdentityStatus]:
        return [IdentityStatus(id=7, cluster="paris", labels=())]


def test_a_cluster_has_the_shape_of_ciliums_api() -> None:
    """The recorded answer of contract kvstore 8, member by member."""
    shown = msgspec.to_builtins(as_cluster(READY))
    assert shown == {
        "config": {
            "cluster-id": 9,
            "required": True,
            "retrieved": True,
            "service-exports-enabled": False,
            "sync-canaries": True,
        },
        "connected": True,
        "last-failure": "0001-01-01T00:00:00.000Z",
        "name": "manual",
        "num-endpoints": 1,
        "num-identities": 1,
        "num-nodes": 1,
        "num-shared-services": 1,
        "ready": True,
        "status": "etcd: 1/1 connected",
        "synced": {
            "endpoints": True,
            "identities": True,
            "nodes": True,
            "service-exports": True,
            "services": True,
        },
    }


def test_a_failure_has_a_moment() -> None:
    failed = msgspec.structs.replace(READY, last_failure=1.5)
    assert as_cluster(failed).last_failure == "1970-01-01T00:00:01.500Z"


def test_rows_are_chosen_by_the_query() -> None:
    answers = reads(Picture(), lambda: [READY], list)
    assert [it.name for it in answers["/v1/services"]({"name": "till"})] == ["till"]
    assert [it.cluster for it in answers["/v1/nodes"]({"cluster": "lyon"})] == ["lyon"]
    assert len(answers["/v1/identities"]({})) == 1
    assert answers["/v1/cluster"]({}).clusters[0].name == "manual"


def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    answers = reads(Picture(), list, list)
    with pytest.raises(Refused, match="known are cluster, name"):
        answers["/v1/nodes"]({"zone": "x"})
