"""The private tree: agents and apiservers one release apart understand each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh import local
from clustermesh.keys import BadFact
from clustermesh.local import Frontend, LocalBackend, LocalService, NamedPort, Scope

text = st.text(st.characters(codec="utf-8"), max_size=5)
named_ports = st.builds(NamedPort, text, text, st.integers(0, 65535))
services = st.builds(
    LocalService,
    namespace=text,
    name=text,
    frontends=st.lists(
        st.builds(Frontend, st.just("10.0.0.1"), st.integers(0, 65535), text, text), max_size=3
    ).map(tuple),
    backends=st.lists(
        st.builds(
            LocalBackend,
            address=st.ip_addresses().map(str),
            ports=st.lists(named_ports, max_size=2).map(tuple),
            ready=st.booleans(),
            serving=st.booleans(),
            terminating=st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    is_global=st.booleans(),
    shared=st.booleans(),
    annotations=st.dictionaries(text, text, max_size=2),
)


@given(services)
def test_what_is_written_is_read_back(service: LocalService) -> None:
    assert local.decode(local.key_of(service), local.encode(service)) == service


def test_fields_and_scopes_of_a_later_release_do_no_harm() -> None:
    value = (
        b'{"namespace":"shop","name":"cart","later":{"x":1},'
        b'"frontends":[{"address":"10.0.0.1","port":80,"scope":"Future","more":1}]}'
    )
    service = local.decode(f"{local.SERVICES_PREFIX}shop/cart", value)
    [frontend] = service.frontends
    assert frontend.scope not in set(Scope)
    assert (frontend.protocol, service.affinity) == ("TCP", "none")


def test_fields_that_an_earlier_release_did_not_write_take_their_defaults() -> None:
    value = b'{"namespace":"shop","name":"cart","backends":[{"address":"10.0.0.1"}]}'
    [backend] = local.decode(f"{local.SERVICES_PREFIX}shop/cart", value).backends
    assert (backend.ready, backend.serving, backend.terminating) == (True, True, False)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{}", "namespace/name"),
        (b"[]", "Expected `object`"),
        (b'{"namespace":"shop","name":"cart","backends":[{"address":"x"}]}', "backends[0]"),
        (b'{"namespace":"shop","name":"cart","frontends":[{"address":"x"}]}', "frontends[0]"),
        (b'{"namespace":"shop","name":"cart","frontends":[{"port":-1}]}', "$.frontends[0].port"),
        (
            b'{"namespace":"shop","name":"cart","sessionAffinitySeconds":-5}',
            "$.sessionAffinitySeconds",
        ),
        (b"\xff", ""),
    ],
)
def test_a_bad_value_is_refused_with_the_field(value: bytes, reason: str) -> None:
    with pytest.raises(BadFact) as refusal:
        local.decode(f"{local.SERVICES_PREFIX}shop/cart", value)
    assert reason in str(refusal.value)
