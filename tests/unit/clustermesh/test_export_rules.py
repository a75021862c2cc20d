"""The rules of what is published, one by one (contract kvstore 2, 6, 12)."""

import json
from typing import Any

import pytest

from clustermesh import gojson, keys, local, model, slices
from clustermesh.export import Exporter, ExportSettings, Flavour, SliceExport, cluster_config, mcs
from clustermesh.export.services import affinity_seconds
from clustermesh.identities import Allocator
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.manifests import drop, feed

PARIS = ExportSettings(cluster="paris", cluster_id=7)
CORE = ExportSettings(cluster="paris", cluster_id=7, flavour=Flavour.CORE)
GLOBAL = {"service.cilium.io/global": "true"}
SERVICE_KEY = "cilium/state/services/v1/paris/shop/cart"


def made(kind: ObjectKind, name: str, namespace: str = "", **rest: Any) -> KubernetesObject:
    meta = {"name": name, "namespace": namespace, **rest.pop("metadata", {})}
    return objects.convert(kind, {"metadata": meta, **rest})


def cart(annotations: dict[str, str] | None = None, **spec: Any) -> KubernetesObject:
    more = spec.pop("metadata", {})
    return made(
        ObjectKind.SERVICE,
        spec.pop("name", "cart"),
        "shop",
        metadata={"annotations": GLOBAL if annotations is None else annotations, **more},
        spec={"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}], **spec},
    )


def cart_slice(*endpoints: dict[str, Any], name: str = "cart-a", **rest: Any) -> KubernetesObject:
    labels = {"kubernetes.io/service-name": "cart", **rest.pop("labels", {})}
    return made(
        ObjectKind.ENDPOINT_SLICE,
        name,
        "shop",
        metadata={"labels": labels},
        **{
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": list(endpoints) or [{"addresses": ["10.7.0.44"]}],
            **rest,
        },
    )


def exported(*world: KubernetesObject, settings: ExportSettings = PARIS) -> dict[str, bytes]:
    numbers = Allocator(keys.identity_range(7)) if settings.flavour is Flavour.CORE else None
    exporter = Exporter(settings, numbers)
    feed(exporter, world)
    return exporter.wanted()


def service(*world: KubernetesObject) -> model.ClusterService | None:
    value = exported(*world).get(SERVICE_KEY)
    return None if value is None else gojson.Reader(model.ClusterService).decode(value)


def own(*world: KubernetesObject, name: str = "cart") -> local.LocalService:
    key = f"{local.SERVICES_PREFIX}shop/{name}"
    return local.decode(key, exported(*world)[key])


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


# --- the private tree --------------------------------------------------------------------------


def test_the_own_agents_learn_everything_about_every_service() -> None:
    found = own(
        cart(
            {
                "service.cilium.io/affinity": "local",
                "service.clustermesh.io/weights": "*=0",
                "other": "x",
            },
            type="LoadBalancer",
            externalIPs=["198.51.100.7"],
            externalTrafficPolicy="Local",
            sessionAffinity="ClientIP",
            ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        ),
        cart_slice(
            {
                "addresses": ["10.7.0.2"],
                "conditions": {"ready": False, "serving": True, "terminating": True},
                "nodeName": "node-a",
                "zone": "z1",
                "hints": {"forZones": [{"name": "z1"}]},
            }
        ),
    )
    assert [(each.address, each.port, each.scope) for each in found.frontends] == [
        ("10.96.0.1", 80, "ClusterIP"),
        ("198.51.100.7", 80, "ExternalIP"),
        ("", 30080, "NodePort"),
    ]
    assert found.backends == (
        local.LocalBackend(
            address="10.7.0.2",
            ports=(local.NamedPort("http", "TCP", 8080),),
            ready=False,
            serving=True,
            terminating=True,
            node="node-a",
            zone="z1",
            zone_hints=("z1",),
        ),
    )
    assert (found.is_global, found.shared, found.affinity) == (False, False, "none")
    assert found.annotations == {"service.clustermesh.io/weights": "*=0"}
    assert found.session_affinity_seconds == 10800
    assert found.external_traffic_policy == "Local"


def test_a_load_balancers_addresses_are_frontends_too() -> None:
    balancer = made(
        ObjectKind.SERVICE,
        "cart",
        "shop",
        spec={"type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        status={"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}, {"hostname": "x.example"}]}},
    )
    assert [each.address for each in own(balancer).frontends] == ["10.96.0.1", "203.0.113.8"]


