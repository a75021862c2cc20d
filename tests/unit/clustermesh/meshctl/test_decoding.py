"""Values of etcd, decoded for a person."""

import pytest

from clustermesh import slices
from clustermesh.meshctl.decoding import as_text, decoded, pretty
from clustermesh.model import EndpointSlice

SLICES = "cilium/state/endpointslices/v1/paris/shop/cart-1"


def test_an_endpoint_slice_is_unpacked():
    value = slices.encode(
        EndpointSlice(
            cluster="paris",
            cluster_id=7,
            namespace="shop",
            name="cart-1",
            address_type="IPv4",
        )
    )
    told = decoded(SLICES, value)
    assert isinstance(told, dict)
    assert (told["namespace"], told["name"]) == ("shop", "cart-1")
    assert '"cart-1"' in pretty(SLICES, value)


@pytest.mark.parametrize("value", [b"\x00\xff", b"(\xb5/\xfd broken"])
def test_a_slice_that_is_none_says_so(value: bytes):
    told = decoded(SLICES, value)
    assert isinstance(told, dict)
    assert told["error"]


def test_labels_are_a_list_in_both_layouts():
    for place in ("cilium/state/identities/v1/id/7", "cilium/cache/identities/v1/paris/id/7"):
        assert decoded(place, b"k8s:a=b;k8s:c=;") == ["k8s:a=b", "k8s:c="]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b'{"id":7}', {"id": 7}),
        (b"[1]", [1]),
        (b"{broken", "{broken"),
        (b"2026-11-21T00:28:21Z", "2026-11-21T00:28:21Z"),
        (b"", ""),
        (b"\xff\xfe", "base64://4="),
    ],
)
def test_everything_else_is_json_or_text(value: bytes, told: object):
    assert decoded("cilium/cluster-config/paris", value) == told


def test_no_control_character_reaches_a_terminal():
    assert "\x1b" not in as_text(b"\x1b[2J gone")
    assert as_text("übung".encode()) == "übung"
