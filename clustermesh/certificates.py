"""Certificates as values: read, compared, told apart. ``clustermesh.pki`` issues them."""

import hashlib
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

E = TypeVar("E", bound=x509.ExtensionType)

_DAMAGED = (
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What a certificate can be, that is none, besides ``ValueError``."""


class CertificateError(ValueError):
    """A certificate or key that cannot be used; the text names the file and what is wrong."""


def certificates_in(path: Path) -> list[x509.Certificate]:
    """Everything a PEM file holds, at least one. Raises ``CertificateError``."""
    return parsed(read_file(path), str(path))


def parsed(pem: bytes, where: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, at least one. Raises ``CertificateError``."""
    try:
        found = x509.load_pem_x509_certificates(pem)
        for one in found:
            _look_through(one)
    except (*_DAMAGED, ValueError) as error:
        raise CertificateError(f"{where} holds no certificate in PEM") from error
    return found


def _look_through(found: x509.Certificate) -> None:
    """Take out everything that is asked for later: a damaged one shows only then."""
    _ = (found.public_key(), found.extensions, found.subject, found.issuer)
    _ = (found.not_valid_before_utc, found.not_valid_after_utc)


def attested(root: x509.Certificate, content: bytes, signature: bytes) -> bool:
    """Whether the authority with this certificate has signed the content."""
    key = root.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def signed_by(found: x509.Certificate, root: x509.Certificate) -> bool:
    """Whether one certificate is the direct work of the other's owner."""
    try:
        found.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def pin(certificate: x509.Certificate) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo in DER), in hex. Raises
    ``CertificateError`` for keys of other kinds.
    """
    return key_pin(public_key(certificate))


def key_pin(key: PublicKey) -> str:
    """The same of a key."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def is_authority(found: x509.Certificate) -> bool:
    """Whether it may sign others."""
    usage = extension(found, x509.BasicConstraints)
    return usage is not None and usage.ca


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def common_name(certificate: x509.Certificate) -> str:
    """The one common name; empty when there is none, or there are several."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def public_key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        name = certificate.subject.rfc4514_string()
        raise CertificateError(f"{name} has neither an elliptic-curve nor an RSA key")
    return key


def extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error
