"""Where facts live, and what a consumer asks before it believes one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh import keys, model
from clustermesh.keys import BadFact, Kind, Layout, Origin

PARIS = Origin("paris", 7)
SERVICE = "cilium/state/services/v1/paris/shop/cart"
NODE = "cilium/state/nodes/v1/paris/node-a"


@pytest.mark.parametrize(
    ("kind", "state", "cache", "canary"),
    [
        (Kind.NODES, "nodes/v1/paris/", "nodes/v1/paris/", "nodes/v1"),
        (Kind.IDENTITIES, "identities/v1/id/", "identities/v1/paris/id/", "identities/v1"),
        (Kind.IPS, "ip/v1/default/", "ip/v1/paris/", "ip/v1"),
        (Kind.SERVICES, "services/v1/paris/", "services/v1/paris/", "services/v1"),
        (
            Kind.SERVICE_EXPORTS,
            "serviceexports/v1/paris/",
            "serviceexports/v1/paris/",
            "serviceexports/v1",
        ),
        (
            Kind.ENDPOINT_SLICES,
            "endpointslices/v1/paris/",
            "endpointslices/v1/paris/",
            "endpointslices/v1",
        ),
    ],
)
def test_places_of_both_layouts(kind: Kind, state: str, cache: str, canary: str) -> None:
    assert keys.prefix(kind, Layout.STATE, "paris") == f"cilium/state/{state}"
    assert keys.prefix(kind, Layout.CACHE, "paris") == f"cilium/cache/{cache}"
    for layout in Layout:
        assert keys.canary(kind, layout, "paris") == f"cilium/synced/paris/cilium/{layout}/{canary}"


def test_no_prefix_of_a_cluster_covers_another() -> None:
    for kind in (Kind.NODES, Kind.SERVICES):
        place = keys.prefix(kind, Layout.STATE, "paris")
        assert not keys.prefix(kind, Layout.STATE, "paris2").startswith(place)


@pytest.mark.parametrize(
    ("cluster", "size", "first", "last"),
    [
        (0, 255, 256, 65535),
        (1, 255, 65536, 131071),
        (7, 255, 458752, 524287),
        (255, 255, 16711680, 16777215),
        (0, 511, 256, 32767),
        (300, 511, 300 << 15, (301 << 15) - 1),
    ],
)
def test_ranges_of_identities(cluster: int, size: int, first: int, last: int) -> None:
    numbers = keys.identity_range(cluster, size)
    assert (numbers[0], numbers[-1]) == (first, last)
    assert keys.cluster_of(first, size) == keys.cluster_of(last, size) == cluster


def service(**changes: object) -> bytes:
    values = {
        "cluster": "paris",
        "namespace": "shop",
        "name": "cart",
        "frontends": {"10.96.0.1": {"": {"Protocol": "TCP", "Port": 80}}},
        "backends": {"10.7.0.1": {}},
        "clusterID": 7,
    }
    return model.encode_json(values | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster": "rome"}, "cluster: 'rome', expected 'paris'"),
        ({"cluster": ""}, "cluster: empty"),
        ({"name": "other"}, "namespace/name: 'shop/other', expected 'shop/cart'"),
        ({"namespace": ""}, "namespace and name"),
        ({"clusterID": 8}, "clusterID: 8, expected 7"),
        ({"clusterID": -1}, "$.clusterID"),
        ({"frontends": {"x": {}}}, "frontends: 'x' is not an IP address"),
        ({"backends": {"10.7.0.300": {}}}, "backends: '10.7.0.300' is not an IP address"),
        ({"backends": {"10.7.0.1": {"a": {"Port": 70000}}}}, "$.backends[...][...].Port"),
        ({"backends": []}, "$.backends"),
        ({"shared": "true"}, "$.shared"),
    ],
)
def test_a_service_is_refused_as_a_whole(changes: dict[str, object], reason: str) -> None:
    assert keys.decode(Kind.SERVICES, PARIS, SERVICE, service())
    with pytest.raises(BadFact) as refusal:
        keys.decode(Kind.SERVICES, PARIS, SERVICE, service(**changes))
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Name": "node-b"}, "Name: 'node-b', expected 'node-a'"),
        ({"Cluster": "rome"}, "Cluster"),
        ({"ClusterID": 0}, "ClusterID: 0, expected 7"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "x"}]}, "IPAddresses[0].IP"),
        ({"IPv4HealthIP": "x"}, "IPv4HealthIP"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "AA"}}, "IPv4AllocCIDR"),
        ({"IPv6SecondaryAllocCIDRs": [{"IP": "fd00::", "Mask": "////AA=="}]}, "IPv6Secondary"),
        ({"EncryptionKey": 256}, "$.EncryptionKey"),
    ],
)
def test_a_node_is_refused_with_the_field(changes: dict[str, object], reason: str) -> None:
    minimal = {"Name": "node-a", "Cluster": "paris", "ClusterID": 7}
    assert keys.decode(Kind.NODES, PARIS, NODE, model.encode_json(minimal))
    with pytest.raises(BadFact) as refusal:
        keys.decode(Kind.NODES, PARIS, NODE, model.encode_json(minimal | changes))
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("470123", b"k8s:a=b;", "expected the label k8s:io.cilium.k8s.policy.cluster=paris;"),
        ("470123", b"k8s:io.cilium.k8s.policy.cluster=paris2;", "expected the label"),
        ("470123", b"x:io.cilium.k8s.policy.cluster=paris;", "expected the label"),
        ("470123", b"", "expected the label"),
        ("470123", b"\xff", "not UTF-8"),
        ("255", b"k8s:io.cilium.k8s.policy.cluster=paris;", "not in the range"),
        ("524288", b"k8s:io.cilium.k8s.policy.cluster=paris;", "not in the range"),
        ("x", b"", "expected a decimal number"),
        ("+470123", b"", "expected a decimal number"),
        ("1" * 5000, b"", "expected a decimal number"),
    ],
)
def test_an_identity_is_refused(name: str, value: bytes, reason: str) -> None:
    with pytest.raises(BadFact) as refusal:
        keys.decode(Kind.IDENTITIES, PARIS, f"cilium/state/identities/v1/id/{name}", value)
    assert reason in str(refusal.value)


def test_an_identity_may_be_padded_as_it_stands_in_its_object() -> None:
    value = b"k8s:a=b;k8s:io.cilium.k8s.policy.cluster=paris;"
    fact = keys.decode(Kind.IDENTITIES, PARIS, "cilium/state/identities/v1/id/0470123", value)
    assert fact == model.Identity(470123, value.decode())


def ip(**changes: object) -> bytes:
    return model.encode_json({"IP": "10.9.0.0", "Mask": None, "ID": 470123} | changes)


def test_prefixes_have_one_more_slash_in_their_key() -> None:
    key = "cilium/state/ip/v1/default/10.9.0.0/24"
    fact = keys.decode(Kind.IPS, PARIS, key, ip(Mask="////AA=="))
    assert isinstance(fact, model.IPEntry)
    assert fact.cidr() == "10.9.0.0/24"
    assert keys.key_of("paris", fact) == key
    for mask, reason in (("//8AAA==", "the value says 10.9.0.0/16"), ("/w8AAA==", "Mask")):
        with pytest.raises(BadFact, match=reason):
            keys.decode(Kind.IPS, PARIS, key, ip(Mask=mask))
    v6 = "cilium/state/ip/v1/default/fd00::/64"
    assert keys.decode(Kind.IPS, PARIS, v6, ip(IP="fd00::", Mask="//////////8AAAAAAAAAAA=="))


@pytest.mark.parametrize(
    ("number", "read_as"), [(1, 6), (2, 2), (0, 0), (255, 255), (458752, 458752)]
)
def test_reserved_identities_are_believed_and_the_host_is_a_remote_node(
    number: int, read_as: int
) -> None:
    key = "cilium/state/ip/v1/default/10.9.0.0"
    fact = keys.decode(Kind.IPS, PARIS, key, ip(ID=number))
    assert isinstance(fact, model.IPEntry)
    assert fact.id == read_as


def test_an_export_needs_its_time_and_its_type() -> None:
    key = "cilium/state/serviceexports/v1/paris/shop/cart"
    good = {
        "cluster": "paris",
        "namespace": "shop",
        "name": "cart",
        "exportCreationTimestamp": "2026-11-20T10:00:00Z",
        "type": "Headless",
    }
    assert keys.decode(Kind.SERVICE_EXPORTS, PARIS, key, model.encode_json(good))
    for field, value in (
        ("exportCreationTimestamp", "0001-01-01T00:00:00Z"),
        ("exportCreationTimestamp", ""),
        ("exportCreationTimestamp", "2026-11-20"),
        ("type", "Other"),
    ):
        with pytest.raises(BadFact, match=field):
            keys.decode(Kind.SERVICE_EXPORTS, PARIS, key, model.encode_json(good | {field: value}))


def test_a_number_that_no_machine_holds_is_skipped_where_nobody_reads_it() -> None:
    config = keys.decode_config(b'{"id":7,"future":[1e400,-1E999],"capabilities":{"new":{}}}')
    assert config.id == 7
    with pytest.raises(BadFact, match=r"id"):
        keys.decode_config(b'{"id":1e400}')


def test_a_handshake_is_read_and_a_bad_one_refused() -> None:
    config = keys.decode_config(b'{"id":7,"capabilities":{"cached":true,"future":1}}')
    assert config == model.ClusterConfig(7, model.Capabilities(cached=True))
    for bad in (b"", b"[]", b'{"id":"7"}', b'{"id":4294967296}'):
        with pytest.raises(BadFact):
            keys.decode_config(bad)


def test_an_unknown_member_may_hold_what_no_float_can() -> None:
    config = keys.decode_config(b'{"id":7,"future":[1e400,12345678901234567890123]}')
    assert config.id == 7
    with pytest.raises(BadFact, match=r"\$\.id"):
        keys.decode_config(b'{"id":1e400}')


@given(st.sampled_from(Kind), st.text(max_size=20), st.binary(max_size=80))
def test_no_key_and_no_bytes_make_it_fall_over(kind: Kind, name: str, value: bytes) -> None:
    place = keys.prefix(kind, Layout.STATE, "paris")
    with pytest.raises(BadFact):
        keys.decode(kind, PARIS, place + name, value)


@pytest.mark.parametrize(
    "value",
    [
        b'{"x":' + b"[" * 100_000,
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"IP":null}',
        b'{"IP":null,"Name":null,"name":null,"x":' + b"[" * 100_000,
        b'{"IP":"' + b"x" * 100_000 + b'","Name":"","name":""}',
        b'{"IP":"10.0.0.1","y":"\xff\xfe"}',
        b'{"IP":"10.0.0.1","y":"\\ud800"}',
        b'{"IP":"10.0.0.1\\u0000"}',
        b'{"IP":"10.0.0.1","ID":1e400}',
        b'{"IP":"10.0.0.1","ID":99999999999999999999999999}',
        b"null",
        b"{" * 50,
    ],
)
@pytest.mark.parametrize("kind", sorted(Kind))
def test_a_hostile_peer_is_refused_in_a_sentence(kind: Kind, value: bytes) -> None:
    with pytest.raises(BadFact) as refusal:
        keys.decode(kind, PARIS, keys.prefix(kind, Layout.STATE, "paris") + "x/y", value)
    assert 0 < len(str(refusal.value)) <= 300
