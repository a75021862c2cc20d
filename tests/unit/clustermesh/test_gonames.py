"""Documents that Go reads though Go would not have written them (contract kvstore 2)."""

import pytest

from clustermesh import gojson, keys
from clustermesh.keys import BadFact, Kind, Layout, Origin
from clustermesh.model import Port, Zone, ZoneHint

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
