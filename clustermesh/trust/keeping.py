"""Authorities and certificates where they are kept: made when missing, left alone while good."""

from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from clustermesh.certificates import CertificateError, parsed
from clustermesh.pki import CROSS, Authority
from clustermesh.places.shelf import Shelf
from clustermesh.trust.issuing import Kind, Names


class Keys(NamedTuple):
    """Where an authority is: its shelf, and what its pieces are called there."""

    shelf: Shelf
    certificate: str = "ca.crt"
    key: str = "ca.key"

    def authority(self) -> Authority:
        """Raises ``CertificateError``, naming the piece."""
        return Authority.of(
            self.shelf.read(self.certificate),
            self.shelf.read(self.key),
            names=(self.shelf.where(self.certificate), self.shelf.where(self.key)),
            crosses=certificates_of(self.shelf.read(CROSS)),
        )


class Leaf(NamedTuple):
    """Where a certificate is; ``authority``: a piece for who vouches for the etcd, if any."""

    shelf: Shelf
    certificate: str
    key: str
    authority: str = ""


class Order(NamedTuple):
    """What is asked for; ``request``: a key that stays elsewhere."""

    kind: Kind
    name: str
    also: Names = Names()
    request: ec.EllipticCurvePublicKey | None = None


class Kept(NamedTuple):
    """What came of it: whether something was written, and the pieces that it is in."""

    shelf: Shelf
    names: tuple[str, ...]
    changed: bool


def make(keys: Keys, cluster: str) -> Kept:
    """A new authority; one that is there is left as it is.

    Raises ``CertificateError`` when there is something that cannot be used.
    """
    names = (keys.certificate, keys.key)
    if any(map(keys.shelf.read, names)):
        keys.authority()
        return Kept(keys.shelf, names, changed=False)
    pair = Authority.create(cluster).pair()
    keys.shelf.put_all({keys.key: pair.key, keys.certificate: pair.certificate})
    return Kept(keys.shelf, names, changed=True)


def is_good(authority: Authority, order: Order, leaf: Leaf) -> bool:
    """Whether nothing has to be issued. Raises ``ValueError`` for an address that is none."""
    present = leaf.shelf.read(leaf.certificate)
    if order.request is not None:
        held = certificates_of(present)
        whole = bool(held) and held[0].public_key() == order.request
    else:
        whole = bool(leaf.shelf.read(leaf.key))
    return (
        whole
        and authority.vouches_for_pem(present, order.name)
        and (order.kind is not Kind.SERVER or order.also.are_in(present))
    )


def issue(authority: Authority, order: Order, leaf: Leaf) -> Kept:
    """A new certificate; a server's keeps the names it had. Raises ``ValueError`` as above."""
    made: dict[str, bytes] = {}
    if order.request is not None:
        made[leaf.certificate] = authority.sign(order.name, order.request)
    else:
        also = order.also.with_those_of(leaf.shelf.read(leaf.certificate))
        pair = (
            authority.server(also.addresses, namespace=also.namespace, names=also.names)
            if order.kind is Kind.SERVER
            else authority.client(order.name)
        )
        made[leaf.key], made[leaf.certificate] = pair.key, pair.certificate
    if leaf.authority:
        made[leaf.authority] = authority.bundle
    leaf.shelf.put_all(made)  # the key first: no certificate is ever seen without its key
    return Kept(leaf.shelf, tuple(reversed(made)), changed=True)


def vouch(authority: Authority, leaf: Leaf) -> Kept:
    """Beside a certificate that is good: who vouches for the etcd, if that has changed."""
    if not leaf.authority or leaf.shelf.read(leaf.authority) == authority.bundle:
        return Kept(leaf.shelf, (leaf.certificate,), changed=False)
    leaf.shelf.put(leaf.authority, authority.bundle)
    return Kept(leaf.shelf, (leaf.authority,), changed=True)


def certificates_of(held: bytes) -> list[x509.Certificate]:
    """None of what holds none."""
    try:
        return parsed(held, "it")
    except CertificateError:
        return []
