"""Documents that Go reads though Go would not have written them (contract kvstore 2)."""

from collections.abc import Iterator
from copy import deepcopy

import msgspec
import pytest

from clustermesh import gojson, keys
from clustermesh.keys import BadFact, Kind, Layout, Origin
from clustermesh.model import GoStruct, Port, Zone, ZoneHint

PARIS = Origin("paris", 7)


def read(kind: Kind, name: str, value: str | bytes) -> keys.Fact:
    key = keys.prefix(kind, Layout.STATE, "paris") + name
    return keys.decode(kind, PARIS, key, value.encode() if isinstance(value, str) else value)


def test_names_of_fields_in_any_case_mean_the_same() -> None:
    found = read(
        Kind.SERVICES,
        "shop/cart",
        '{"CLUSTER":"paris","Namespace":"shop","name":"cart","Shared":true,"clusterId":7,'
        '"Backends":{"10.7.0.1":{"HTTP":{"protocol":"TCP","port":80}}},'
        '"zones":{"10.7.0.1":{"Zone":"z1","forzones":[{"Name":"z2"}]}},"Labels":{"App":"x"}}',
    )
    wanted = keys.decode(
        Kind.SERVICES,
        PARIS,
        "cilium/state/services/v1/paris/shop/cart",
        b'{"cluster":"paris","namespace":"shop","name":"cart","shared":true,"clusterID":7,'
        b'"backends":{"10.7.0.1":{"HTTP":{"Protocol":"TCP","Port":80}}},'
        b'"zones":{"10.7.0.1":{"zone":"z1","forZones":[{"name":"z2"}]}},"labels":{"App":"x"}}',
    )
    assert found == wanted
    assert wanted.backends == {"10.7.0.1": {"HTTP": Port("TCP", 80)}}  # type: ignore[union-attr]
    assert wanted.zones == {"10.7.0.1": Zone("z1", (ZoneHint("z2"),))}  # type: ignore[union-attr]


WRITTEN = {
    Kind.SERVICES: (
        "a/b",
        {
            "cluster": "paris",
            "namespace": "a",
            "name": "b",
            "frontends": {"10.96.0.1": {"": {"Protocol": "TCP", "Port": 80}}},
            "backends": {"10.7.0.1": {"": {"Protocol": "TCP", "Port": 8080}}},
            "hostnames": {"10.7.0.1": "b-0"},
            "zones": {"10.7.0.1": {"zone": "z", "forZones": [{"name": "z"}]}},
            "labels": {"App": "x"},
            "selector": {"App": "x"},
            "includeExternal": True,
            "shared": True,
            "clusterID": 7,
        },
    ),
    Kind.NODES: (
        "n",
        {
            "Name": "n",
            "Cluster": "paris",
            "IPAddresses": [{"Type": "InternalIP", "IP": "192.0.2.1"}],
            "IPv4AllocCIDR": {"IP": "10.7.0.0", "Mask": "////AA=="},
            "IPv4SecondaryAllocCIDRs": [{"IP": "10.8.0.0", "Mask": "////AA=="}],
            "IPv4HealthIP": "10.7.0.2",
            "ClusterID": 7,
            "EncryptionKey": 255,
            "Labels": {"Zone": "z"},
            "BootID": "x",
        },
    ),
    Kind.IPS: (
        "10.7.0.1",
        {
            "IP": "10.7.0.1",
            "Mask": None,
            "HostIP": "192.0.2.1",
            "ID": 458753,
            "Key": 3,
            "Metadata": "m",
            "K8sNamespace": "a",
            "NamedPorts": [{"Name": "http", "Port": 80, "Protocol": "TCP"}],
        },
    ),
    Kind.SERVICE_EXPORTS: (
        "a/b",
        {
            "cluster": "paris",
            "name": "b",
            "namespace": "a",
            "labels": {"App": "x"},
            "exportCreationTimestamp": "2026-11-20T10:00:00Z",
            "ports": [{"name": "http", "port": 80}],
            "type": "ClusterSetIP",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            "ipFamilies": ["IPv4"],
        },
    ),
}
"""A value of each kind with something in every sort of field."""
MAPS = {"frontends": 2, "backends": 2, "hostnames": 1, "zones": 1}
MAPS |= {"labels": 1, "selector": 1, "Labels": 1}
"""How many maps, one in the other, there are in these fields: their keys are no names of fields."""


def names_within(document: object, maps: int = 0) -> Iterator[tuple[dict, str]]:
    """Every field of a document, however deep: where it is, and its name."""
    if isinstance(document, list):
        for item in document:
            yield from names_within(item)
    elif isinstance(document, dict):
        for name in list(document):
            if not maps:
                yield document, name
            yield from names_within(document[name], maps - 1 if maps else MAPS.get(name, 0))


def each_name(written: dict) -> Iterator[tuple[dict, dict, str]]:
    """For each field at every level: a copy of the document, the object in it, and the name."""
    for at in range(len(list(names_within(written)))):
        changed = deepcopy(written)
        yield changed, *list(names_within(changed))[at]


@pytest.mark.parametrize("kind", WRITTEN)
def test_any_one_name_may_be_spelled_otherwise(kind: Kind) -> None:
    name, written = WRITTEN[kind]
    wanted = read(kind, name, msgspec.json.encode(written))
    for changed, place, field in each_name(written):
        place[field.swapcase()] = place.pop(field)
        assert read(kind, name, msgspec.json.encode(changed)) == wanted, field


