"""Keys and values to the byte, rule by rule, as the real program writes them (contract 2, 12).

Inputs are JSON as an API server or a file would have it; outputs are whole values.
"""

import json
from typing import Any

import pytest

from clustermesh.export import ExportSettings
from clustermesh.sources.objects import KubernetesObject, ObjectKind
from tests.support.manifests import PARIS, exported, made

NODES = "cilium/state/nodes/v1/paris/"
IPS = "cilium/state/ip/v1/default/"
IDENTITIES = "cilium/state/identities/v1/id/"


# --- nodes -------------------------------------------------------------------------------------


def node(name: str = "n1", settings: ExportSettings = PARIS, **rest: Any) -> dict[str, Any]:
    [(key, value)] = exported(made(ObjectKind.CILIUM_NODE, name, **rest), settings=settings).items()
    assert key == NODES + name
    decoded: dict[str, Any] = json.loads(value)
    return decoded


def test_a_node_without_anything_has_every_field() -> None:
    [value] = exported(made(ObjectKind.CILIUM_NODE, "n1.example.org")).values()
    assert value == (
        b'{"Name":"n1.example.org","Cluster":"paris","IPAddresses":null,"IPv4AllocCIDR":null,'
        b'"IPv4SecondaryAllocCIDRs":null,"IPv6AllocCIDR":null,"IPv6SecondaryAllocCIDRs":null,'
        b'"IPv4HealthIP":"","IPv6HealthIP":"","IPv4IngressIP":"","IPv6IngressIP":"",'
        b'"ClusterID":7,"Source":"custom-resource","EncryptionKey":0,"Labels":null,'
        b'"Annotations":null,"WireguardPubKey":"","BootID":""}'
    )


def test_a_node_with_everything() -> None:
    spec = {
        "addresses": [
            {"type": "Hostname", "ip": "n1"},
            {"type": "InternalIP", "ip": "192.0.2.11"},
            {"type": "ExternalIP", "ip": "2001:DB8:0::0001"},
            {"type": "CiliumInternalIP", "ip": "::ffff:10.7.0.1"},
            {"type": "InternalIP", "ip": "300.1.1.1"},
            {"type": "InternalIP", "ip": "010.0.0.1"},
        ],
        "bootid": "boot",
        "encryption": {"key": 3},
        "health": {"ipv4": "10.7.0.2", "ipv6": "FD00::2"},
        "ingress": {"ipv4": "10.7.0.3", "ipv6": "nothing"},
        "ipam": {
            "podCIDRs": ["10.7.0.77/24", "fd00:7::5/64", "10.8.0.0/16", "10.9.0.0", "fd00:8::/120"],
            "pools": {
                "allocated": [
                    {"pool": "other", "cidrs": ["10.10.0.1/28", "fd00:9::/128"]},
                    {"pool": "default", "cidrs": ["10.11.0.0/32"]},
                ]
            },
        },
        "nodeidentity": 4294967297,
    }
    meta = {
        "labels": {"b": "<1>", "a/b": "2", "a-b": "&", "aB": ""},
        "annotations": {"network.cilium.io/wg-pub-key": "k=", "x": "\u2028\u00e9\ud83d\ude00"},
    }
    [value] = exported(made(ObjectKind.CILIUM_NODE, "n1", metadata=meta, spec=spec)).values()
    assert value.decode() == (
        '{"Name":"n1","Cluster":"paris","IPAddresses":['
        '{"Type":"InternalIP","IP":"192.0.2.11"},{"Type":"ExternalIP","IP":"2001:db8::1"},'
        '{"Type":"CiliumInternalIP","IP":"10.7.0.1"}],'
        '"IPv4AllocCIDR":{"IP":"10.7.0.0","Mask":"////AA=="},'
        '"IPv4SecondaryAllocCIDRs":[{"IP":"10.8.0.0","Mask":"//8AAA=="},'
        '{"IP":"10.10.0.0","Mask":"////8A=="},{"IP":"10.11.0.0","Mask":"/////w=="}],'
        '"IPv6AllocCIDR":{"IP":"fd00:7::","Mask":"//////////8AAAAAAAAAAA=="},'
        '"IPv6SecondaryAllocCIDRs":[{"IP":"fd00:8::","Mask":"////////////////////AA=="},'
        '{"IP":"fd00:9::","Mask":"/////////////////////w=="}],'
        '"IPv4HealthIP":"10.7.0.2","IPv6HealthIP":"fd00::2","IPv4IngressIP":"10.7.0.3",'
        '"IPv6IngressIP":"","ClusterID":7,"Source":"custom-resource","EncryptionKey":3,'
        '"Labels":{"a-b":"\\u0026","a/b":"2","aB":"","b":"\\u003c1\\u003e"},'
        '"Annotations":{"network.cilium.io/wg-pub-key":"k=","x":"\\u2028\u00e9\U0001f600"},'
        '"WireguardPubKey":"k=","BootID":"boot"}'
    )


