"""Flavour core: clusters without Cilium's objects, whatever their CNI."""

from typing import Any

import pytest

from clustermesh import gojson, keys, model
from clustermesh.export import Exporter, ExportSettings, Flavour, labels
from clustermesh.identities import Allocator
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.manifests import drop, feed

CORE = ExportSettings(cluster="paris", cluster_id=7, flavour=Flavour.CORE)
IDENTITIES = "cilium/state/identities/v1/id/"
IP = "cilium/state/ip/v1/default/"


def started(settings: ExportSettings = CORE, numbers: Any = None) -> Exporter:
    return Exporter(settings, numbers or Allocator(keys.identity_range(7)))


def node(name: str = "node-a", **rest: Any) -> KubernetesObject:
    addresses = [
        {"type": "InternalIP", "address": "192.0.2.11"},
        {"type": "Hostname", "address": name},
    ]
    meta = {"name": name, **rest.pop("metadata", {})}
    status = {"addresses": addresses, "nodeInfo": {"bootID": "b"}}
    return objects.convert(ObjectKind.NODE, {"metadata": meta, "status": status, **rest})


def pod(name: str = "cart-0", ip: str = "10.7.0.44", **rest: Any) -> KubernetesObject:
    meta = {"name": name, "namespace": "shop", "labels": {"app": "cart"}}
    status = {"podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.11", "phase": "Running"}
    return objects.convert(
        ObjectKind.POD,
        {
            "metadata": {**meta, **rest.pop("metadata", {})},
            "spec": {"nodeName": "node-a", **rest.pop("spec", {})},
            "status": {**status, **rest.pop("status", {})},
        },
    )


def namespace(**of_labels: str) -> KubernetesObject:
    meta = {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop", **of_labels}}
    return objects.convert(ObjectKind.NAMESPACE, {"metadata": meta})


def published_node(*world: KubernetesObject, settings: ExportSettings = CORE) -> model.Node:
    exporter = started(settings)
    feed(exporter, world)
    value = exporter.wanted()["cilium/state/nodes/v1/paris/node-a"]
    return gojson.Reader(model.Node).decode(value)


def entries(exporter: Exporter) -> dict[str, model.IPEntry]:
    reader = gojson.Reader(model.IPEntry)
    return {
        key.removeprefix(IP): reader.decode(value)
        for key, value in exporter.wanted().items()
        if key.startswith(IP)
    }


def identities(exporter: Exporter) -> dict[int, str]:
    return {
        int(key.removeprefix(IDENTITIES)): value.decode()
        for key, value in exporter.wanted().items()
        if key.startswith(IDENTITIES)
    }


# --- nodes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "spec", "ranges", "overlay"),
    [
        ({}, {"podCIDRs": ["10.1.2.3/24", "fd00:1::/64"]}, ("10.1.2.0/24", "fd00:1::/64"), ()),
        ({}, {"podCIDR": "10.1.2.0/24"}, ("10.1.2.0/24",), ()),
        ({}, {}, (), ()),
        ({"node.clustermesh.io/pod-cidrs": "none"}, {"podCIDR": "10.1.2.0/24"}, (), ()),
        (
            {"node.clustermesh.io/pod-cidrs": "10.9.0.0/26, 10.9.1.0/26"},
            {"podCIDR": "10.1.2.0/24"},
            ("10.9.0.0/26", "10.9.1.0/26"),
            (),
        ),
        (
            {"node.clustermesh.io/overlay-addresses": "10.1.2.1,fd00::1"},
            {"podCIDR": "10.1.2.0/24"},
            ("10.1.2.0/24",),
            ("10.1.2.1", "fd00::1"),
        ),
        ({"clustermesh.io/overlay-address": "10.1.2.1"}, {}, (), ("10.1.2.1",)),
        (
            {"node.clustermesh.io/overlay-addresses": "first"},
            {"podCIDRs": ["10.1.2.0/24", "fd00:1::/64"]},
            ("10.1.2.0/24", "fd00:1::/64"),
            ("10.1.2.1", "fd00:1::1"),
        ),
    ],
)
def test_ranges_and_overlay_addresses_come_from_the_spec_or_from_annotations(
    annotations: dict[str, str],
    spec: dict[str, Any],
    ranges: tuple[str, ...],
    overlay: tuple[str, ...],
) -> None:
    found = published_node(node(metadata={"annotations": annotations}, spec=spec))
    assert found.pod_cidrs() == ranges
    assert found.overlay() == overlay
    assert found.underlay(4) == "192.0.2.11"
    assert found.underlay(6) == ""


