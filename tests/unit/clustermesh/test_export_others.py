"""Slices, the handshake, exports of the MCS-API and addresses (contract kvstore 2, 3, 12)."""

import json
from typing import Any

import pytest

from clustermesh import model, slices
from clustermesh.export import Exporter, ExportSettings, SliceExport, cluster_config, mcs
from clustermesh.export.services import affinity_seconds
from clustermesh.sources import objects
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.exports import (
    PARIS,
    cart,
    cart_slice,
    exported,
    made,
)
from tests.support.manifests import drop, feed

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