@pytest.mark.parametrize(
    ("key", "told"), [(0, 0), (15, 15), (255, 255), (256, 0), (511, 255), (-1, 255)]
)
def test_an_encryption_key_is_cut_to_eight_bits(key: int, told: int) -> None:
    assert node(spec={"encryption": {"key": key}})["EncryptionKey"] == told


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ({"network.cilium.io/wg-pub-key": "new"}, "new"),
        ({"io.cilium.network.wg-pub-key": "old"}, "old"),
        ({"io.cilium.network.wg-pub-key": "old", "network.cilium.io/wg-pub-key": "new"}, "new"),
        ({"io.cilium.network.wg-pub-key": "old", "network.cilium.io/wg-pub-key": ""}, ""),
        ({"network.cilium.io/ipv4-pod-cidr": "10.0.0.0/24"}, ""),
    ],
)
def test_the_wireguard_key_has_two_names(annotations: dict[str, str], told: str) -> None:
    found = node(metadata={"annotations": annotations})
    assert found["WireguardPubKey"] == told
    assert found["Annotations"] == annotations
    assert found["IPv4AllocCIDR"] is None


def test_empty_maps_are_not_absent_ones() -> None:
    found = node(metadata={"labels": {}, "annotations": {}})
    assert (found["Labels"], found["Annotations"]) == ({}, {})


def test_a_larger_mesh_changes_only_numbers() -> None:
    wide = ExportSettings(cluster="paris", cluster_id=300, max_clusters=511)
    assert node(settings=wide) == {**node(), "ClusterID": 300}


# --- identities --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"k8s:b": "1", "k8s:a": "2"}, "k8s:a=2;k8s:b=1;"),
        ({"k8s:a-b": "4", "k8s:aB": "5", "k8s:a": "2"}, "k8s:a=2;k8s:a-b=4;k8s:aB=5;"),
        ({"k8s:a": "2", "container:a": "6"}, "container:a=6;k8s:a=2;"),
        ({"z:a": "1", "a:b": "2"}, "z:a=1;a:b=2;"),
        ({"app": "x"}, "unspec:app=x;"),
        ({":app": "x"}, "unspec:app=x;"),
        ({"k8s:": "x"}, "k8s:=x;"),
        ({"k8s:a:b": "x"}, "k8s:a:b=x;"),
        ({"k8s:a": "p=q;r"}, "k8s:a=p=q;r;"),
        ({"k8s:a": ""}, "k8s:a=;"),
        ({"k8s:a": "<&>\u2028"}, "k8s:a=<&>\u2028;"),
        ({"reserved:host": ""}, "reserved:host=;"),
        ({"reserved.host": ""}, "reserved:host=;"),
        ({"$host": ""}, "reserved:host=;"),
        ({"reserved:": "host"}, "reserved:host=;"),
        ({"cidr:10.0.0.0/8": ""}, "cidr:10.0.0.0/8=;"),
    ],
)
def test_the_text_of_an_identity(labels: dict[str, str], told: str) -> None:
    identity = made(ObjectKind.CILIUM_IDENTITY, "08419610", **{"security-labels": labels})
    assert exported(identity) == {f"{IDENTITIES}08419610": told.encode()}


