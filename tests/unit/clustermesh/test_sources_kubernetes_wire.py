"""Bytes of the API server into objects, failures and lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh.sources.kubernetes import wire
from clustermesh.sources.kubernetes.failures import (
    ApiFailure,
    Conflict,
    Forbidden,
    Gone,
    Missing,
    Unauthorized,
    Unreachable,
    Unsupported,
    failure,
)
from clustermesh.sources.kubernetes.lines import Lines
from clustermesh.sources.kubernetes.picture import Picture
from clustermesh.sources.kubernetes.resources import RESOURCES, Flavour
from clustermesh.sources.kubernetes.wire import Bookmark, Changed, Deleted, Unread
from clustermesh.sources.objects import ObjectKind as Kind
from clustermesh.sources.objects import Ref


def event(type_: str, **object_: object) -> bytes:
    return json.dumps({"type": type_, "object": object_}).encode()


def page(*items: object, **meta: str) -> bytes:
    return json.dumps({"metadata": meta, "items": list(items)}).encode()


def named(name: str, space: str = "web", **rest: object) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": space, "resourceVersion": "7"}, **rest}


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line)), st.data())
def test_lines_are_the_same_however_the_network_cuts_them(
    sent: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(line + b"\n" for line in sent)
    lines, got = Lines(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += lines.feed(stream[:size])
        stream = stream[size:]
    assert got == [line for line in sent if line.strip()]
    assert lines.pending == 0


def test_an_unfinished_line_is_counted() -> None:
    lines = Lines()
    assert lines.feed(b"abc") == []
    assert lines.feed(b"de\nf") == [b"abcde"]
    assert lines.pending == 1


def test_a_page_is_its_objects_and_the_way_to_the_next() -> None:
    body = page(named("a"), named("b"), **{"resourceVersion": "9", "continue": "on"})
    listed = wire.read_page(Kind.SERVICE, body)
    assert [each.metadata.name for each in listed.objects] == ["a", "b"]
    assert (listed.version, listed.token, listed.refusals) == ("9", "on", ())


def test_a_list_of_nothing_may_be_null() -> None:
    body = b'{"metadata":{"resourceVersion":"9"},"items":null}'
    assert wire.read_page(Kind.SERVICE, body).objects == []


def test_bad_items_are_refused_one_by_one() -> None:
    body = page(
        named("good", spec={"ports": None}),
        named("bad", spec={"ports": [{"port": "http"}]}),
        named(""),
        {"metadata": {"name": 3}},
        "text",
    )
    listed = wire.read_page(Kind.SERVICE, body)
    assert [each.metadata.name for each in listed.objects] == ["good"]
    bad, *nameless = listed.refusals
    assert bad.ref == Ref(Kind.SERVICE, "web", "bad")
    assert bad.reason == "spec.ports[0].port: expected `int`, got `str`"
    assert [each.ref for each in nameless] == [None, None, None]
    assert all(each.reason for each in nameless)


@given(st.binary())
def test_what_is_no_list_is_no_answer(body: bytes) -> None:
    with pytest.raises(Unreachable):
        wire.read_page(Kind.POD, body)


@given(
    st.sampled_from(Kind),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["metadata", "name", "spec", "status", "ports", "endpoints"]), inner
            )
        ),
    ),
)
def test_any_json_is_an_object_or_a_refusal(kind: Kind, item: object) -> None:
    listed = wire.read_page(kind, page(item))
    assert len(listed.objects) + len(listed.refusals) == 1
    told = (
        wire.read_events(kind, [json.dumps({"type": "ADDED", "object": item}).encode()])
        if (
            isinstance(item, dict)
            and isinstance(item.get("metadata"), dict)
            and isinstance(item["metadata"].get("name", ""), str)
        )
        else []
    )
    assert all(isinstance(each, Changed | Unread) for each in told)


def test_events_are_what_they_say() -> None:
    told = wire.read_events(
        Kind.SERVICE,
        [
            event("ADDED", **named("a")),
            event("MODIFIED", **named("b", spec={"type": 5})),
            event("DELETED", **named("c", spec={"type": 5})),
            event("BOOKMARK", metadata={"resourceVersion": "12", "creationTimestamp": None}),
            event(
                "BOOKMARK",
                metadata={"resourceVersion": "13", "annotations": {wire.INITIAL_END: "true"}},
            ),
        ],
    )
    added, modified, deleted, mark, end = told
    assert isinstance(added, Changed)
    assert isinstance(modified, Unread)
    assert modified.refusal.reason == "spec.type: expected `str`, got `int`"
    assert deleted == Deleted(Ref(Kind.SERVICE, "web", "c"), "7"), "even what cannot be read"
    assert mark == Bookmark("12", initial_end=False)
    assert end == Bookmark("13", initial_end=True)


@pytest.mark.parametrize("kind", Kind)
def test_an_error_event_is_the_failure_it_names(kind: Kind) -> None:
    status = {"kind": "Status", "metadata": {}, "status": "Failure", "message": "too old"}
    with pytest.raises(Gone, match=r"410 \(Expired\): too old"):
        wire.read_events(kind, [event("ERROR", **status, reason="Expired", code=410)])
    with pytest.raises(Unreachable):
        wire.read_events(kind, [event("ERROR", **status)])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, Unsupported),
        (401, Unauthorized),
        (403, Forbidden),
        (404, Missing),
        (408, Unreachable),
        (409, Conflict),
        (410, Gone),
        (422, Unsupported),
        (429, Unreachable),
        (500, Unreachable),
        (504, Unreachable),
        (302, Unreachable),
    ],
)
def test_codes_are_failures(code: int, expected: type[ApiFailure]) -> None:
    assert type(failure(code, b"no JSON at all")) is expected


def test_the_longer_of_two_waits_counts() -> None:
    body = json.dumps({"code": 504, "reason": "Timeout", "details": {"retryAfterSeconds": 3}})
    found = failure(504, body.encode(), retry_after=2.0)
    assert isinstance(found, Unreachable)
    assert found.retry_after == 3.0


def test_only_what_a_listing_does_not_name_is_swept() -> None:
    picture = Picture()
    for name in ("a", "b", "c", "d"):
        picture.put(name)
    picture.mark()
    picture.put("a")
    picture.keep("b")
    picture.keep("stranger")
    picture.put("new")
    assert picture.drop("c")
    assert picture.sweep() == ["d"]
    assert not picture.drop("d")
    assert len(picture) == 3
    assert picture.sweep() == []


def test_resources_say_where_they_are_and_what_counts() -> None:
    core = {each.kind: each for each in RESOURCES[Flavour.CORE]}
    slices = core[Kind.ENDPOINT_SLICE].at("v1")
    assert slices.path == "/apis/discovery.k8s.io/v1/endpointslices"
    assert slices.query(limit="", watch="true") == {
        "watch": "true",
        "labelSelector": "endpointslice.kubernetes.io/managed-by!="
        "endpointslice-mesh-controller.cilium.io",
    }
    assert core[Kind.SERVICE].at("v1").of("web", "front") == "/api/v1/namespaces/web/services/front"
    assert core[Kind.NODE].at("v1").of("", "n1") == "/api/v1/nodes/n1"


def test_keys_go_both_ways() -> None:
    for ref in (Ref(Kind.SERVICE, "web", "front"), Ref(Kind.CILIUM_NODE, "", "n1.zone")):
        assert wire.ref_of(ref.kind, wire.key(ref)) == ref
