"""What a consumer asks of a value before it believes it; each check names the field."""

from collections.abc import Collection, Iterable
from datetime import datetime

from clustermesh import addresses
from clustermesh.addresses import mask_length, packed, spelled
from clustermesh.model import Cidr, IPEntry, Node

LONGEST_REASON = 300


class BadFact(ValueError):
    """A key and value that are refused; the text names the field and what was expected.

    It goes into logs and status, so a peer cannot make it longer than ``LONGEST_REASON``.
    """

    def __init__(self, reason: str) -> None:
        """Cut out the middle of a reason that is too long: field and expectation are its ends."""
        reason = reason.encode(errors="backslashreplace").decode()  # a key may be no UTF-8
        half = LONGEST_REASON // 2 - 2
        fits = len(reason) <= LONGEST_REASON
        super().__init__(reason if fits else f"{reason[:half]}...{reason[-half:]}")


def said(field: str, value: str, expected: str) -> None:
    """A name that must equal what the key or the connection says."""
    if not value:
        raise BadFact(f"{field}: empty, expected {expected!r}")
    if value != expected:
        raise BadFact(f"{field}: {value!r}, expected {expected!r}")


def named(namespace: str, name: str, expected: str) -> None:
    """Namespace and name that must equal what the key says."""
    if not namespace or not name:
        raise BadFact(f"namespace and name: {namespace}/{name}, expected {expected}")
    said("namespace/name", f"{namespace}/{name}", expected)


def number(field: str, value: int, expected: int) -> None:
    """An id that must equal that of the cluster's configuration."""
    if value != expected:
        raise BadFact(f"{field}: {value}, expected {expected}")


def decimal(field: str, text: str) -> int:
    """A number written in ASCII digits."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise BadFact(f"{field}: {text!r}, expected a decimal number")
    return int(text)


def address(field: str, text: str) -> None:
    """Any spelling of an address."""
    if not packed(text):
        raise BadFact(f"{field}: {text!r} is not an IP address")


def addresses_of(field: str, texts: Iterable[str]) -> None:
    """Addresses, each in any spelling: ``address`` for many, at a quarter of its cost."""
    if bad := addresses.strangers(texts):
        raise BadFact(f"{field}: {bad[0]!r} is not an IP address")


def address_of_type(field: str, text: str, type_: str) -> None:
    """An address of the family that ``IPv4`` or ``IPv6`` names."""
    wanted = 6 if type_ == "IPv6" else 4
    if addresses.family(text) != wanted:
        raise BadFact(f"{field}: {text!r} is not an {type_} address")


def is_canonical(ip: str) -> bool:
    """Whether the text is an address in the one spelling that Go prints."""
    raw = packed(ip)
    # of an IPv4 address ``packed`` takes no other spelling: no leading zeros, no short forms
    return bool(raw) and (":" not in ip or spelled(raw) == ip)


def mask(field: str, ip: str, text: str) -> tuple[int, int]:
    """Leading ones and bits of a mask, which must be proper and fit the address."""
    ones, bits = mask_length(text)
    if bits != len(packed(ip)) * 8:
        raise BadFact(f"{field}: {text!r} is not a base64 mask for {ip!r}")
    return ones, bits


def ip_key(entry: IPEntry, name: str) -> None:
    """The key must equal the text rebuilt from the value (contract kvstore 2.3)."""
    address("IP", entry.ip)
    text = spelled(packed(entry.ip))
    if entry.mask is not None:
        ones, _ = mask("Mask", entry.ip, entry.mask)
        text = f"{text}/{ones}"
    if text != name:
        raise BadFact(f"IP: the value says {text}, the key {name}")


def node_addresses(node: Node) -> None:
    """Every address and prefix of a node must be one, or absent."""
    for index, each in enumerate(node.addresses or ()):
        if each.ip:
            address(f"IPAddresses[{index}].IP", each.ip)
    for field, text in (
        ("IPv4HealthIP", node.ipv4_health_ip),
        ("IPv6HealthIP", node.ipv6_health_ip),
        ("IPv4IngressIP", node.ipv4_ingress_ip),
        ("IPv6IngressIP", node.ipv6_ingress_ip),
    ):
        if text:
            address(field, text)
    for field, cidrs in (
        ("IPv4AllocCIDR", (node.ipv4_alloc_cidr,)),
        ("IPv4SecondaryAllocCIDRs", node.ipv4_secondary_alloc_cidrs or ()),
        ("IPv6AllocCIDR", (node.ipv6_alloc_cidr,)),
        ("IPv6SecondaryAllocCIDRs", node.ipv6_secondary_alloc_cidrs or ()),
    ):
        for cidr in cidrs:
            _cidr(field, cidr)


def _cidr(field: str, cidr: Cidr | None) -> None:
    if cidr is not None and not cidr.text():
        raise BadFact(f"{field}: {cidr.ip!r} with mask {cidr.mask!r} is not a prefix")


def moment(field: str, text: str) -> None:
    """An RFC 3339 time that is not Go's zero time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.year == 1:
        raise BadFact(f"{field}: {text!r}, expected a time such as 2026-11-20T10:00:00Z")


def one_of(field: str, value: str, known: Collection[str]) -> None:
    """A word out of a closed set."""
    if value not in known:
        raise BadFact(f"{field}: {value!r}, expected one of {', '.join(known)}")
