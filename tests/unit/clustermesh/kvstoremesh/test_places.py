"""Where copies go and what a cluster's config becomes (contract kvstore 1.2, traps 36 and 42)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh import keys
from clustermesh.checks import BadFact
from clustermesh.keys import Kind, Layout
from clustermesh.kvstoremesh import places

OBSERVED = (
    b'{"id":9,"capabilities":{"syncedCanaries":true,"cached":true,'
    b'"maxConnectedClusters":255,"serviceExportsEnabled":false}}'
)


def config(text: str):
    return keys.decode_config(text.encode())


def test_the_places_are_those_of_the_contract() -> None:
    said = config('{"id":7,"capabilities":{"syncedCanaries":true,"serviceExportsEnabled":false}}')
    routes = {route.kind: route for route in places.routes("paris", said)}
    assert {kind: (it.source, it.target, it.awaited) for kind, it in routes.items()} == {
        Kind.NODES: (
            "cilium/state/nodes/v1/paris/",
            "cilium/cache/nodes/v1/paris/",
            "cilium/synced/paris/cilium/state/nodes/v1",
        ),
        Kind.IDENTITIES: (
            "cilium/state/identities/v1/id/",
            "cilium/cache/identities/v1/paris/id/",
            "cilium/synced/paris/cilium/state/identities/v1",
        ),
        Kind.IPS: (
            "cilium/state/ip/v1/default/",
            "cilium/cache/ip/v1/paris/",
            "cilium/synced/paris/cilium/state/ip/v1",
        ),
        Kind.SERVICES: (
            "cilium/state/services/v1/paris/",
            "cilium/cache/services/v1/paris/",
            "cilium/synced/paris/cilium/state/services/v1",
        ),
        Kind.SERVICE_EXPORTS: (
            "cilium/state/serviceexports/v1/paris/",
            "cilium/cache/serviceexports/v1/paris/",
            "cilium/synced/paris/cilium/state/serviceexports/v1",
        ),
    }


@pytest.mark.parametrize(
    ("capabilities", "more", "fewer"),
    [
        ('"serviceExportsEnabled":true', {Kind.SERVICE_EXPORTS}, set()),
        ('"endpointSlicesExportMode":"services-and-endpointslices"', {Kind.ENDPOINT_SLICES}, set()),
        (
            '"endpointSlicesExportMode":"endpointslices-only"',
            {Kind.ENDPOINT_SLICES},
            {Kind.SERVICES},
        ),
    ],
)
def test_a_cluster_says_which_kinds_it_has(
    capabilities: str, more: set[Kind], fewer: set[Kind]
) -> None:
    basic = {Kind.NODES, Kind.IDENTITIES, Kind.IPS, Kind.SERVICES}
    said = config(f'{{"id":7,"capabilities":{{{capabilities}}}}}')
    assert set(places.kinds(said)) == (basic | more) - fewer
    assert not any(route.awaited for route in places.routes("paris", said))


@pytest.mark.parametrize(
    ("said", "announced"),
    [
        (
            OBSERVED.replace(b'"cached":true,', b""),
            OBSERVED,
        ),
        (OBSERVED, OBSERVED),
        (b'{"id":9}', b'{"id":9,"capabilities":{"syncedCanaries":true,"cached":true}}'),
        (
            b'{"id":9,"capabilities":null}',
            b'{"id":9,"capabilities":{"syncedCanaries":true,"cached":true}}',
        ),
        (
            b'{"ID":9,"Capabilities":{"Cached":false,"x":[1.50,{"y":"\\u003c"}]}}',
            b'{"ID":9,"capabilities":{"syncedCanaries":true,"cached":true,"x":[1.50,{"y":"\\u003c"}]}}',
        ),
    ],
)
def test_a_config_is_forced_and_otherwise_kept(said: bytes, announced: bytes) -> None:
    assert places.announced(said) == announced


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=8), JSON, max_size=4),
    st.dictionaries(st.text(max_size=8), JSON, max_size=4),
)
def test_no_unknown_member_is_lost(outer: dict[str, object], inner: dict[str, object]) -> None:
    said = json.dumps({**outer, "id": 9, "capabilities": inner}).encode()
    found = json.loads(places.announced(said))
    capabilities = found.pop("capabilities")
    assert found == {**outer, "id": 9}
    assert capabilities == {**inner, "syncedCanaries": True, "cached": True}


@pytest.mark.parametrize("said", [b"", b"[]", b'"x"', b'{"capabilities":[]}', b"\xff"])
def test_what_is_no_config_is_refused(said: bytes) -> None:
    with pytest.raises(BadFact):
        places.announced(said)


def test_copies_are_known_by_their_config_or_their_canaries() -> None:
    configs = {
        keys.cluster_config("paris"): OBSERVED,
        keys.cluster_config("home"): b'{"id":1,"capabilities":{}}',
        keys.cluster_config("broken"): b"{",
    }
    canaries = {
        keys.canary(Kind.IPS, Layout.CACHE, "rome"): b"",
        keys.canary(Kind.IPS, Layout.STATE, "home"): b"",
    }
    assert places.copied_clusters(configs | canaries) == {"paris", "rome"}


def test_what_one_cluster_owns_is_nobody_else_s() -> None:
    own = places.owned("paris")
    for other in ("paris2", "pari", "p", "state", "cache"):
        for prefix in places.owned(other):
            assert not any(mine.startswith(prefix) or prefix.startswith(mine) for mine in own)
