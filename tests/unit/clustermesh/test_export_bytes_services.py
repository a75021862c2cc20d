"""Services and their exports to the byte, as the real program writes them (contract 2, 6, 12).

Inputs are JSON as an API server or a file would have it; outputs are whole values.
"""

import json
from typing import Any

import pytest

from clustermesh.export import ExportSettings
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.manifests import exported, made

SERVICES = "cilium/state/services/v1/paris/"
GLOBAL = {"service.cilium.io/global": "true"}


# --- services ----------------------------------------------------------------------------------


def service(name: str = "cart", **rest: Any) -> KubernetesObject:
    meta = {"annotations": GLOBAL, **rest.pop("metadata", {})}
    return made(ObjectKind.SERVICE, name, "shop", metadata=meta, **rest)


def slice_of(owner: str = "cart", name: str = "cart-a", **rest: Any) -> KubernetesObject:
    labels = {"kubernetes.io/service-name": owner, **rest.pop("labels", {})}
    return made(
        ObjectKind.ENDPOINT_SLICE,
        name,
        "shop",
        metadata={"labels": labels},
        **{"addressType": "IPv4", **rest},
    )


def told(*world: KubernetesObject) -> str:
    return exported(*world).get(f"{SERVICES}shop/cart", b"").decode()


LEAST = (
    '{"cluster":"paris","namespace":"shop","name":"cart","frontends":{},"backends":{},'
    '"labels":{},"selector":{},"includeExternal":true,"shared":true,"clusterID":7}'
)


@pytest.mark.parametrize("endpoints", [None, []])
def test_an_empty_slice_makes_a_service_without_backends(endpoints: list[Any] | None) -> None:
    assert told(service(), slice_of(endpoints=endpoints, ports=None)) == LEAST


@pytest.mark.parametrize(
    "labels", [{"kubernetes.io/service-name": ""}, {"kubernetes.io/service-name": "Cart"}]
)
def test_a_slice_of_nobody_counts_for_nobody(labels: dict[str, str]) -> None:
    assert told(service(), slice_of(labels=labels)) == ""


def test_the_label_of_another_proxy_counts_on_the_service_alone() -> None:
    foreign = {"service.kubernetes.io/service-proxy-name": "other"}
    assert told(service(), slice_of(labels=foreign)) == LEAST
    assert told(service(metadata={"labels": foreign}), slice_of()) == ""


def test_a_slice_of_names_has_no_backends() -> None:
    endpoints = [{"addresses": ["db.example.org"]}]
    ports = [{"name": "", "port": 1}]
    assert told(service(), slice_of(addressType="FQDN", endpoints=endpoints, ports=ports)) == LEAST


def test_a_service_in_full() -> None:
    spec = {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1", "FD00:96::0:1"],
        "externalIPs": ["198.51.100.1"],
        "loadBalancerIP": "203.0.113.1",
        "selector": {"z": "1", "a": "2"},
        "publishNotReadyAddresses": True,
        "sessionAffinity": "ClientIP",
        "ports": [
            {"name": "b", "port": 80, "protocol": "TCP", "targetPort": "web", "nodePort": 30080},
            {"name": "a", "port": 53, "protocol": "UDP", "targetPort": 5353},
            {"name": "c", "port": 9, "protocol": "SCTP"},
        ],
    }
    status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    four = slice_of(
        ports=[{"name": "b", "port": 8080}, {"name": "x", "port": 1}, {"name": "n"}],
        endpoints=[
            {"addresses": ["10.7.0.9", "10.7.0.10"], "hostname": "h"},
            {"addresses": ["10.7.0.2"], "conditions": {}, "zone": "z1"},
            {"addresses": ["10.7.0.3"], "conditions": {"ready": None, "serving": True}},
            {"addresses": ["10.7.0.4"], "conditions": {"ready": False}},
            {"addresses": ["10.7.0.5"], "conditions": {"ready": True, "terminating": True}},
        ],
    )
    six = slice_of(
        name="cart-b",
        addressType="IPv6",
        ports=[{"port": 8080, "protocol": "UDP"}],
        endpoints=[{"addresses": ["FD00:7::0:9"]}],
    )
    whole = service(spec=spec, status=status, metadata={"labels": {"l": "<v>"}})
    both = (
        '{"a":{"Protocol":"UDP","Port":53},"b":{"Protocol":"TCP","Port":80},'
        '"c":{"Protocol":"SCTP","Port":9}}'
    )
    four_ports = '{"b":{"Protocol":"TCP","Port":8080},"x":{"Protocol":"TCP","Port":1}}'
    assert told(whole, six, four) == (
        '{"cluster":"paris","namespace":"shop","name":"cart","frontends":{'
        f'"10.96.0.1":{both},"fd00:96::1":{both}}},"backends":{{'
        f'"10.7.0.10":{four_ports},"10.7.0.2":{four_ports},"10.7.0.3":{four_ports},'
        f'"10.7.0.5":{four_ports},"10.7.0.9":{four_ports},'
        '"fd00:7::9":{"":{"Protocol":"UDP","Port":8080}}},'
        '"hostnames":{"10.7.0.10":"h","10.7.0.9":"h"},"zones":{"10.7.0.2":{"zone":"z1","forZones":[]}},'
        '"labels":{"l":"\\u003cv\\u003e"},"selector":{"a":"2","z":"1"},'
        '"includeExternal":true,"shared":true,"clusterID":7}'
    )