@pytest.mark.parametrize(
    ("word", "affinity"),
    [("Local", "local"), ("remote", "remote"), ("none", "none"), ("", "none"), ("bogus", "none")],
)
def test_affinity_is_for_the_own_agents(word: str, affinity: str) -> None:
    annotations = {**GLOBAL, "io.cilium/service-affinity": word}
    assert own(cart(annotations)).affinity == affinity


def test_an_address_in_two_slices_is_one_backend_in_its_best_state() -> None:
    ready, not_ready = {"ready": True}, {"ready": False, "serving": False}
    found = own(
        cart(),
        cart_slice({"addresses": ["10.7.0.1"], "conditions": ready}, name="a"),
        cart_slice(
            {"addresses": ["10.7.0.1"], "conditions": not_ready},
            {"addresses": ["10.7.0.0"], "conditions": ready},
            name="b",
            ports=[{"name": "other", "port": 1}],
        ),
        cart_slice(
            {"addresses": ["10.7.0.1"], "conditions": ready},
            name="c",
            ports=[{"name": "admin", "port": 9}],
        ),
    )
    assert [(each.address, [port.name for port in each.ports]) for each in found.backends] == [
        ("10.7.0.0", ["other"]),
        ("10.7.0.1", ["admin", "http"]),
    ]


def test_a_service_that_another_proxy_serves_is_not_ours() -> None:
    foreign = cart(metadata={"labels": {"service.kubernetes.io/service-proxy-name": "x"}})
    assert exported(foreign, cart_slice()) == {}


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("weight", "unknown annotation; did you mean weights?"),
        ("colour", "unknown annotation; known are weights, failover, min-local"),
    ],
)
def test_a_misspelt_annotation_is_said(annotation: str, reason: str) -> None:
    exporter = Exporter(PARIS)
    name = f"service.clustermesh.io/{annotation}"
    feed(exporter, [cart({name: "x"})])
    assert list(exporter.refusals()) == [("Service shop/cart", f"{name}: {reason}")]
    feed(exporter, [cart({})])
    assert list(exporter.refusals()) == []


# --- endpoint slices and the handshake ---------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        (SliceExport.SERVICES_ONLY, {"services"}),
        (SliceExport.BOTH, {"services", "endpointslices"}),
        (SliceExport.SLICES_ONLY, {"endpointslices"}),
    ],
)
def test_services_travel_as_the_mode_says_and_the_handshake_tells_it(
    mode: SliceExport, kinds: set[str]
) -> None:
    settings = ExportSettings(cluster="paris", cluster_id=7, slices=mode)
    found = exported(cart(), cart_slice(), settings=settings)
    assert {key.split("/")[2] for key in found if key.startswith("cilium/state/")} == kinds
    config = json.loads(model.encode_json(cluster_config(settings)))
    assert config["capabilities"].get("endpointSlicesExportMode", "") == mode.value


def test_a_slice_travels_with_its_labels_and_the_addresses_of_its_family() -> None:
    settings = ExportSettings(cluster="paris", cluster_id=7, slices=SliceExport.BOTH)
    key = "cilium/state/endpointslices/v1/paris/shop/cart-a"
    world = (cart(), cart_slice({"addresses": ["10.7.0.1", "fd00::1", "x"], "hostname": "h"}))
    found = slices.decode(exported(*world, settings=settings)[key])
    assert found == model.EndpointSlice(
        "paris",
        7,
        "shop",
        "cart-a",
        labels={"kubernetes.io/service-name": "cart"},
        endpoints=(model.SliceEndpoint(("10.7.0.1",), hostname="h"),),
        ports=(model.SlicePort("http", "TCP", 8080),),
    )
    names = (cart(), cart_slice({"addresses": ["a.example"]}, addressType="FQDN"))
    assert key not in exported(*names, settings=settings)
    assert key not in exported(cart({}), cart_slice(), settings=settings)


