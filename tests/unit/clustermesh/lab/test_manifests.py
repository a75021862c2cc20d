"""The lab's Kubernetes objects."""

import pytest

from clustermesh.lab import manifests
from clustermesh.lab.build import new_pod, place
from clustermesh.lab.topology import Flavour, Topology, default_topology


@pytest.fixture
def topology() -> Topology:
    return default_topology(ipv6=True)


def of_kind(kind: str, documents) -> dict[str, dict]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def test_workloads_are_spread_over_the_nodes(topology):
    pods = list(place(topology, topology.cluster("cluster-a")))
    where = {pod.name: (pod.node_name, pod.ips) for pod in pods}
    assert where == {
        "rebel-base-1": ("node-1", ("10.1.1.10", "fd00:10:1:1::a")),
        "rebel-base-2": ("node-2", ("10.1.2.10", "fd00:10:1:2::a")),
        "client-1": ("node-1", ("10.1.1.11", "fd00:10:1:1::b")),
        "client-2": ("node-2", ("10.1.2.11", "fd00:10:1:2::b")),
    }


def test_a_new_pod_takes_the_address_that_became_free(topology):
    cluster = topology.cluster("cluster-a")
    pods = [pod for pod in place(topology, cluster) if pod.name != "rebel-base-1"]
    assert new_pod(topology, cluster, "rebel-base", 3, pods).ips[0] == "10.1.1.10"


def test_nodes_tell_their_ranges_and_their_overlay_addresses(topology):
    node = of_kind("Node", manifests.standing(topology, topology.cluster("cluster-b")))["node-2"]
    assert node["spec"]["podCIDRs"] == ["10.2.2.0/24", "fd00:10:2:2::/64"]
    assert {"type": "InternalIP", "address": "172.30.2.12"} in node["status"]["addresses"]
    overlay = node["metadata"]["annotations"][manifests.OVERLAY_ANNOTATION]
    assert overlay == "10.2.2.1,fd00:10:2:2::1"


def test_services_are_global_private_or_empty(topology):
    found = of_kind("Service", manifests.standing(topology, topology.cluster("cluster-a")))
    flags = {name: s["metadata"]["annotations"] for name, s in found.items()}
    assert flags == {
        "rebel-base": {"service.cilium.io/global": "true"},
        "private-base": {},
        "empty-base": {"service.cilium.io/global": "true"},
    }
    ports = [(port["name"], port["protocol"]) for port in found["rebel-base"]["spec"]["ports"]]
    assert len({name for name, _ in ports}) == 2
    assert {protocol for _, protocol in ports} == {"TCP", "UDP"}


def test_slices_hold_the_pods_behind_a_service_by_family(topology):
    cluster = topology.cluster("cluster-a")
    slices = of_kind("EndpointSlice", manifests.slices(cluster, place(topology, cluster)))
    addresses = {
        name: [address for e in found["endpoints"] for address in e["addresses"]]
        for name, found in slices.items()
    }
    assert addresses["rebel-base-v4"] == ["10.1.1.10", "10.1.2.10"]
    assert addresses["rebel-base-v6"] == ["fd00:10:1:1::a", "fd00:10:1:2::a"]
    assert addresses["empty-base-v4"] == []
    labels = slices["rebel-base-v4"]["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == "rebel-base"


def test_flavour_cilium_has_an_identity_per_workload_in_the_clusters_range():
    topology = default_topology(flavour=Flavour.CILIUM)
    cluster = topology.cluster("cluster-b")
    standing = list(manifests.standing(topology, cluster))
    identities = of_kind("CiliumIdentity", standing)
    assert all(int(name) >> 16 == 2 for name in identities)
    assert set(of_kind("CiliumNode", standing)) == {"node-1", "node-2"}
    pod = next(place(topology, cluster))
    endpoint = manifests.for_pod(topology, cluster, pod)
    number = endpoint["status"]["identity"]["id"]
    assert identities[str(number)]["security-labels"]["k8s:app"] == pod.workload
    assert endpoint["status"]["networking"] == {
        "addressing": [{"ipv4": "10.2.1.10"}],
        "node": "172.30.2.11",
    }


def test_every_manifest_has_a_file_of_its_own(topology):
    cluster = topology.cluster("cluster-a")
    pods = list(place(topology, cluster))
    documents = [
        *manifests.standing(topology, cluster),
        *(manifests.for_pod(topology, cluster, pod) for pod in pods),
        *manifests.slices(cluster, pods),
    ]
    names = [manifests.file_name(document) for document in documents]
    assert len(set(names)) == len(names)
    assert "service-default-rebel-base.yaml" in names


def test_annotations_are_set_and_removed_without_touching_the_rest():
    before = {"kind": "Service", "metadata": {"name": "s", "annotations": {"a": "1", "b": "2"}}}
    after = manifests.annotated(before, {"a": None, "c": "3", "absent": None})
    assert after["metadata"] == {"name": "s", "annotations": {"b": "2", "c": "3"}}
    assert before["metadata"]["annotations"] == {"a": "1", "b": "2"}