def test_a_setting_makes_the_first_address_of_the_range_the_overlay_address() -> None:
    flannel = ExportSettings(
        cluster="paris", cluster_id=7, flavour=Flavour.CORE, first_address_is_overlay=True
    )
    spec = {"podCIDR": "10.1.2.0/24"}
    assert published_node(node(spec=spec), settings=flannel).overlay() == ("10.1.2.1",)
    off = {"annotations": {"node.clustermesh.io/overlay-addresses": "none"}}
    assert published_node(node(spec=spec, metadata=off), settings=flannel).overlay() == ()
    tiny = {"podCIDR": "10.1.2.3/32"}
    assert published_node(node(spec=tiny), settings=flannel).overlay() == ()


def test_only_our_own_annotations_leave_the_cluster() -> None:
    annotations = {"secret": "x", "node.clustermesh.io/pod-cidrs": "none"}
    found = published_node(node(metadata={"annotations": annotations, "labels": {"a": "b"}}))
    assert found.annotations == {"node.clustermesh.io/pod-cidrs": "none"}
    assert found.labels == {"a": "b"}
    assert found.boot_id == "b"


def test_bad_annotations_of_a_node_are_said() -> None:
    exporter = started()
    annotations = {
        "node.clustermesh.io/overlay-addresses": "10.0.0.1, ten",
        "node.clustermesh.io/pod-cidrs": "10.0.0.0/33",
    }
    feed(exporter, [node(metadata={"annotations": annotations})])
    assert list(exporter.refusals()) == [
        ("Node node-a", "node.clustermesh.io/overlay-addresses: 'ten' is not an IP address"),
        ("Node node-a", "node.clustermesh.io/pod-cidrs: '10.0.0.0/33' is not a prefix"),
    ]


# --- pods and identities -----------------------------------------------------------------------


def test_a_pod_is_its_addresses_and_an_identity_made_of_its_labels() -> None:
    exporter = started()
    account = {"serviceAccountName": "cart"}
    feed(exporter, [namespace(team="web"), pod(spec=account)])
    [(number, text)] = identities(exporter).items()
    assert number in keys.identity_range(7)
    assert text == (
        "k8s:app=cart;"
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;"
        "k8s:io.cilium.k8s.namespace.labels.team=web;"
        "k8s:io.cilium.k8s.policy.cluster=paris;"
        "k8s:io.cilium.k8s.policy.serviceaccount=cart;"
        "k8s:io.kubernetes.pod.namespace=shop;"
    )
    assert entries(exporter) == {
        "10.7.0.44": model.IPEntry(
            ip="10.7.0.44",
            host_ip="192.0.2.11",
            id=number,
            namespace="shop",
            pod="cart-0",
            service_account="cart",
        )
    }


def test_pods_with_equal_labels_share_an_identity_until_the_last_goes() -> None:
    exporter = started()
    feed(exporter, [pod("a", "10.7.0.1"), pod("b", "10.7.0.2")])
    [number] = identities(exporter)
    assert exporter.has_identity(number)
    assert [key for key, _ in drop(exporter, pod("a", "10.7.0.1"))] == [f"{IP}10.7.0.1"]
    drop(exporter, pod("b", "10.7.0.2"))
    assert not exporter.has_identity(number)
    assert exporter.wanted() == {}


@pytest.mark.parametrize(
    "hidden",
    [
        pod(spec={"hostNetwork": True}),
        pod(status={"phase": "Succeeded"}),
        pod(status={"phase": "Failed"}),
        pod(status={"podIP": "", "podIPs": []}),
        pod(status={"podIP": "x", "podIPs": [{"ip": "y"}]}),
    ],
)
def test_pods_without_an_address_of_their_own_are_no_endpoints(hidden: KubernetesObject) -> None:
    exporter = started()
    feed(exporter, [hidden])
    assert exporter.wanted() == {}


def test_a_dual_stack_pod_has_two_entries() -> None:
    exporter = started()
    ips = [{"ip": "10.7.0.44"}, {"ip": "FD00::0:44"}]
    feed(exporter, [pod(status={"podIPs": ips})])
    assert entries(exporter).keys() == {"10.7.0.44", "fd00::44"}


def test_the_host_is_what_the_pod_says_or_else_its_node() -> None:
    exporter = started()
    feed(exporter, [pod(status={"hostIP": ""})])
    assert entries(exporter)["10.7.0.44"].host_ip == ""
    feed(exporter, [node()])
    assert entries(exporter)["10.7.0.44"].host_ip == "192.0.2.11"