@pytest.mark.parametrize("kind", WRITTEN)
def test_any_part_may_have_a_name_that_nobody_reads(kind: Kind) -> None:
    name, written = WRITTEN[kind]
    wanted = read(kind, name, msgspec.json.encode(written))
    for changed, place, _ in each_name(written):
        place["future"] = {"a": [None, {"b": "\u20ac"}]}
        assert read(kind, name, msgspec.json.encode(changed)) == wanted


def test_of_two_spellings_of_a_name_the_later_one_counts() -> None:
    value = '{"cluster":"paris","namespace":"a","name":"b","clusterID":7,"shared":%s,"Shared":%s}'
    for first, last in (("true", "false"), ("false", "true")):
        found = read(Kind.SERVICES, "a/b", value % (first, last))
        assert found.shared is (last == "true")  # type: ignore[union-attr]


def test_a_type_that_is_read_as_go_does_must_notice_what_it_does_not_know() -> None:
    class Within(msgspec.Struct):
        a: int = 0

    class Whole(GoStruct):
        within: dict[str, tuple[Within, ...] | None]

    with pytest.raises(TypeError, match="Within: expected forbid_unknown_fields"):
        gojson.Reader(Whole, fold=str.lower)
    assert gojson.Reader(Whole).decode(b'{"within":{"x":[{"b":1}]}}').within == {"x": (Within(),)}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Kind.NODES, "n1", '{"name":"n1","cluster":"paris","clusterid":7}'),
        (Kind.NODES, "n1", '{"Cluster":"paris","ClusterID":7,"NAME":"n1","Labels":null}'),
        (Kind.IPS, "10.7.0.1", '{"ip":"10.7.0.1","id":458753,"hostIp":"192.0.2.1"}'),
        (Kind.IPS, "10.7.0.1", '{"IP":"10.7.0.1","Mask":null,"ID":458753,"New":{"a":[null]}}'),
        (Kind.NODES, "n1", b'{"Name":"n1","Cluster":"paris","ClusterID":7,"BootID":"\xff"}'),
        (
            Kind.SERVICES,
            "a/b",
            (
                '{"cluster":"paris","namespace":"a","name":"b","clusterID":7,"frontends":null,'
                '"backends":{"10.7.0.1":null,"10.7.0.2":{"":null}},"hostnames":null,"labels":null}'
            ),
        ),
        (
            Kind.SERVICE_EXPORTS,
            "a/b",
            (
                '{"Cluster":"paris","Name":"b","Namespace":"a","Type":"Headless",'
                '"ExportCreationTimestamp":"2026-11-20T10:00:00Z"}'
            ),
        ),
    ],
)
def test_go_would_take_these(kind: Kind, name: str, value: str | bytes) -> None:
    assert keys.name_of(read(kind, name, value)) == name


@pytest.mark.parametrize(
    ("kind", "name", "value", "reason"),
    [
        (Kind.NODES, "n1", '{"Name":"n1","Cluster":"paris","ClusterID":7.0}', r"\$.ClusterID"),
        (Kind.NODES, "n1", '{"name":"n1","cluster":"paris","clusterid":"7"}', r"\$.ClusterID"),
        (Kind.NODES, "n1", '{"name":"n1","cluster":"paris","clusterid":-7}', r"\$.ClusterID"),
        (Kind.NODES, "n1", "null", "object"),
        (Kind.NODES, "n1", "[]", "object"),
        (Kind.NODES, "n1", "", "truncated"),
        (Kind.IPS, "10.7.0.1", '{"ip":"10.7.0.1","id":458753}x', "trailing"),
    ],
)
def test_go_would_refuse_these(kind: Kind, name: str, value: str, reason: str) -> None:
    with pytest.raises(BadFact, match=reason):
        read(kind, name, value)


def test_a_config_in_any_case() -> None:
    config = keys.decode_config(b'{"ID":7,"capabilities":{"SyncedCanaries":true,"CACHED":true}}')
    assert config.id == 7
    assert config.capabilities.synced_canaries
    assert config.capabilities.cached


def test_manifests_are_no_go_documents() -> None:
    reader = gojson.Reader(Port)  # as Kubernetes reads: names as they are spelled
    assert reader.convert({"protocol": "TCP", "Port": None}) == Port()
    assert reader.decode(b'{"protocol":"TCP","Port":80}') == Port("", 80)


def test_what_is_within_a_service_may_be_spelled_otherwise_and_lists_may_hold_nulls() -> None:
    value = (
        b'{"cluster":"a","namespace":"n","name":"s","frontends":{},"backends":'
        b'{"10.0.0.1":{"p":{"protocol":"TCP","port":80}}},"labels":{},"selector":{},'
        b'"includeExternal":true,"shared":true,"clusterID":7}'
    )
    origin = Origin("a", 7, 255, Layout.STATE)
    service = keys.decode(Kind.SERVICES, origin, "cilium/state/services/v1/a/n/s", value)
    assert service.backends == {"10.0.0.1": {"p": Port("TCP", 80)}}
    node = (
        b'{"Name":"x","Cluster":"a","ClusterID":7,'
        b'"IPAddresses":[{"Type":"InternalIP","IP":"1.1.1.1"},null]}'
    )
    found = keys.decode(Kind.NODES, origin, "cilium/state/nodes/v1/a/x", node)
    assert found.addresses[0].ip == "1.1.1.1"
