"""What the own cluster's agents learn of every service (clustermesh/local/v1)."""

import pytest

from clustermesh import local
from clustermesh.export import Exporter
from clustermesh.sources.objects import ObjectKind
from tests.support.exports import GLOBAL, PARIS, cart, cart_slice, exported, made, own
from tests.support.manifests import feed


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
