"""What keeps clusters from being one mesh, provoked value by value."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clustermesh.findings import Finding, Premises, Result
from clustermesh.meshctl.premises import Side, judge
from clustermesh.meshfile import Cluster, Mesh, Node
from clustermesh.status import ApiserverStatus

NOWHERE = Path("/nowhere")


def side(letter: str, number: int, **changes: Any) -> Side:
    name = f"cluster-{letter}"
    cluster = Cluster(
        name=name, id=number, endpoints=(), ca_cert=NOWHERE, ca_key=NOWHERE, config_dir=NOWHERE,
        users_file=NOWHERE, apiserver="unix:/a", nodes=(Node(name="node-1", agent="unix:/n"),),
    )  # fmt: skip
    apiserver = ApiserverStatus(
        cluster=name, cluster_id=number, version="0.1.0", ready=True, started=0, source="", etcd=""
    )
    said = Premises(
        cluster=name,
        cluster_id=number,
        node="node-1",
        version="0.1.0",
        max_clusters=255,
        pod_ranges=(f"10.{number}.0.0/16",),
        node_addresses=(f"172.30.{number}.11",),
        service_addresses=(f"10.10{number}.0.10",),
    )
    return Side(cluster, apiserver, {f"{name}/node-1": msgspec.structs.replace(said, **changes)})


A, B = side("a", 1), side("b", 2)


def found(*chosen: Side, third: tuple[Side, ...] = ()) -> list[Finding]:
    mesh = Mesh(clusters=tuple(each.cluster for each in (*chosen, *third)))
    return list(judge(mesh, chosen, third))


def bad(*chosen: Side, third: tuple[Side, ...] = ()) -> list[str]:
    wrong = [one for one in found(*chosen, third=third) if one.result is not Result.OK]
    assert all(one.fix and one.seen for one in wrong)
    return [one.code for one in wrong]


def test_two_good_clusters_have_only_good_findings():
    assert bad(A, B) == []
    assert {one.code for one in found(A, B)} == {
        "APISERVER", "AGENTS", "IDENTITY", "MAX_CLUSTERS", "VERSION", "RANGES",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cluster": "cluster-x"}, "NAME_MISMATCH"),
        ({"cluster_id": 9}, "ID_MISMATCH"),
        ({"max_clusters": 511}, "MAX_CLUSTERS"),
        ({"version": "0.2.4"}, "VERSION_SKEW"),
        ({"version": "0.3.0"}, "VERSION_SKEW"),
        ({"version": "1.1.0"}, "VERSION_SKEW"),
        ({"pod_ranges": ("10.1.128.0/17",)}, "POD_CIDR_OVERLAP"),
        ({"node_addresses": ("10.1.0.1",)}, "NODE_IN_POD_CIDR"),
        ({"node_addresses": ("172.30.1.11",)}, "NODE_ADDRESS_TAKEN"),
        ({"node_addresses": ("10.101.0.10",)}, "NODE_IS_SERVICE"),
        ({"service_addresses": ("10.1.0.10",)}, "SERVICE_IN_POD_CIDR"),
        ({"pod_ranges": ("172.30.1.0/24",)}, "NODE_IN_POD_CIDR"),
        ({"pod_ranges": ("10.101.0.0/16",)}, "SERVICE_IN_POD_CIDR"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], code: str):
    assert bad(A, side("b", 2, **changes)) == [code]


def test_one_release_apart_is_a_warning_and_more_a_failure():
    def result(version: str) -> Result:
        (one,) = (it for it in found(A, side("b", 2, version=version)) if it.code == "VERSION_SKEW")
        return one.result

    assert result("0.2.0") is Result.WARNING
    assert result("0.3.0") is Result.FAILED


def test_a_third_member_counts_too():
    third = side("c", 3, pod_ranges=("10.2.64.0/18",))
    assert bad(A, B, third=(third,)) == ["POD_CIDR_OVERLAP"]
    alone = side("d", 4, pod_ranges=third.heard[0].pod_ranges)
    assert bad(A, third=(third, alone)) == []


def test_an_id_beyond_the_mesh_is_named():
    assert "ID_RANGE" in bad(A, side("b", 0))


def test_those_who_do_not_answer_are_named_with_the_reason():
    silent = B._replace(apiserver="unix:/x does not answer", nodes={"cluster-b/node-1": "no file"})
    wrong = [one for one in found(A, silent) if one.result is Result.FAILED]
    assert [(one.code, one.where) for one in wrong] == [
        ("APISERVER_SILENT", "cluster-b"),
        ("AGENT_SILENT", "cluster-b/node-1"),
    ]
    assert "unix:/x does not answer" in wrong[0].seen


def test_an_apiserver_that_is_not_ready_says_why():
    assert isinstance(B.apiserver, ApiserverStatus)
    sick = msgspec.structs.replace(B.apiserver, ready=False, trouble=("etcd is read-only",))
    (wrong,) = [one for one in found(A, B._replace(apiserver=sick)) if one.result is Result.FAILED]
    assert wrong.code == "APISERVER_NOT_READY"
    assert "etcd is read-only" in wrong.seen


def test_those_who_cannot_be_asked_are_a_warning():
    cluster = msgspec.structs.replace(B.cluster, apiserver="", nodes=(Node(name="node-1"),))
    wrong = [it for it in found(A, B._replace(cluster=cluster)) if it.result is not Result.OK]
    assert [(it.code, it.result) for it in wrong] == [("UNASKED", Result.WARNING)]
    assert "its apiserver, node-1" in wrong[0].seen
