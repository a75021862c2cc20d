"""Certificates: an authority per cluster, a server certificate for its etcd, client certificates.

Names follow contract kvstore 7. Keys are ECDSA P-256, files are written at once and readable by
their owner only.

While one authority takes over from another (docs/trust.md, rotation) the file of its certificate is
a bundle, and ``ca.cross.crt`` beside ``ca.crt`` holds the new authority certified by the old one:
every certificate that is issued carries it along, so that those who know only the old one believe.
"""

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clustermesh.certificates import (
    CertificateError as CertificateError,  # noqa: PLC0414  # what everything here raises
)
from clustermesh.certificates import (
    PublicKey,
    certificates_in,
    common_name,
    extension,
    parsed,
    pem_of,
    public_key,
    read_file,
    signed_by,
)

SERVER_NAME = "clustermesh-apiserver.cilium.io"
MESH_DOMAIN = "mesh.cilium.io"
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
RENEW_BEFORE = datetime.timedelta(days=30)
CLOCK_SKEW = datetime.timedelta(hours=1)
OWNER_ONLY = 0o600
CROSS = "ca.cross.crt"

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""Of an authority: ours are of the first kind, Cilium's chart makes the second."""


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
    """What signs a cluster's certificates, and whom the cluster trusts beside it."""

    def __init__(
        self,
        certificate: x509.Certificate,
        key: PrivateKey,
        *,
        trusted: Sequence[x509.Certificate] = (),
        cross: x509.Certificate | None = None,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._trusted = tuple(trusted) or (certificate,)
        self._cross = cross

    @classmethod
    def create(
        cls, cluster: str, *, generation: str = "", now: datetime.datetime | None = None
    ) -> Self:
        """A new one. ``generation`` tells it from an earlier one of the cluster.

        Its path length is 1: its successor is an authority below it for a time.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(" ".join(filter(None, ("clustermesh", cluster, "CA", generation))))
        builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS, now)
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = _as_authority(builder, path_length=1).add_extension(own, critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Self:
        """The one of the bundle that the key belongs to, with what is trusted beside it.

        Raises ``CertificateError`` when the files are missing or do not belong together.
        """
        pem, names = read_file(certificate), (str(certificate), str(key))
        parsed(pem, names[0])
        cross = certificate.with_name(CROSS)
        found = certificates_in(cross) if cross.exists() else []
        return cls.of(pem, read_file(key), names=names, crosses=found)

    @classmethod
    def of(
        cls,
        bundle: bytes,
        key: bytes,
        *,
        names: tuple[str, str],
        crosses: Sequence[x509.Certificate] = (),
    ) -> Self:
        """The same from PEM; ``names`` of bundle and key are for the ``CertificateError``."""
        trusted = parsed(bundle, names[0])
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{names[1]} holds no unencrypted private key in PEM") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise CertificateError(f"{names[1]} holds neither an elliptic-curve nor an RSA key")
        mine = [one for one in trusted if one.public_key() == private.public_key()]
        if not mine:
            raise CertificateError(f"{names[1]} is not the key of {names[0]}")
        return cls(
            mine[0],
            private,
            trusted=trusted,
            cross=next((one for one in crosses if one.public_key() == private.public_key()), None),
        )

    @property
    def certificate(self) -> bytes:
        return pem_of(self._certificate)

    @property
    def bundle(self) -> bytes:
        """Everybody whose certificates are believed: itself, and during a rotation the other."""
        return pem_of(*self._trusted)

    @property
    def root(self) -> x509.Certificate:
        """The certificate as a value."""
        return self._certificate

    def write(self, certificate: Path, key: Path) -> None:
        self.pair().write(certificate, key)

    def pair(self) -> KeyPair:
        """Bundle and key in PEM."""
        return KeyPair(self.bundle, _pem(self._key))

    def certify(self, other: x509.Certificate, *, now: datetime.datetime | None = None) -> bytes:
        """Another authority's name and key, vouched for by this one."""
        key = public_key(other)
        builder = _builder(other.subject, self._certificate.subject, key, AUTHORITY_DAYS, now)
        builder = builder.add_extension(_key_id(other), critical=False)
        made = _as_authority(builder, path_length=0).add_extension(self._signer(), critical=False)
        return pem_of(made.sign(self._key, hashes.SHA256()))

    def server(
        self,
        addresses: Sequence[str] = (),
        *,
        namespace: str = "kube-system",
        names: Sequence[str] = (),
        now: datetime.datetime | None = None,
    ) -> KeyPair:
        """For the cluster's etcd: the names that peers expect, and further ones of its own."""
        usual = (SERVER_NAME, f"*.{MESH_DOMAIN}", service_name(namespace))
        found = [ipaddress.ip_address(it) for it in ("127.0.0.1", "::1", *addresses)]
        all_names = [
            *map(x509.DNSName, dict.fromkeys((*usual, *names))),
            *map(x509.IPAddress, dict.fromkeys(found)),
        ]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(SERVER_NAME, uses, x509.SubjectAlternativeName(all_names), now)

    def client(self, name: str, *, now: datetime.datetime | None = None) -> KeyPair:
        """For the etcd user ``name`` (``admin-a``, ``remote-b``, ...)."""
        return self._issue(name, [ExtendedKeyUsageOID.CLIENT_AUTH], None, now)

    def attest(self, content: bytes) -> bytes:
        """A signature that ``attested`` checks."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(content, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(content, ec.ECDSA(hashes.SHA256()))

    def sign(self, name: str, key: PublicKey, *, now: datetime.datetime | None = None) -> bytes:
        """The same for a key that stays where it was made: certificate and chain."""
        return self._certificate_for(name, key, [ExtendedKeyUsageOID.CLIENT_AUTH], None, now)

    def renew(self, old: x509.Certificate, *, now: datetime.datetime | None = None) -> bytes:
        """The same names, uses and key as a certificate has, issued by this authority now."""
        uses = extension(old, x509.ExtendedKeyUsage)
        return self._certificate_for(
            common_name(old),
            public_key(old),
            list(uses) if uses is not None else [ExtendedKeyUsageOID.CLIENT_AUTH],
            extension(old, x509.SubjectAlternativeName),
            now,
        )

    def issued(self, found: x509.Certificate) -> bool:
        """Whether this authority's key signed it, and it is not its own."""
        own = found.public_key() == self._key.public_key()
        return not own and signed_by(found, self._certificate)

    def vouches_for(
        self, certificate: Path, name: str, *, now: datetime.datetime | None = None
    ) -> bool:
        """Whether the file is a certificate of ours for ``name`` that need not be renewed yet."""
        try:
            return self.vouches_for_pem(read_file(certificate), name, now=now)
        except CertificateError:
            return False

    def vouches_for_pem(
        self, pem: bytes, name: str, *, now: datetime.datetime | None = None
    ) -> bool:
        """The same for a certificate in PEM; nothing is vouched for in no bytes."""
        try:
            found = parsed(pem, name)[0]
        except CertificateError:
            return False
        rest = found.not_valid_after_utc - (now or _now())
        return self.issued(found) and common_name(found) == name and rest > RENEW_BEFORE

    def _issue(
        self,
        name: str,
        uses: list[x509.ObjectIdentifier],
        also: x509.SubjectAlternativeName | None,
        now: datetime.datetime | None = None,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        return KeyPair(self._certificate_for(name, key.public_key(), uses, also, now), _pem(key))

    def _signer(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            _key_id(self._certificate)
        )

    def _certificate_for(
        self,
        name: str,
        key: PublicKey,
        uses: list[x509.ObjectIdentifier],
        also: x509.SubjectAlternativeName | None,
        now: datetime.datetime | None,
    ) -> bytes:
        subject = self._certificate.subject
        builder = (
            _builder(_name(name), subject, key, CERTIFICATE_DAYS, now)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(self._signer(), critical=False)
        )
        if also is not None:
            builder = builder.add_extension(also, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return pem_of(certificate, *([self._cross] if self._cross else []))


def service_name(namespace: str) -> str:
    """By which a cluster's own agents reach its etcd."""
    return f"clustermesh-apiserver.{namespace}.svc"


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


def _key_id(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """What its key is called in certificates that it has signed.

    That is the issuer's choice: Go, and so Helm, takes another hash than we do since 1.25. OpenSSL
    finds no issuer by any other name.
    """
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(public_key(certificate))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
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
    )


def _as_authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
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
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=path_length), critical=True
    ).add_extension(usage, critical=True)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
