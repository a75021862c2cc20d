"""Which services are published, and what is said of them (contract kvstore 2, 6)."""

import pytest

from clustermesh import model
from clustermesh.export import Exporter, ExportSettings
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.exports import (
    GLOBAL,
    PARIS,
    SERVICE_KEY,
    cart,
    cart_slice,
    exported,
    made,
    own,
    service,
)
from tests.support.manifests import feed

# --- which services ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "published"),
    [
        ({}, False),
        ({"service.cilium.io/global": "TRUE"}, True),
        ({"service.cilium.io/global": " true"}, False),
        ({"io.cilium/global-service": "true"}, True),
        ({"service.cilium.io/global": "false", "io.cilium/global-service": "true"}, False),
        ({"service.cilium.io/shared": "true"}, False),
        ({**GLOBAL, "service.cilium.io/shared": "false"}, False),
        ({**GLOBAL, "service.cilium.io/shared": ""}, False),
        ({**GLOBAL, "io.cilium/shared-service": "false"}, False),
        ({**GLOBAL, "service.cilium.io/shared": "tRuE", "io.cilium/shared-service": "no"}, True),
    ],
)
def test_a_service_is_published_when_it_is_global_and_shared(
    annotations: dict[str, str], published: bool
) -> None:
    assert (service(cart(annotations), cart_slice()) is not None) is published


@pytest.mark.parametrize(
    "hidden",
    [
        cart(type="ExternalName"),
        cart(metadata={"labels": {"service.kubernetes.io/service-proxy-name": "x"}}),
        cart(name="kube-scheduler"),
        cart(name="kube-controller-manager"),
    ],
)
def test_some_services_are_never_published(hidden: KubernetesObject) -> None:
    labels = {"kubernetes.io/service-name": hidden.metadata.name}
    found = exported(hidden, cart_slice(labels=labels))
    assert not any(key.startswith("cilium/state/services/") for key in found)


def test_a_service_needs_a_slice_of_its_own_and_an_empty_one_will_do() -> None:
    assert service(cart()) is None
    mirror = {"endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io"}
    assert service(cart(), cart_slice(labels=mirror)) is None
    assert service(cart(), cart_slice(labels={"kubernetes.io/service-name": "other"})) is None
    empty = service(cart(), cart_slice(endpoints=None))
    assert empty is not None
    assert empty.backends == {}


def test_namespaces_decide_and_the_setting_speaks_for_the_others() -> None:
    def shop(value: str | None) -> KubernetesObject:
        told = {"annotations": {"clustermesh.cilium.io/global": value}} if value else {}
        return made(ObjectKind.NAMESPACE, "shop", metadata=told)

    closed = ExportSettings(cluster="paris", cluster_id=7, global_namespaces=False)
    world = (cart(), cart_slice())
    assert SERVICE_KEY in exported(*world)
    assert SERVICE_KEY in exported(*world, shop(None))
    assert SERVICE_KEY not in exported(*world, shop("false"))
    assert SERVICE_KEY not in exported(*world, shop(None), settings=closed)
    assert SERVICE_KEY not in exported(*world, settings=closed)
    assert SERVICE_KEY in exported(*world, shop("True"), settings=closed)


def test_a_namespace_that_closes_takes_all_but_nodes_along() -> None:
    def shop(value: str) -> KubernetesObject:
        told = {"annotations": {"clustermesh.cilium.io/global": value}}
        return made(ObjectKind.NAMESPACE, "shop", metadata=told)

    identity = made(
        ObjectKind.CILIUM_IDENTITY,
        "460000",
        **{"security-labels": {"k8s:io.kubernetes.pod.namespace": "shop"}},
    )
    reserved = made(
        ObjectKind.CILIUM_IDENTITY, "460001", **{"security-labels": {"reserved:health": ""}}
    )
    addressing = [{"ipv4": "10.7.0.44"}]
    endpoint = made(
        ObjectKind.CILIUM_ENDPOINT,
        "cart-0",
        "shop",
        status={"networking": {"addressing": addressing}},
    )
    node = made(ObjectKind.CILIUM_NODE, "node-a")
    exporter = Exporter(PARIS)
    feed(exporter, [shop("true"), cart(), cart_slice(), identity, reserved, endpoint, node])
    gone = {key for key, value in feed(exporter, [shop("false")]) if value is None}
    assert gone == {
        SERVICE_KEY,
        "cilium/state/ip/v1/default/10.7.0.44",
        "cilium/state/identities/v1/id/460000",
    }
    again = {key for key, value in feed(exporter, [shop("true")]) if value is not None}
    assert gone < again


# --- what a service says -----------------------------------------------------------------------


def test_the_example_of_the_contract() -> None:
    wanted = (
        b'{"cluster":"paris","namespace":"shop","name":"cart",'
        b'"frontends":{"10.107.0.9":{"http":{"Protocol":"TCP","Port":80}}},'
        b'"backends":{"10.7.0.44":{"http":{"Protocol":"TCP","Port":8080}}},'
        b'"zones":{"10.7.0.44":{"zone":"eu-1a","forZones":[]}},'
        b'"labels":{"app":"cart"},"selector":{"app":"cart"},'
        b'"includeExternal":true,"shared":true,"clusterID":7}'
    )
    found = exported(
        cart(
            clusterIP="10.107.0.9",
            selector={"app": "cart"},
            metadata={"labels": {"app": "cart"}},
        ),
        cart_slice({"addresses": ["10.7.0.44"], "zone": "eu-1a"}),
    )
    assert found[SERVICE_KEY] == wanted


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({}, True),
        ({"ready": True, "serving": False}, True),
        ({"ready": True, "terminating": True}, True),
        ({"ready": False}, False),
        ({"serving": True}, True),
        ({"ready": False, "serving": True}, True),
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": False, "serving": False, "terminating": True}, False),
    ],
)
def test_a_backend_is_ready_or_still_serving(conditions: dict[str, bool], used: bool) -> None:
    found = service(cart(), cart_slice({"addresses": ["10.7.0.44"], "conditions": conditions}))
    assert found is not None
    assert (found.backends != {}) is used


