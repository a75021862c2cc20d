"""Which certificates a cluster needs, by kind, with the names of contract kvstore 7."""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clustermesh.certificates import CertificateError, common_name, extension, parsed
from clustermesh.pki import SERVER_NAME, Authority, KeyPair, service_name
from clustermesh.places.shelf import Shelf, Taken
from clustermesh.remotes.directory import NAME

MAX_REQUEST = 16 << 10  # bytes of PEM
DNS_NAME = re.compile(r"(\*\.)?[a-zA-Z0-9]([-a-zA-Z0-9.]{0,250}[a-zA-Z0-9])?")


class Kind(StrEnum):
    """Whose certificate: the etcd's, or that of one of its users."""

    SERVER = "server"
    ADMIN = "admin"
    LOCAL = "local"
    AGENT = "agent"
    REMOTE = "remote"


class Names(NamedTuple):
    """Further names and addresses of the cluster's server."""

    namespace: str = "kube-system"
    names: Sequence[str] = ()
    addresses: Sequence[str] = ()

    def with_those_of(self, certificate: bytes) -> "Names":
        """And what the server's present certificate is valid for; PEM, or nothing."""
        names, addresses = _valid_for(certificate)
        return self._replace(
            names=tuple(dict.fromkeys((*names, *self.names))),
            addresses=tuple(dict.fromkeys((*addresses, *self.addresses))),
        )

    def are_in(self, certificate: bytes) -> bool:
        """Whether it is valid for all of them. Raises ``ValueError`` for what is no address."""
        names, addresses = _valid_for(certificate)
        asked = {str(ipaddress.ip_address(it)) for it in self.addresses}
        return {service_name(self.namespace), *self.names} <= {*names} and asked <= {*addresses}


def _valid_for(certificate: bytes) -> tuple[list[str], list[str]]:
    """DNS names and addresses of a certificate in PEM; none of what is no certificate."""
    try:
        found = extension(parsed(certificate, "it")[0], x509.SubjectAlternativeName)
    except CertificateError:
        found = None
    if found is None:
        return [], []
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return found.get_values_for_type(x509.DNSName), list(addresses)


def dns_name(written: str) -> str:
    """A name that a server's certificate may carry; raises ``ValueError``."""
    if not DNS_NAME.fullmatch(written):
        raise ValueError(f"{written!r} is no DNS name")
    return written


def cluster_name(text: str) -> str:
    """The text, when it is a cluster's name. Raises ``ValueError``."""
    if not NAME.fullmatch(text) or text == "default":
        raise ValueError(
            f"{text[:64]!r} is no cluster name; expected 1 to 32 of a-z, 0-9 and -,"
            " beginning and ending with a letter or digit"
        )
    return text


def subject(kind: Kind, cluster: str, peer: str = "") -> str:
    """The common name: ``admin-cluster-a``; for ``remote`` that of the peer who reads."""
    if kind is Kind.SERVER:
        return SERVER_NAME
    return f"{kind}-{peer if kind is Kind.REMOTE else cluster}"


def request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A signing request in PEM: how a key gets a certificate without leaving its host."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested(pem: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """The key of a signing request for ``name``. Raises ``CertificateError`` when it is not one."""
    if len(pem) > MAX_REQUEST:
        raise CertificateError(f"the signing request has more than {MAX_REQUEST} bytes")
    try:
        found = x509.load_pem_x509_csr(pem)
        genuine = found.is_signature_valid
    except (ValueError, TypeError) as error:
        raise CertificateError("the signing request is none in PEM") from error
    key = found.public_key()
    if not genuine:
        raise CertificateError("the signing request is not signed with its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the signing request has no key on the curve P-256")
    names = [str(it.value) for it in found.subject]
    if names != [name]:
        said = ", ".join(names)[:80]
        raise CertificateError(f"the signing request is for {said!r}, expected {name!r}")
    return key


def own_key(shelf: Shelf, name: str) -> ec.EllipticCurvePrivateKey:
    """The key in the piece, made there when there is none. Raises ``CertificateError``."""
    held = shelf.read(name)
    if not held:
        fresh = ec.generate_private_key(ec.SECP256R1())
        pem = fresh.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            shelf.swap(name, b"", pem)
        except Taken:  # another replica has made one: there is but one key of a piece
            held = shelf.read(name)
        else:
            return fresh
    try:
        found = serialization.load_pem_private_key(held, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(
            f"{shelf.where(name)} holds no unencrypted private key in PEM"
        ) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{shelf.where(name)} holds no elliptic-curve key")
    return found


def belongs(leaf: x509.Certificate, name: str, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether a certificate is for this name and this key."""
    return common_name(leaf) == name and leaf.public_key() == key


def short_lived(authority: Authority, name: str) -> KeyPair:
    """For one try: it ends tomorrow, and its name is no user's."""
    almost = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=364)
    return authority.client(name, now=almost)
