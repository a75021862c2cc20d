"""Endpoint slices: an ordinary protobuf reader understands ours, and we understand its writer."""

import contextlib

import pytest
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clustermesh import slices
from clustermesh.keys import BadFact, Kind, Origin, decode, encode, key_of
from clustermesh.model import EndpointSlice, SliceEndpoint, SlicePort

F = descriptor_pb2.FieldDescriptorProto
TEXT, BOOL, UINT32, INT32 = F.TYPE_STRING, F.TYPE_BOOL, F.TYPE_UINT32, F.TYPE_INT32
FIELDS: dict[str, list[tuple[int, str, object]]] = {
    "ForZone": [(1, "name", TEXT)],
    "EndpointHints": [(1, "forZones*", "ForZone")],
    "EndpointConditions": [(1, "ready", BOOL), (2, "serving", BOOL), (3, "terminating", BOOL)],
    "Entry": [(1, "key", TEXT), (2, "value", TEXT)],
    "Endpoint": [
        (1, "addresses*", TEXT),
        (2, "conditions", "EndpointConditions"),
        (3, "hostname", TEXT),
        (5, "deprecatedTopology*", "Entry"),
        (6, "nodeName", TEXT),
        (7, "zone", TEXT),
        (8, "hints", "EndpointHints"),
    ],
    "EndpointPort": [
        (1, "name", TEXT),
        (2, "protocol", TEXT),
        (3, "port", INT32),
        (4, "app", TEXT),
    ],
    "ClusterEndpointSlice": [
        (1, "cluster", TEXT),
        (2, "clusterID", UINT32),
        (3, "namespace", TEXT),
        (4, "name", TEXT),
        (5, "labels*", "Entry"),
        (6, "annotations*", "Entry"),
        (7, "addressType", TEXT),
        (8, "endpoints*", "Endpoint"),
        (9, "ports*", "EndpointPort"),
    ],
}


def schema() -> type[Message]:
    """The message of contract kvstore 2.7, as protobuf's own runtime sees it."""
    file = descriptor_pb2.FileDescriptorProto(name="slice.proto", package="t", syntax="proto2")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            label = F.LABEL_REPEATED if field.endswith("*") else F.LABEL_OPTIONAL
            added = message.field.add(name=field.rstrip("*"), number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = F.TYPE_MESSAGE, f".t.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ClusterEndpointSlice"))


SCHEMA = schema()
text = st.text(st.characters(codec="utf-8"), max_size=8)
maybe = st.none() | st.booleans()
endpoints = st.builds(
    SliceEndpoint,
    addresses=st.lists(text, max_size=3).map(tuple),
    ready=maybe,
    serving=maybe,
    terminating=maybe,
    hostname=text,
    node_name=text,
    zone=text,
    zone_hints=st.lists(text, max_size=2).map(tuple),
)
ports = st.builds(
    SlicePort,
    name=text,
    protocol=text,
    port=st.none() | st.integers(-(2**31), 2**31 - 1),
    app_protocol=text,
)
facts = st.builds(
    EndpointSlice,
    cluster=text,
    cluster_id=st.integers(0, 2**32 - 1),
    namespace=text,
    name=text,
    labels=st.dictionaries(text, text, max_size=3),
    annotations=st.dictionaries(text, text, max_size=3),
    address_type=text,
    endpoints=st.lists(endpoints, max_size=3).map(tuple),
    ports=st.lists(ports, max_size=3).map(tuple),
)


@given(facts)
def test_what_is_written_is_read_back(fact: EndpointSlice) -> None:
    assert slices.decode(slices.encode(fact)) == fact


@given(facts)
def test_protobuf_reads_it_and_writes_it_for_us(fact: EndpointSlice) -> None:
    message = SCHEMA.FromString(slices.message(fact))
    assert message.cluster == fact.cluster
    assert slices.read(message.SerializeToString()) == fact


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_fall_over(data: bytes) -> None:
    for read in (slices.read, slices.decode):
        with contextlib.suppress(BadFact):
            read(data)


@given(facts, st.integers(0, 400))
def test_a_message_cut_short_is_refused_or_a_shorter_message(fact: EndpointSlice, cut: int) -> None:
    data = slices.message(fact)[:cut]
    try:
        ours = slices.read(data)
    except BadFact:
        return
    assert SCHEMA.FromString(data).name == ours.name


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    fact = EndpointSlice("c", 7, "n", "s")
    unknown = b"\xa0\x06\x01" + b"\xa2\x06\x02ab" + b"\xa1\x06" + b"x" * 8 + b"\xa5\x06" + b"y" * 4
    assert slices.read(slices.message(fact) + unknown) == fact


def test_unknown_groups_are_skipped_with_all_that_is_in_them() -> None:
    fact = EndpointSlice("c", 7, "n", "s")
    group = b"\xa3\x06" + slices.message(replace(fact, name="other")) + b"\xab\x06\xac\x06\xa4\x06"
    data = slices.message(fact) + group
    assert slices.read(data) == fact
    assert SCHEMA.FromString(data).name == "s"
    for bad in (group[:-2], b"\xa4\x06"):
        with pytest.raises(BadFact, match="group"):
            slices.read(slices.message(fact) + bad)


@pytest.mark.parametrize("sized", [True, False])
def test_a_frame_cut_short_is_refused(sized: bool) -> None:
    """Without the check a slice of the first endpoints only would be taken for the whole."""
    many = tuple(
        SliceEndpoint((f"10.0.{n >> 8}.{n & 255}",), hostname=f"h{n:x}") for n in range(600)
    )
    fact = EndpointSlice("paris", 7, "shop", "cart-a", endpoints=many)
    writer = zstandard.ZstdCompressor(write_content_size=sized)
    value = writer.compress(slices.message(fact))
    assert slices.decode(value) == fact
    for cut in (*range(24), len(value) // 2, len(value) - 1):
        with pytest.raises(BadFact, match="zstd"):
            slices.decode(value[:cut])


def test_a_bomb_is_refused_before_it_fills_the_memory() -> None:
    for sized, reason in ((True, "larger than"), (False, "at most")):
        bomb = zstandard.ZstdCompressor(write_content_size=sized).compress(bytes(64 << 20))
        with pytest.raises(BadFact, match=reason):
            slices.decode(bomb)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cluster": "rome"}, "cluster: 'rome', expected 'paris'"),
        ({"cluster_id": 8}, "clusterID: 8, expected 7"),
        ({"name": "other"}, "namespace/name"),
        ({"name": ""}, "namespace and name"),
        ({"address_type": "FQDN"}, "addressType: 'FQDN'"),
        ({"endpoints": (SliceEndpoint(("fd00::1",)),)}, "not an IPv4 address"),
        ({"endpoints": (SliceEndpoint(("10.0.0.1%eth0",)),)}, "not an IPv4 address"),
    ],
)
def test_a_consumer_checks_what_the_contract_says(change: dict[str, object], reason: str) -> None:
    origin = Origin("paris", 7)
    good = EndpointSlice("paris", 7, "shop", "cart-a", endpoints=(SliceEndpoint(("10.0.0.1",)),))
    key = key_of("paris", good)
    assert key == "cilium/state/endpointslices/v1/paris/shop/cart-a"
    assert decode(Kind.ENDPOINT_SLICES, origin, key, encode(good)) == good
    with pytest.raises(BadFact, match=reason):
        decode(Kind.ENDPOINT_SLICES, origin, key, encode(replace(good, **change)))
