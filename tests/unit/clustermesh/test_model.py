"""Facts on the wire: Go's JSON to the byte, and what the values answer."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustermesh import addresses, gojson, model
from clustermesh.model import Cidr, Node, NodeAddress

ADDRESSES = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)


def test_the_nodes_of_the_contract_omit_nothing() -> None:
    node = Node(
        name="node-a",
        cluster="paris",
        addresses=(
            NodeAddress("InternalIP", "192.0.2.11"),
            NodeAddress("CiliumInternalIP", "10.7.0.1"),
        ),
        ipv4_alloc_cidr=Cidr.of("10.7.0.0/24"),
        ipv4_health_ip="10.7.0.2",
        cluster_id=7,
        source="custom-resource",
        labels={"kubernetes.io/os": "linux"},
    )
    assert model.encode_json(node) == (
        b'{"Name":"node-a","Cluster":"paris","IPAddresses":[{"Type":"InternalIP","IP":"192.0.2.11"}'
        b',{"Type":"CiliumInternalIP","IP":"10.7.0.1"}],'
        b'"IPv4AllocCIDR":{"IP":"10.7.0.0","Mask":"////AA=="},"IPv4SecondaryAllocCIDRs":null,'
        b'"IPv6AllocCIDR":null,"IPv6SecondaryAllocCIDRs":null,"IPv4HealthIP":"10.7.0.2",'
        b'"IPv6HealthIP":"","IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":7,'
        b'"Source":"custom-resource","EncryptionKey":0,"Labels":{"kubernetes.io/os":"linux"},'
        b'"Annotations":null,"WireguardPubKey":"","BootID":""}'
    )


def test_the_address_entry_of_the_contract() -> None:
    entry = model.IPEntry(
        ip="10.7.0.44",
        host_ip="192.0.2.11",
        id=470123,
        namespace="shop",
        pod="cart-0",
        service_account="cart",
    )
    assert model.encode_json(entry) == (
        b'{"IP":"10.7.0.44","Mask":null,"HostIP":"192.0.2.11","ID":470123,"Key":0,"Metadata":"",'
        b'"K8sNamespace":"shop","K8sPodName":"cart-0","K8sServiceAccount":"cart"}'
    )
    assert model.encode_json(model.IPEntry()) == (
        b'{"IP":"","Mask":null,"HostIP":"","ID":0,"Key":0,"Metadata":""}'
    )


def test_an_empty_service_keeps_its_maps_and_omits_two() -> None:
    assert model.encode_json(model.ClusterService()) == (
        b'{"cluster":"","namespace":"","name":"","frontends":{},"backends":{},'
        b'"labels":{},"selector":{},"includeExternal":false,"shared":false,"clusterID":0}'
    )


def test_a_false_capability_is_written_and_an_unknown_one_is_not() -> None:
    capabilities = model.Capabilities(service_exports_enabled=False)
    assert model.encode_json(model.ClusterConfig(7, capabilities)) == (
        b'{"id":7,"capabilities":{"serviceExportsEnabled":false}}'
    )
    assert model.encode_json(model.ClusterConfig()) == b'{"capabilities":{}}'


def test_text_is_escaped_as_go_escapes_it() -> None:
    text = "<a href='x'>&\u2028\u2029é\x00\x07\b\f\n\r\t\x7f\"\\\U0001f600"
    assert gojson.encode(text).decode() == (
        "\"\\u003ca href='x'\\u003e\\u0026\\u2028\\u2029é\\u0000\\u0007\\b\\f\\n\\r\\t\x7f"
        '\\"\\\\\U0001f600"'
    )


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers()))
def test_maps_are_sorted_by_the_bytes_of_their_keys(value: dict[str, int]) -> None:
    written = gojson.Reader(dict[str, int]).decode(gojson.encode(value))
    assert list(written) == sorted(value, key=str.encode)
    assert written == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"frontends":null,"backends":null,"labels":null,"selector":null}',
        b'{"name":null,"shared":null,"clusterID":null,"zones":null,"hostnames":null}',
        b'{"unknown":{"deep":[null]},"backends":{"10.0.0.1":null}}',
        b"{}",
    ],
)
def test_null_and_absence_read_as_zero(data: bytes) -> None:
    service = gojson.Reader(model.ClusterService).decode(data)
    assert service.frontends == {}
    assert not service.backends
    assert not service.hostnames
    assert (service.name, service.shared, service.cluster_id) == ("", False, 0)


@given(ADDRESSES)
def test_an_address_has_one_spelling(text: str) -> None:
    parsed = ipaddress.ip_address(text)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    wanted = str(mapped or parsed)
    for spelling in (text, text.upper(), parsed.exploded):
        assert addresses.canonical(spelling) == wanted
    assert addresses.family(text) == (4 if mapped else parsed.version)


@pytest.mark.parametrize(
    "text",
    ["", "x", "10.0.0", "10.0.0.256", "010.0.0.1", " 10.0.0.1", "fe80::1%eth0", "::g", "1\0", "é"],
)
def test_what_is_no_address_is_told_apart(text: str) -> None:
    assert addresses.canonical(text) == ""
    assert addresses.family(text) == 0
    assert Cidr.of(f"{text}/8") is None


@pytest.mark.parametrize(
    ("text", "canonical", "mask"),
    [
        ("10.1.2.3/24", "10.1.2.0/24", "////AA=="),
        ("10.0.0.17/28", "10.0.0.16/28", "////8A=="),
        ("FD00::1/64", "fd00::/64", "//////////8AAAAAAAAAAA=="),
        ("fd00::1/120", "fd00::/120", "////////////////////AA=="),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8", "/wAAAA=="),
        ("0.0.0.0/0", "0.0.0.0/0", "AAAAAA=="),
    ],
)
def test_prefixes_lose_their_host_bits(text: str, canonical: str, mask: str) -> None:
    cidr = Cidr.of(text)
    assert cidr is not None
    assert (cidr.text(), cidr.mask) == (canonical, mask)


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/x", "/8"])
def test_what_is_no_prefix_is_none(text: str) -> None:
    assert Cidr.of(text) is None


@pytest.mark.parametrize(
    "cidr",
    [
        Cidr("10.0.0.0", None),
        Cidr("10.0.0.0", "not base64"),
        Cidr("10.0.0.0", "/wD/AA=="),
        Cidr("10.0.0.0", "//////////8AAAAAAAAAAA=="),
        Cidr("", "////AA=="),
    ],
)
def test_a_mask_that_does_not_fit_gives_no_text(cidr: Cidr) -> None:
    assert cidr.text() == ""


def address(type_: str, ip: str) -> NodeAddress:
    return NodeAddress(type_, ip)


@pytest.mark.parametrize(
    ("told", "v4", "v6"),
    [
        ((), "", ""),
        ((address("CiliumInternalIP", "10.0.0.1"),), "", ""),
        ((address("ExternalIP", "1.1.1.1"), address("InternalIP", "2.2.2.2")), "2.2.2.2", ""),
        ((address("InternalIP", "2.2.2.2"), address("InternalIP", "3.3.3.3")), "2.2.2.2", ""),
        ((address("Hostname", "3.3.3.3"), address("ExternalIP", "1.1.1.1")), "1.1.1.1", ""),
        ((address("Hostname", "3.3.3.3"), address("InternalDNS", "4.4.4.4")), "3.3.3.3", ""),
        (
            (address("ExternalIP", "1.1.1.1"), address("InternalIP", "FD00::1")),
            "1.1.1.1",
            "fd00::1",
        ),
        ((address("InternalIP", "nonsense"), address("ExternalIP", "1.1.1.1")), "1.1.1.1", ""),
    ],
)
def test_the_underlay_address_is_chosen_as_peers_choose_it(
    told: tuple[NodeAddress, ...], v4: str, v6: str
) -> None:
    node = Node(addresses=told or None)
    assert (node.underlay(4), node.underlay(6)) == (v4, v6)


def test_a_node_lists_its_ranges_and_overlay_addresses() -> None:
    node = Node(
        addresses=(address("CiliumInternalIP", "FD00::1"), address("CiliumInternalIP", "x")),
        ipv6_alloc_cidr=Cidr.of("fd00::/64"),
        ipv4_secondary_alloc_cidrs=(Cidr("10.1.0.9", "////AA=="), Cidr("10.2.0.0", None)),
    )
    assert node.pod_cidrs() == ("10.1.0.0/24", "fd00::/64")
    assert node.overlay() == ("fd00::1",)


def test_an_entry_is_a_prefix() -> None:
    assert model.IPEntry(ip="10.0.0.1").cidr() == "10.0.0.1/32"
    assert model.IPEntry(ip="FD00::1").cidr() == "fd00::1/128"
    assert model.IPEntry(ip="10.0.0.1", mask="////AA==").cidr() == "10.0.0.0/24"
    assert model.IPEntry(ip="x").cidr() == ""


def test_an_identity_lists_its_labels() -> None:
    assert model.Identity(1, "k8s:a=b;k8s:c=;").label_list() == ("k8s:a=b", "k8s:c=")
