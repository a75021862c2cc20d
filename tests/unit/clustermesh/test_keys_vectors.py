"""Every record that a real Cilium component wrote is understood, and written back byte for byte."""

from collections.abc import Callable

import pytest

from clustermesh import gojson, keys, model
from clustermesh.keys import BadFact, Kind, Layout, Origin
from tests.support.vectors import APISERVER, MOCK, RECORDINGS, Record, records

READERS = {
    Kind.NODES: gojson.Reader(model.Node),
    Kind.IPS: gojson.Reader(model.IPEntry),
    Kind.SERVICES: gojson.Reader(model.ClusterService),
    Kind.SERVICE_EXPORTS: gojson.Reader(model.ServiceExport),
}
ORIGINS = {
    APISERVER / "etcd-max511.jsonl": (Origin("cl1", 300, 511),),
    MOCK / "etcd.jsonl": (
        Origin("cluster-001", 1, 255, Layout.CACHE),
        Origin("cluster-002", 2, 255, Layout.CACHE),
    ),
}

FOREIGN_IDENTITY = "neither reserved (below 256) nor in the range of cluster cl1"
REFUSED = {
    # The recorded identities were made by hand, outside of the range of cluster 7 and of 300.
    "cilium/state/identities/v1/id/70001": "not in the range of cluster cl1",
    "cilium/state/identities/v1/id/70002": "not in the range of cluster cl1",
    "cilium/state/identities/v1/id/70003": "not in the range of cluster cl1",
    "cilium/state/identities/v1/id/70004": "not in the range of cluster cl1",
    "cilium/state/identities/v1/id/70005": "not in the range of cluster cl1",
    "cilium/state/identities/v1/id/70006": "not in the range of cluster cl1",
    "cilium/state/ip/v1/default/10.1.0.10": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/10.1.0.11": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/10.1.0.14": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/10.1.0.15": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/10.1.1.16": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/10.1.1.20": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/fd00:10:1::10": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/fd00:10:1::14": FOREIGN_IDENTITY,
    "cilium/state/ip/v1/default/fd00:10:3::12": FOREIGN_IDENTITY,
    # What the real program makes of an unparsable address (contract kvstore 12.endpoints).
    "cilium/state/ip/v1/default/<nil>": "IP: '' is not an IP address",
}


def each_record() -> list[tuple[Origin, Kind, Record]]:
    """Every recorded fact with its origin and kind; what is no fact is tested further down."""
    found = []
    for path in RECORDINGS:
        for origin in ORIGINS.get(path, (Origin("cl1", 7),)):
            for kind in Kind:
                place = keys.prefix(kind, origin.layout, origin.cluster)
                found += [(origin, kind, r) for r in records(path) if r.key.startswith(place)]
    return found


def each_other_record() -> list[Record]:
    facts = {record for _, _, record in each_record()}
    return [record for path in RECORDINGS for record in records(path) if record not in facts]


def test_every_value_is_read_and_written_back_byte_for_byte() -> None:
    written_back = 0
    for _, kind, record in each_record():
        if kind is Kind.IDENTITIES:
            number = int(record.key.rpartition("/")[2])
            fact = model.Identity(number, record.value.decode())
        else:
            fact = READERS[kind].decode(record.value)
        assert keys.encode(fact) == record.value, record.key
        written_back += 1
    assert written_back == 286


def test_every_key_is_rebuilt_from_its_value() -> None:
    for origin, kind, record in each_record():
        if record.key in REFUSED:
            continue
        fact = keys.decode(kind, origin, record.key, record.value)
        place = keys.prefix(kind, origin.layout, origin.cluster)
        assert place + keys.name_of(fact) == record.key
        if origin.layout is Layout.STATE:
            assert keys.key_of(origin.cluster, fact) == record.key


def test_a_consumer_refuses_exactly_these_records() -> None:
    refused = {}
    for origin, kind, record in each_record():
        try:
            keys.decode(kind, origin, record.key, record.value)
        except BadFact as reason:
            refused[record.key] = str(reason)
    assert refused.keys() == REFUSED.keys()
    for key, reason in refused.items():
        assert REFUSED[key] in reason


def test_the_records_that_are_no_facts_are_handshakes_canaries_and_heartbeats() -> None:
    for record in each_other_record():
        if record.key == keys.HEARTBEAT:
            continue
        if record.key.startswith("cilium/synced/"):
            cluster = record.key.split("/")[2]
            canaries = {keys.canary(k, y, cluster) for k in Kind for y in Layout}
            assert record.key in canaries
            continue
        cluster = record.key.rpartition("/")[2]
        assert record.key == keys.cluster_config(cluster)
        assert model.encode_json(keys.decode_config(record.value)) == record.value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value.replace(b'"IP":"fd00::1a"', b'"IP":"fd00::1b"'), "the key"),
        (
            lambda value: value.replace(b'"ID":66736', b'"ID":131072'),
            "range of cluster cluster-001",
        ),
        (lambda value: value.replace(b'"ID":66736', b'"ID":-1'), "$.ID"),
        (lambda value: value.replace(b'"ID":66736', b'"ID":"66736"'), "$.ID"),
        (lambda value: value.replace(b'"Key":0', b'"Key":256'), "$.Key"),
        (lambda value: value.replace(b'"HostIP":"172.16.0.3"', b'"HostIP":"x"'), "HostIP"),
        (lambda value: value[:-1], "truncated"),
        (lambda _: b"[]", "Expected `object`"),
        (lambda _: b"\xff", "invalid"),
        (lambda _: b'{"ID":66736}', "IP"),
    ],
)
def test_a_spoilt_address_is_refused_with_the_place(
    change: Callable[[bytes], bytes], reason: str
) -> None:
    origin = Origin("cluster-001", 1, 255, Layout.CACHE)
    key = "cilium/cache/ip/v1/cluster-001/fd00::1a"
    value = (
        b'{"IP":"fd00::1a","Mask":null,"HostIP":"172.16.0.3","ID":66736,"Key":0,"Metadata":"",'
        b'"K8sNamespace":"salmon","K8sPodName":"noted-quail"}'
    )
    keys.decode(Kind.IPS, origin, key, value)
    with pytest.raises(BadFact) as refusal:
        keys.decode(Kind.IPS, origin, key, change(value))
    assert reason in str(refusal.value)


def test_the_key_must_be_in_the_canonical_spelling_but_the_value_need_not() -> None:
    origin = Origin("c", 1)
    place = keys.prefix(Kind.IPS, Layout.STATE, "c")
    upper = b'{"IP":"FD00::1","ID":65536}'
    assert keys.decode(Kind.IPS, origin, place + "fd00::1", upper)
    with pytest.raises(BadFact, match="the value says fd00::1, the key FD00::1"):
        keys.decode(Kind.IPS, origin, place + "FD00::1", upper)
    mapped = b'{"IP":"::ffff:10.0.0.1","ID":65536}'
    assert keys.decode(Kind.IPS, origin, place + "10.0.0.1", mapped)