def test_the_handshake_of_the_contract() -> None:
    both = ExportSettings(cluster="paris", cluster_id=7, slices=SliceExport.BOTH)
    assert model.encode_json(cluster_config(both)) == (
        b'{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255,'
        b'"serviceExportsEnabled":false,'
        b'"endpointSlicesExportMode":"services-and-endpointslices"}}'
    )


# --- MCS-API -----------------------------------------------------------------------------------


def test_an_exported_service_is_told_as_the_contract_shows() -> None:
    export = made(
        ObjectKind.SERVICE_EXPORT,
        "cart",
        "shop",
        metadata={"creationTimestamp": "2026-11-20T10:00:00Z"},
        spec={"exportedLabels": {"b": "1", "a": "<"}},
    )
    settings = ExportSettings(cluster="paris", cluster_id=7, mcs_api=True)
    key = "cilium/state/serviceexports/v1/paris/shop/cart"
    found = exported(cart({}), export, settings=settings)[key]
    assert found == (
        b'{"cluster":"paris","name":"cart","namespace":"shop","labels":{"a":"\\u003c","b":"1"},'
        b'"exportCreationTimestamp":"2026-11-20T10:00:00Z",'
        b'"ports":[{"name":"http","protocol":"TCP","port":80}],"type":"ClusterSetIP",'
        b'"sessionAffinity":"None","ipFamilies":["IPv4"],"internalTrafficPolicy":"Cluster"}'
    )
    assert key not in exported(cart({}), export)
    assert key not in exported(export, settings=settings)


@pytest.mark.parametrize("told", ["", "yesterday", "2026-11-20T10:00:00"])
def test_an_export_without_its_time_is_refused(told: str) -> None:
    exporter = Exporter(ExportSettings(cluster="paris", cluster_id=7, mcs_api=True))
    meta = {"creationTimestamp": told}
    feed(exporter, [cart({}), made(ObjectKind.SERVICE_EXPORT, "cart", "shop", metadata=meta)])
    [(what, reason)] = exporter.refusals()
    assert what == "Service shop/cart"
    assert reason.startswith(f"ServiceExport: metadata.creationTimestamp: {told!r}, expected")


def test_the_time_of_an_export_is_told_in_utc() -> None:
    exporter = Exporter(ExportSettings(cluster="paris", cluster_id=7, mcs_api=True))
    meta = {"creationTimestamp": "2026-11-20T12:00:00.5+02:00"}
    feed(exporter, [cart({}), made(ObjectKind.SERVICE_EXPORT, "cart", "shop", metadata=meta)])
    value = exporter.wanted()["cilium/state/serviceexports/v1/paris/shop/cart"]
    assert b'"exportCreationTimestamp":"2026-11-20T10:00:00Z"' in value


def test_a_derived_service_is_named_after_what_it_stands_for() -> None:
    """As ``printf shop/cart | sha256sum | xxd -r -p | basenc --base32hex`` begins, lower case."""
    assert mcs.derived_name("shop", "cart") == "derived-bsqa4s8pq5"


# --- addresses ---------------------------------------------------------------------------------


def endpoint(name: str, ip: str, namespace: str = "shop", **status: Any) -> KubernetesObject:
    networking = {"addressing": [{"ipv4": ip}], "node": "192.0.2.11"}
    return made(
        ObjectKind.CILIUM_ENDPOINT, name, namespace, status={"networking": networking, **status}
    )


