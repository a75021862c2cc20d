"""Manifests: every document is judged for itself, and a refusal says where and what."""

import pytest

from clustermesh.sources.directory.parse import parse
from clustermesh.sources.objects import CiliumIdentity, Endpoint, EndpointSlice, Ref, Service
from clustermesh.sources.objects import ObjectKind as K

GOOD = "apiVersion: v1\nkind: Service\nmetadata: {name: front}\n"


def reasons(text: str) -> dict[str, str]:
    return {problem.where: problem.reason for problem in parse(text.encode()).problems}


def refs(text: str) -> set[str]:
    return {str(ref) for ref in parse(text.encode()).objects}


def test_documents_are_counted_as_a_reader_counts_them() -> None:
    text = f"# a comment\n---\n{GOOD}---\nkind: 1\n---\n# nothing\n---\n{GOOD}"
    assert refs(text) == {"Service default/front"}
    assert reasons(text) == {
        "document 2": "kind: missing, expected a Kubernetes kind",
        "document 4": "Service default/front is also in document 1, which is used",
    }


def test_a_line_is_counted_in_the_file() -> None:
    assert reasons(f"{GOOD}---\n\na: b: c\n")["document 2"].startswith("line 6: not YAML")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("metadata: {}\n", "metadata.name: missing, expected text of a-z, 0-9, - and ."),
        ("metadata: {name: a/b}\n", "metadata.name: 'a/b', expected text of a-z, 0-9, - and ."),
        ("metadata: {name: 7}\n", "metadata.name: 7, expected text of a-z, 0-9, - and ."),
        ("metadata: []\n", "metadata: missing"),
        ("spec: 5\nmetadata: {name: x}\n", "spec: expected `object`, got `int`"),
        (
            "spec: {ports: [{}, {port: x}]}\nmetadata: {name: x}\n",
            "spec.ports[1].port: expected `int`, got `str`",
        ),
        (
            "metadata: {name: x, annotations: {a: true}}\n",
            "metadata.annotations.a: expected `str`, got `bool`",
        ),
        (
            "metadata: {name: x, labels: {a: {b: c}}}\n",
            "metadata.labels.a: expected `str`, got `object`",
        ),
        (
            "metadata: {name: x, labels: {1: a}}\n",
            "key of metadata.labels: expected `str`, got `int`",
        ),
        ("kind: Servic", None),
        ("- 1\n", "line 3"),
    ],
)
def test_a_refusal_names_the_field_and_what_was_expected(change: str, reason: str | None) -> None:
    text = "apiVersion: v1\nkind: Service\n" + change
    found = reasons(text)
    if reason is None:
        assert found == {}
    else:
        assert found["document 1"].startswith(reason)


@pytest.mark.parametrize("document", ["just text\n", "[1, 2]\n", "5\n"])
def test_what_is_no_object_is_refused(document: str) -> None:
    assert "expected an object" in reasons(document)["document 1"]


def test_a_misspelt_kind_is_asked_about_and_a_foreign_one_is_not() -> None:
    assert reasons("apiVersion: v1\nkind: service\nmetadata: {name: x}\n") == {
        "document 1": "kind: 'service' is unknown; did you mean Service?"
    }
    for foreign in ("v1\nkind: ConfigMap", "serving.knative.dev/v1\nkind: Service"):
        parsed = parse(f"apiVersion: {foreign}\nmetadata: {{name: x}}\n".encode())
        assert not parsed.objects
        assert not parsed.problems


def test_lists_are_opened_and_their_items_named() -> None:
    text = (
        "apiVersion: v1\nkind: ServiceList\nitems:\n"
        "- metadata: {name: a}\n- metadata: {name: B}\n- metadata: {name: c, namespace: web}\n"
    )
    assert refs(text) == {"Service default/a", "Service web/c"}
    assert list(reasons(text)) == ["document 1 items[1]"]
    assert reasons("kind: List\napiVersion: v1\nitems: {}\n") == {}
    assert reasons("kind: List\napiVersion: v1\nitems: {a: b}\n")["document 1"] == (
        "items: expected a list"
    )
    assert (
        "apiVersion"
        in reasons("kind: ServiceList\nitems: [{metadata: {name: a}}]\n")["document 1 items[0]"]
    )


def test_null_means_absent_as_it_does_for_the_api_server() -> None:
    text = (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: a, labels: null}\naddressType: IPv4\nports: null\n"
        "endpoints: [{addresses: [10.0.0.1], conditions: null, zone: null}]\n"
    )
    slice_, _ = parse(text.encode()).objects[Ref(K.ENDPOINT_SLICE, "default", "a")]
    assert isinstance(slice_, EndpointSlice)
    assert slice_.endpoints == (Endpoint(addresses=("10.0.0.1",)),)


def test_what_looks_like_a_time_is_text_and_numbers_stay_names() -> None:
    text = (
        "apiVersion: cilium.io/v2\nkind: CiliumIdentity\n"
        "metadata: {name: '08419610', creationTimestamp: 2026-11-21T00:32:55Z}\n"
        "security-labels: {k8s:app: '1'}\n"
    )
    identity, _ = parse(text.encode()).objects[Ref(K.CILIUM_IDENTITY, "", "08419610")]
    assert isinstance(identity, CiliumIdentity)
    assert identity.metadata.creation_timestamp == "2026-11-21T00:32:55Z"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("12:30", "12:30"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("10:20:30.5", "10:20:30.5"),
        ("=", "="),
        ("2026-11-20", "2026-11-20"),
        ("1e3", "1e3"),
        ("08", "08"),
    ],
)
def test_what_kubernetes_takes_for_text_is_text(written: str, read: str) -> None:
    document = f"{{apiVersion: v1, kind: Node, metadata: {{name: n, labels: {{a: {written}}}}}}}"
    [(node, _)] = parse(document.encode()).objects.values()
    assert node.metadata.labels == {"a": read}


def test_json_is_read_as_json() -> None:
    document = (
        r'{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","labels":{"a":"\ud83d\ude00"}}}'
    )
    [(node, _)] = parse(document.encode()).objects.values()
    assert node.metadata.labels == {"a": "\U0001f600"}
    [problem] = parse(b"{apiVersion: v1, kind: Node, metadata: }}").problems
    assert "not YAML" in problem.reason


@pytest.mark.parametrize("written", ["8", "010", "0x1F", "1_000", "-1", "1.5", ".inf", "yes"])
def test_what_kubernetes_takes_for_no_text_is_refused(written: str) -> None:
    document = f"{{apiVersion: v1, kind: Node, metadata: {{name: n, labels: {{a: {written}}}}}}}"
    [problem] = parse(document.encode()).problems
    assert problem.reason.startswith("metadata.labels.a: expected `str")


def test_no_bytes_make_it_fall_over() -> None:
    for data in (b"\xff\xfe", b"\x00", b"a: &a [*a]\n", b"[" * 3000, b"!!python/none x", b"? ?"):
        assert not parse(data).objects
    deep = b"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: " + b"{a: " * 900 + b"1"
    assert len(parse(deep).problems) == 1


def test_a_service_keeps_the_defaults_of_the_api_server() -> None:
    service, _ = parse(GOOD.encode()).objects[Ref(K.SERVICE, "default", "front")]
    assert isinstance(service, Service)
    assert service.spec.type == "ClusterIP"