def test_an_address_in_several_slices_has_the_ports_of_all_and_the_last_says_the_rest() -> None:
    admin = [{"name": "http", "port": 81}, {"name": "admin", "port": 9}]
    unready = {"addresses": ["10.7.0.1"], "conditions": {"ready": False}, "hostname": "none"}
    found = service(
        cart(),
        cart_slice({"addresses": ["10.7.0.2", "10.7.0.1"], "hostname": "old"}, name="a"),
        cart_slice({"addresses": ["10.7.0.1"], "zone": "z1"}, name="b", ports=admin),
        cart_slice(unready, name="c", ports=[{"name": "other", "port": 1}]),
    )
    assert found is not None
    assert found.backends == {
        "10.7.0.1": {"http": model.Port("TCP", 81), "admin": model.Port("TCP", 9)},
        "10.7.0.2": {"http": model.Port("TCP", 8080)},
    }
    assert found.hostnames == {"10.7.0.1": "old", "10.7.0.2": "old"}
    assert found.zones == {"10.7.0.1": model.Zone("z1")}


def test_within_a_slice_the_first_usable_copy_of_an_address_counts() -> None:
    found = service(
        cart(),
        cart_slice(
            {"addresses": ["10.7.0.1"], "conditions": {"ready": False}, "hostname": "gone"},
            {"addresses": ["10.7.0.1"], "hostname": "first"},
            {"addresses": ["10.7.0.1"], "hostname": "second", "zone": "z1"},
        ),
    )
    assert found is not None
    assert (found.hostnames, found.zones) == ({"10.7.0.1": "first"}, {})


def test_hints_are_told_where_there_is_a_zone() -> None:
    hints = {"forZones": [{"name": "z2"}, {"name": "z1"}]}
    found = service(
        cart(),
        cart_slice(
            {"addresses": ["10.7.0.1"], "hints": hints},
            {"addresses": ["10.7.0.2"], "hints": hints, "zone": "z1"},
            {"addresses": ["10.7.0.3"], "zone": "z1"},
        ),
    )
    assert found is not None
    assert found.zones == {
        "10.7.0.2": model.Zone("z1", (model.ZoneHint("z2"), model.ZoneHint("z1"))),
        "10.7.0.3": model.Zone("z1"),
    }


def test_addresses_are_canonical_and_what_is_none_is_left_out_and_said() -> None:
    world = (
        cart(clusterIPs=["10.96.0.1", "FD00:0::1"]),
        cart_slice({"addresses": ["FD00::0:2", "::ffff:10.0.0.3", "nonsense"]}),
    )
    found = service(*world)
    assert found is not None
    assert list(found.frontends) == ["10.96.0.1", "fd00::1"]
    assert list(found.backends) == ["10.0.0.3", "fd00::2"]
    exporter = Exporter(PARIS)
    feed(exporter, world)
    assert list(exporter.refusals()) == [
        (
            "Service shop/cart",
            "EndpointSlice cart-a: endpoints[0]: 'nonsense' is not an IP address",
        )
    ]


def test_ports_have_names_protocols_and_numbers() -> None:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "sctp", "port": 7, "protocol": "SCTP"},
        {"port": 1},
    ]
    targets = [
        {"port": 1},
        {"name": "none"},
        {"name": "large", "port": 70000},
        {"name": "negative", "port": -1},
        {"name": "zero", "port": 0, "protocol": "UDP"},
        {"name": "odd", "port": 1, "protocol": "HTTP"},
    ]
    found = service(cart(ports=ports), cart_slice(ports=targets))
    assert found is not None
    assert found.frontends["10.96.0.1"] == {
        "dns": model.Port("UDP", 53),
        "sctp": model.Port("SCTP", 7),
        "": model.Port("TCP", 1),
    }
    assert found.backends["10.7.0.44"] == {
        "": model.Port("TCP", 1),
        "large": model.Port("TCP", 4464),
        "negative": model.Port("TCP", 65535),
        "zero": model.Port("UDP", 0),
    }, "the API server takes any number, and 16 bits of it are told"
    assert [port.name for port in own(cart(), cart_slice(ports=targets)).backends[0].ports] == [""]
    exporter = Exporter(PARIS)
    feed(exporter, [cart(), cart_slice(ports=targets)])
    assert list(exporter.refusals()) == [
        (
            "Service shop/cart",
            "EndpointSlice cart-a: ports[5].protocol: 'HTTP', expected TCP, UDP or SCTP",
        )
    ]


@pytest.mark.parametrize(
    "headless",
    [
        cart(clusterIP="None"),
        cart(clusterIP="none"),
        cart(metadata={"labels": {"service.kubernetes.io/headless": ""}}),
    ],
)
def test_a_headless_service_has_backends_and_no_frontends(headless: KubernetesObject) -> None:
    found = service(headless, cart_slice({"addresses": ["10.7.0.1"], "hostname": "cart-0"}))
    assert found is not None
    assert found.frontends == {}
    assert found.hostnames == {"10.7.0.1": "cart-0"}