@pytest.mark.parametrize("labels", [{}, None])
def test_an_identity_without_labels_is_none(labels: dict[str, str] | None) -> None:
    assert exported(made(ObjectKind.CILIUM_IDENTITY, "1", **{"security-labels": labels})) == {}


# --- addresses ---------------------------------------------------------------------------------


def endpoint(name: str = "pod-0", **status: Any) -> KubernetesObject:
    return made(ObjectKind.CILIUM_ENDPOINT, name, "shop", status=status)


def test_an_endpoint_with_as_little_as_possible() -> None:
    assert exported(endpoint(networking={"addressing": [{"ipv4": "10.7.0.1"}]})) == {
        f"{IPS}10.7.0.1": b'{"IP":"10.7.0.1","Mask":null,"HostIP":"","ID":0,"Key":0,"Metadata":"",'
        b'"K8sNamespace":"shop","K8sPodName":"pod-0"}'
    }


def test_one_key_for_each_address_canonically_spelt() -> None:
    addressing = [
        {"ipv4": "10.7.0.1", "ipv6": "fd00:10:3:0:0:0:0:12"},
        {"ipv6": "FD00::00AB"},
        {"ipv4": "::ffff:10.7.0.2"},
        {"ipv6": "::ffff:a07:3"},
        {"ipv6": "0:0:0:0:0:0:0:1"},
        {"ipv4": "10.7.0", "ipv6": "fe80::1%eth0"},
        {},
    ]
    found = exported(endpoint(networking={"addressing": addressing, "node": "fd00:0::2"}))
    assert [key.removeprefix(IPS) for key in found] == [
        "10.7.0.1",
        "fd00:10:3::12",
        "fd00::ab",
        "10.7.0.2",
        "10.7.0.3",
        "::1",
    ]
    assert {json.loads(value)["HostIP"] for value in found.values()} == {"fd00::2"}
    assert [json.loads(value)["IP"] for value in found.values()] == [
        key.removeprefix(IPS) for key in found
    ]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"networking": None},
        {"networking": {}},
        {"networking": {"addressing": []}},
        {"networking": {"addressing": None}},
        {"networking": {"addressing": [{"ipv4": ""}]}},
        {"networking": {"addressing": [{"ipv4": "none"}]}},
    ],
)
def test_an_endpoint_without_an_address_has_no_key(status: dict[str, Any]) -> None:
    assert exported(endpoint(**status)) == {}


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        (None, 0),
        ({}, 0),
        ({"id": 0}, 0),
        ({"id": 5}, 5),
        ({"id": 16777216 + 9}, 16777225),
        ({"id": 4294967295}, 4294967295),
        ({"id": 4294967296 + 7}, 7),
        ({"id": -1}, 4294967295),
        ({"id": 470123, "labels": ["k8s:a=b"]}, 470123),
    ],
)
def test_an_identity_is_cut_to_32_bits(identity: dict[str, Any] | None, told: int) -> None:
    networking = {"addressing": [{"ipv4": "10.7.0.1"}]}
    [value] = exported(endpoint(networking=networking, identity=identity)).values()
    assert json.loads(value)["ID"] == told


def test_named_ports_labels_and_state_of_an_endpoint_stay_at_home() -> None:
    networking = {"addressing": [{"ipv4": "10.7.0.1"}], "node": "192.0.2.1"}
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    whole = endpoint(
        networking=networking,
        id=77,
        state="disconnecting",
        encryption={"key": 300},
        **{"named-ports": ports, "external-identifiers": {"k8s-pod-name": "other"}},
    )
    [value] = exported(whole).values()
    assert value == (
        b'{"IP":"10.7.0.1","Mask":null,"HostIP":"192.0.2.1","ID":0,"Key":44,"Metadata":"",'
        b'"K8sNamespace":"shop","K8sPodName":"pod-0"}'
    )