@pytest.mark.parametrize(
    ("annotations", "published"),
    [
        ({"service.cilium.io/global": "tRuE"}, True),
        ({"service.cilium.io/global": "True"}, True),
        ({"service.cilium.io/global": "1"}, False),
        ({"service.cilium.io/global": "t"}, False),
        ({"service.cilium.io/global": "yes"}, False),
        ({"service.cilium.io/global": "true "}, False),
        ({"service.cilium.io/global": ""}, False),
        ({"service.cilium.io/Global": "true"}, False),
        ({"io.cilium/global-service": "TRUE", "io.cilium/shared-service": "TRUE"}, True),
        ({**GLOBAL, "io.cilium/global-service": "false"}, True),
        ({"service.cilium.io/global": "", "io.cilium/global-service": "true"}, False),
        ({**GLOBAL, "service.cilium.io/shared": "1"}, False),
        ({**GLOBAL, "service.cilium.io/shared": "FALSE"}, False),
        ({**GLOBAL, "service.cilium.io/shared": "", "io.cilium/shared-service": "true"}, False),
        ({**GLOBAL, "service.cilium.io/shared": "true", "service.cilium.io/affinity": "x"}, True),
        ({**GLOBAL, "service.cilium.io/affinity": "local"}, True),
    ],
)
def test_the_spelling_of_annotations(annotations: dict[str, str], published: bool) -> None:
    found = told(service(metadata={"annotations": annotations}), slice_of())
    assert found == (LEAST if published else "")


@pytest.mark.parametrize("name", ["kube-scheduler", "kube-controller-manager"])
@pytest.mark.parametrize("namespace", ["kube-system", "shop"])
def test_the_control_planes_own_services_are_not_told(name: str, namespace: str) -> None:
    meta = {"annotations": GLOBAL}
    own = made(ObjectKind.SERVICE, name, namespace, metadata=meta)
    labels = {"kubernetes.io/service-name": name}
    ends = made(ObjectKind.ENDPOINT_SLICE, "s", namespace, metadata={"labels": labels})
    assert exported(own, ends) == {}


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        ({"clusterIP": "None"}, {}),
        ({"clusterIP": "nOnE", "clusterIPs": ["nOnE"]}, {}),
        ({"clusterIP": "10.96.0.1"}, {"service.kubernetes.io/headless": "false"}),
    ],
)
def test_headless_services_have_no_frontends(spec: dict[str, Any], labels: dict[str, str]) -> None:
    ports = [{"name": "http", "port": 80}]
    found = told(service(spec={**spec, "ports": ports}, metadata={"labels": labels}), slice_of())
    assert found == LEAST.replace('"labels":{}', f'"labels":{json.dumps(labels)}').replace(
        '": "', '":"'
    )


# --- MCS-API -----------------------------------------------------------------------------------


def export(name: str = "cart", **spec: Any) -> KubernetesObject:
    meta = {"creationTimestamp": "2026-11-20T10:00:00Z"}
    return made(ObjectKind.SERVICE_EXPORT, name, "shop", metadata=meta, spec=spec)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"clusterIP": "None"}, {"type": "Headless"}),
        ({"type": "ExternalName", "externalName": "x.example"}, {"type": "ClusterSetIP"}),
        (
            {
                "ports": [
                    {"port": 1},
                    {"name": "b", "port": 2, "appProtocol": "h2", "protocol": "UDP"},
                ]
            },
            {
                "ports": [
                    {"protocol": "TCP", "port": 1},
                    {"name": "b", "protocol": "UDP", "appProtocol": "h2", "port": 2},
                ]
            },
        ),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            },
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            },
        ),
        ({"ipFamilies": ["IPv6", "IPv4"]}, {"ipFamilies": ["IPv6", "IPv4"]}),
        ({"internalTrafficPolicy": "Local"}, {"internalTrafficPolicy": "Local"}),
        ({"trafficDistribution": "PreferClose"}, {"trafficDistribution": "PreferClose"}),
    ],
)
def test_what_of_a_service_travels_with_its_export(
    spec: dict[str, Any], wanted: dict[str, Any]
) -> None:
    settings = ExportSettings(cluster="paris", cluster_id=7, mcs_api=True)
    found = exported(service(metadata={"annotations": {}}, spec=spec), export(), settings=settings)
    value = json.loads(found["cilium/state/serviceexports/v1/paris/shop/cart"])
    assert wanted.items() <= value.items()
    assert list(found) == ["cilium/state/serviceexports/v1/paris/shop/cart"]


@pytest.mark.parametrize(
    ("name", "labels", "exists"),
    [
        ("kube-scheduler", {}, True),
        ("cart", {"service.kubernetes.io/service-proxy-name": "x"}, False),
        ("cart", {}, True),
    ],
)
def test_which_exports_are_told(name: str, labels: dict[str, str], exists: bool) -> None:
    settings = ExportSettings(cluster="paris", cluster_id=7, mcs_api=True)
    found = exported(
        service(name, metadata={"annotations": {}, "labels": labels}),
        export(name),
        settings=settings,
    )
    assert (f"cilium/state/serviceexports/v1/paris/shop/{name}" in found) is exists