def test_a_changed_namespace_label_gives_its_pods_another_identity() -> None:
    exporter = started()
    feed(exporter, [namespace(), pod()])
    [before] = identities(exporter)
    feed(exporter, [namespace(team="web")])
    [after] = identities(exporter)
    assert before != after
    assert entries(exporter)["10.7.0.44"].id == after


def test_a_pod_waits_for_a_number_that_is_not_decided_yet() -> None:
    known: dict[str, int] = {}

    class Later:
        def number(self, label_text: str) -> int | None:
            return known.get(label_text)

    exporter = started(numbers=Later())
    feed(exporter, [pod()])
    assert exporter.wanted() == {}
    text = "k8s:app=cart;k8s:io.cilium.k8s.policy.cluster=paris;"
    text += "k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=shop;"
    known[text] = 460000
    assert [key for key, _ in exporter.decided([text])] == [f"{IDENTITIES}460000", f"{IP}10.7.0.44"]
    assert list(exporter.decided([text])) == []


# --- profiles of CNIs --------------------------------------------------------------------------


def test_a_vpc_cni_has_nodes_without_ranges_and_pods_all_over_the_network() -> None:
    exporter = started()
    feed(exporter, [node(), pod("a", "172.31.5.9"), pod("b", "172.31.77.1")])
    found = published_node(node())
    assert found.pod_cidrs() == ()
    assert {ip: each.host_ip for ip, each in entries(exporter).items()} == {
        "172.31.5.9": "192.0.2.11",
        "172.31.77.1": "192.0.2.11",
    }


def test_calico_may_run_a_pod_with_an_address_of_another_nodes_block() -> None:
    blocks = {"annotations": {"node.clustermesh.io/pod-cidrs": "10.244.1.0/26"}}
    other = {"annotations": {"node.clustermesh.io/pod-cidrs": "10.244.2.0/26"}}
    exporter = started()
    borrowed = pod("borrower", "10.244.2.7")
    feed(exporter, [node("node-a", metadata=blocks), node("node-b", metadata=other), borrowed])
    assert entries(exporter)["10.244.2.7"].host_ip == "192.0.2.11"


# --- the default label filter ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "counted"),
    [
        ("app", True),
        ("app.kubernetes.io/name", True),
        ("io.kubernetes.pod.namespace", True),
        ("io.kubernetes.pod.name", False),
        ("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", True),
        ("io.cilium.k8s.policy.cluster", True),
        ("kubernetes.io/arch", False),
        ("topology.kubernetes.io/zone", True),
        ("beta.kubernetes.io/arch", False),
        ("failure-domain.beta.kubernetes.io/zone", False),
        ("k8s.io/cluster", False),
        ("statefulset.kubernetes.io/pod-name", False),
        ("apps.kubernetes.io/pod-index", False),
        ("batch.kubernetes.io/job-completion-index", False),
        ("batch.kubernetes.io/job-name", True),
        ("pod-template-generation", False),
        ("pod-template-hash", False),
        ("controller-revision-hash", False),
        ("controller-uid", False),
        ("annotation.x", False),
        ("etcd_node", False),
        ("my-pod-template-hash", True),
    ],
)
def test_the_default_filter_decides_which_labels_count(key: str, counted: bool) -> None:
    assert labels.counts(key) is counted


def test_a_pod_cannot_give_itself_labels_of_the_control_plane() -> None:
    forged = {"io.cilium.k8s.policy.cluster": "rome", "io.kubernetes.pod.namespace": "kube-system"}
    text = labels.of_pod(forged, {}, namespace="shop", service_account="x", cluster="paris")
    assert text == (
        "k8s:io.cilium.k8s.policy.cluster=paris;"
        "k8s:io.cilium.k8s.policy.serviceaccount=x;k8s:io.kubernetes.pod.namespace=shop;"
    )


@pytest.mark.parametrize(
    ("label", "source", "key"),
    [
        ("k8s:app", "k8s", "app"),
        ("app", "unspec", "app"),
        (":app", "unspec", "app"),
        ("$host", "reserved", "host"),
        ("reserved.host", "reserved", "host"),
        ("cidr:fd00::/8", "cidr", "fd00::/8"),
    ],
)
def test_labels_have_a_source_before_the_colon(label: str, source: str, key: str) -> None:
    assert labels.split(label) == (source, key)
