"""Clusters, nodes and addresses of a lab."""

import ipaddress
from pathlib import Path

import msgspec
import pytest

from clustermesh.lab.errors import LabError
from clustermesh.lab.topology import (
    Addresses,
    Cluster,
    Flavour,
    Service,
    Topology,
    Workload,
    checked,
    default_topology,
    load_topology,
)


def test_clusters_are_named_by_letter_and_numbered_from_one():
    topology = default_topology(clusters=3)
    assert [(c.name, c.id) for c in topology.clusters] == [
        ("cluster-a", 1),
        ("cluster-b", 2),
        ("cluster-c", 3),
    ]


def test_addresses_follow_from_the_id():
    addresses = Addresses(default_topology(ipv6=True))
    assert addresses.control_plane("cluster-b") == "172.30.2.1"
    assert addresses.node("cluster-b", 2) == "172.30.2.12"
    assert addresses.pod_cidr("cluster-a", 1) == "10.1.1.0/24"
    assert addresses.overlay("cluster-a", 1) == "10.1.1.1"
    assert addresses.pod("cluster-a", 1, 0) == "10.1.1.10"
    assert addresses.service("cluster-b", 0) == "10.102.0.10"
    assert addresses.pod("cluster-b", 2, 3, 6) == "fd00:10:2:2::d"
    assert addresses.families() == (4, 6)


def test_no_address_is_given_twice():
    topology = default_topology(clusters=5, nodes=4, ipv6=True)
    addresses = Addresses(topology)
    given = []
    for cluster in topology.clusters:
        for family in (4, 6):
            given.append(addresses.control_plane(cluster.name, family))
            given += [addresses.service(cluster.name, number, family) for number in range(3)]
            for node in range(1, 5):
                given.append(addresses.node(cluster.name, node, family))
                given.append(addresses.overlay(cluster.name, node, family))
                given += [addresses.pod(cluster.name, node, slot, family) for slot in range(4)]
    assert len(set(given)) == len(given)


def test_pod_ranges_of_nodes_do_not_overlap():
    topology = default_topology(clusters=3, nodes=5)
    addresses = Addresses(topology)
    ranges = [
        ipaddress.ip_network(addresses.pod_cidr(cluster.name, node))
        for cluster in topology.clusters
        for node in range(1, 6)
    ]
    assert not any(a.overlaps(b) for a in ranges for b in ranges if a is not b)


def test_a_range_that_is_given_is_used():
    cluster = Cluster(name="x", id=200, pod_cidr="10.60.0.0/16", service_cidr="10.61.0.0/24")
    addresses = Addresses(checked(Topology(clusters=(cluster,))))
    assert addresses.pod("x", 2, 1) == "10.60.2.11"
    assert addresses.service("x", 1) == "10.61.0.11"


A = Cluster(name="a", id=1)


@pytest.mark.parametrize(
    ("clusters", "said"),
    [
        ((), "between 1 and 254 clusters, not 0"),
        ((A, Cluster(name="a", id=2)), "cluster name 'a' is used twice"),
        ((A, Cluster(name="b", id=1)), "cluster id '1' is used twice"),
        ((Cluster(name="-a", id=1),), "1 to 32 of a-z, 0-9 and -"),
        ((Cluster(name="a", id=0),), "between 1 and 255, not 0"),
        ((Cluster(name="a", id=256),), "between 1 and 255, not 256"),
        ((Cluster(name="a", id=1, nodes=0),), "between 1 and 200 nodes, not 0"),
        ((Cluster(name="a", id=100),), "pod-cidr and service-cidr must be given"),
        ((Cluster(name="a", id=1, workloads=(Workload(name="A"),)),), "'A' is not a name"),
        ((Cluster(name="a", id=1, services=(Service(name="s", workload="w"),)),), "no workload"),
        (
            (Cluster(name="a", id=1, services=(Service(name="s"), Service(name="s"))),),
            "service 'default/s' is used twice",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(clusters, said):
    with pytest.raises(LabError, match="cannot be built") as refused:
        checked(Topology(clusters=clusters))
    assert said in str(refused.value)


def test_an_unknown_cluster_is_refused_with_those_there_are():
    with pytest.raises(LabError, match="cluster-a, cluster-b"):
        default_topology().cluster("cluster-z")


def test_a_file_says_what_is_built(tmp_path: Path):
    file = tmp_path / "t.yaml"
    file.write_text("ipv6: true\nclusters:\n- {name: east, id: 7, nodes: 3, flavour: cilium}\n")
    topology = load_topology(file)
    assert topology.ipv6
    assert topology.clusters == (Cluster(name="east", id=7, nodes=3, flavour=Flavour.CILIUM),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [{name: a}]", "id"),
        ("clusters: [{name: a, id: 1, nods: 3}]", "nods"),
        ("clusters: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, text: str, said: str):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(LabError, match=said):
        load_topology(file)


def test_a_topology_survives_being_written_down():
    topology = default_topology(clusters=2, ipv6=True)
    written = msgspec.json.encode(topology)
    assert msgspec.json.decode(written, type=Topology) == topology
