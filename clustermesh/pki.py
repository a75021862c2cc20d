"""Certificates: an authority per cluster, a server certificate for its etcd, client certificates.

Names follow contract kvstore 7. Keys are ECDSA P-256, files are written at once and readable by
their owner only.
"""

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME = "clustermesh-apiserver.cilium.io"
MESH_DOMAIN = "mesh.cilium.io"
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
RENEW_BEFORE = datetime.timedelta(days=30)
CLOCK_SKEW = datetime.timedelta(hours=1)
OWNER_ONLY = 0o600


class CertificateError(ValueError):
    """A certificate or key that cannot be used; the text names the file and what is wrong."""


class KeyPair:
    """A certificate and its private key, as PEM."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.certificate = certificate
        self.key = key

    def write(self, certificate: Path, key: Path) -> None:
        """The key first, so that no certificate is ever seen without its key."""
        write_private(key, self.key)
        write_private(certificate, self.certificate)


class Authority:
    """What signs a cluster's certificates."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, cluster: str, *, now: datetime.datetime | None = None) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"clustermesh {cluster} CA")
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key.public_key(), AUTHORITY_DAYS, now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Self:
        """Raises ``CertificateError`` when the files are missing or do not belong together."""
        authority = _certificate_in(certificate)
        pem = _read(key)
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{key} holds no unencrypted private key in PEM") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise CertificateError(f"{key} holds no elliptic-curve key")
        if private.public_key() != authority.public_key():
            raise CertificateError(f"{key} is not the key of {certificate}")
        return cls(authority, private)

    @property
    def certificate(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, certificate: Path, key: Path) -> None:
        KeyPair(self.certificate, _pem(self._key)).write(certificate, key)

    def server(self, addresses: Sequence[str] = (), *, namespace: str = "kube-system") -> KeyPair:
        """For the cluster's etcd: the names that peers expect, and further addresses of its own."""
        names = [
            x509.DNSName(SERVER_NAME),
            x509.DNSName(f"*.{MESH_DOMAIN}"),
            x509.DNSName(f"clustermesh-apiserver.{namespace}.svc"),
            *(x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1", *addresses)),
        ]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(SERVER_NAME, uses, x509.SubjectAlternativeName(names))

    def client(self, name: str, *, now: datetime.datetime | None = None) -> KeyPair:
        """For the etcd user ``name`` (``admin-a``, ``remote-b``, ...)."""
        return self._issue(name, [ExtendedKeyUsageOID.CLIENT_AUTH], None, now)

    def vouches_for(
        self, certificate: Path, name: str, *, now: datetime.datetime | None = None
    ) -> bool:
        """Whether the file is a certificate of ours for ``name`` that need not be renewed yet."""
        try:
            found = _certificate_in(certificate)
            found.verify_directly_issued_by(self._certificate)
        except (CertificateError, InvalidSignature, ValueError, TypeError):
            return False
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        rest = found.not_valid_after_utc - (now or _now())
        return [entry.value for entry in names] == [name] and rest > RENEW_BEFORE

    def _issue(
        self,
        name: str,
        uses: list[x509.ObjectIdentifier],
        also: x509.SubjectAlternativeName | None,
        now: datetime.datetime | None = None,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = self._certificate.subject
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(_name(name), subject, key.public_key(), CERTIFICATE_DAYS, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(signer, critical=False)
        )
        if also is not None:
            builder = builder.add_extension(also, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def write_private(path: Path, content: bytes) -> None:
    """Replace the file in one step; only its owner may read it. Raises ``OSError``."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), OWNER_ONLY)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime.datetime | None,
) -> x509.CertificateBuilder:
    began = now or _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began - CLOCK_SKEW)
        .not_valid_after(began + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate_in(path: Path) -> x509.Certificate:
    pem = _read(path)
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate in PEM") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