def test_the_first_to_claim_an_address_keeps_it_and_the_next_takes_over() -> None:
    exporter = Exporter(PARIS)
    key = "cilium/state/ip/v1/default/10.7.0.1"
    old, new, third = (endpoint(name, "10.7.0.1") for name in ("z-old", "a-new", "b-third"))
    feed(exporter, [old, new, third])
    assert b"z-old" in exporter.wanted()[key]
    assert list(drop(exporter, new)) == []
    [(changed, value)] = drop(exporter, old)
    assert changed == key
    assert value is not None
    assert b"b-third" in value
    assert list(drop(exporter, third)) == [(key, None)]


def test_an_endpoint_says_who_it_is() -> None:
    found = exported(
        endpoint(
            "cart-0",
            "10.7.0.44",
            identity={"id": 470123},
            encryption={"key": 256 + 255},
            **{"service-account": "cart"},
        )
    )
    assert found["cilium/state/ip/v1/default/10.7.0.44"] == (
        b'{"IP":"10.7.0.44","Mask":null,"HostIP":"192.0.2.11","ID":470123,"Key":255,'
        b'"Metadata":"","K8sNamespace":"shop","K8sPodName":"cart-0","K8sServiceAccount":"cart"}'
    )


def test_endpoints_may_come_in_cilium_endpoint_slices() -> None:
    settings = ExportSettings(cluster="paris", cluster_id=7, cilium_endpoint_slices=True)
    assert ObjectKind.CILIUM_ENDPOINT not in settings.kinds
    networking = {"addressing": [{"ipv4": "10.7.0.44"}], "node": "192.0.2.11"}
    bundle = made(
        ObjectKind.CILIUM_ENDPOINT_SLICE,
        "ces-1",
        namespace="",
        endpoints=[{"name": "cart-0", "id": 470123, "networking": networking}],
    )
    bundle = objects.convert(
        ObjectKind.CILIUM_ENDPOINT_SLICE,
        {
            "metadata": {"name": "ces-1"},
            "namespace": "shop",
            "endpoints": [
                {
                    "name": "cart-0",
                    "id": 470123,
                    "networking": networking,
                    "service-account": "cart",
                }
            ],
        },
    )
    value = exported(bundle, settings=settings)["cilium/state/ip/v1/default/10.7.0.44"]
    assert (
        value
        == exported(
            endpoint("cart-0", "10.7.0.44", identity={"id": 470123}, **{"service-account": "cart"})
        )["cilium/state/ip/v1/default/10.7.0.44"]
    )


def test_an_object_too_large_for_etcd_is_told_and_left_for_etcd_to_refuse() -> None:
    labels = {f"label-{number:06}": "x" * 20 for number in range(100_000)}
    big = made(ObjectKind.CILIUM_NODE, "big", metadata={"labels": labels})
    exporter = Exporter(PARIS)
    feed(exporter, [big, made(ObjectKind.CILIUM_NODE, "small")])
    assert sorted(exporter.wanted()) == [
        "cilium/state/nodes/v1/paris/big",
        "cilium/state/nodes/v1/paris/small",
    ]
    [(what, reason)] = exporter.refusals()
    assert what == "CiliumNode big"
    assert "an etcd takes 1572864 a request" in reason


@pytest.mark.parametrize(
    ("affinity", "told", "seconds"),
    [
        ("None", 5, 0),
        ("ClientIP", None, 10800),
        ("ClientIP", 5, 5),
        ("ClientIP", 86400, 86400),
        ("ClientIP", 0, 10800),
        ("ClientIP", -5, 10800),  # an export of another cluster may say anything
        ("ClientIP", 86401, 10800),
        ("ClientIP", 1 << 40, 10800),
    ],
)
def test_seconds_of_session_affinity(affinity: str, told: int | None, seconds: int) -> None:
    config = objects.SessionAffinityConfig(objects.ClientIPConfig(told))
    spec = objects.ServiceSpec(session_affinity=affinity, session_affinity_config=config)
    assert affinity_seconds(spec) == seconds
