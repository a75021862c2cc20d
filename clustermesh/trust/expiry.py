"""When the certificates that a process uses end, read from its files; warned about in time.

    used = InUse(own="cluster-a", client=Path("etcd.yaml"), remotes=Path("clustermesh"))
    used.read() -> tuple[CertificateStatus, ...]      # files are read again only when they changed
    days_left(status, now) -> int                     # whole days, negative when it has expired
    warnings(statuses, now) -> list[str]              # sentences, from 30 days ahead

``cryptography`` is imported when the first certificate is read: an idle agent does without.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from clustermesh.status import CertificateStatus
from kvstore.config import ConfigError, EtcdConfig

DAY: Final = 86_400
WARN_DAYS: Final = 30
LIMIT: Final = 1 << 20  # bytes; a bundle is a thousandth of it


def days_left(certificate: CertificateStatus, now: float) -> int:
    """Whole days until it ends, at ``now`` in Unix seconds; negative when it is over."""
    return math.floor((certificate.not_after - now) / DAY)


def warnings(certificates: Iterable[CertificateStatus], now: float) -> list[str]:
    """A sentence for each certificate that has ended or ends within ``WARN_DAYS``."""
    found = []
    for one in sorted(certificates, key=lambda it: (it.not_after, it.what)):
        if days_left(one, now) < WARN_DAYS:
            when = _when((one.not_after - now) / DAY)
            found.append(f"certificate of {one.what} ({one.subject}) {when}; {_way_out(one)}")
    return found


def _when(days: float) -> str:
    """In whole days that are over, or left."""
    whole = math.floor(abs(days))
    told = f"{whole} day{'' if whole == 1 else 's'}" if whole else "less than a day"
    return f"ends in {told}" if days >= 0 else f"has expired {told} ago"


def _way_out(one: CertificateStatus) -> str:
    where = f" ({one.file})" if one.file else ""
    if one.authority:
        return f"make a new CA with `meshctl ca rotate`{where}"
    return f"issue it anew: `meshctl ca issue`, or `meshctl connect` for a peer's{where}"


class InUse:
    """The certificates that a process reads: its own etcd client file's and its remotes'."""

    def __init__(self, *, own: str, client: Path, remotes: Path | None = None) -> None:
        self._own = own
        self._client = client
        self._remotes = remotes
        self._read: dict[tuple[Path, str], tuple[object, tuple[CertificateStatus, ...]]] = {}
        self._configs: dict[Path, tuple[object, EtcdConfig | None]] = {}

    def read(self) -> tuple[CertificateStatus, ...]:
        """As the files are now; what cannot be read is left out, connecting tells of that."""
        found: list[CertificateStatus] = []
        for cluster, path in self._files():
            config = self._config(path)
            if config is None:
                continue
            whose = f"{cluster} (own)" if cluster == self._own else cluster
            if config.cert_file:
                found += self._certificates(Path(config.cert_file), f"client of {whose}", first)
            if config.trusted_ca_file:
                found += self._certificates(Path(config.trusted_ca_file), f"CA of {whose}", each)
        return tuple(found)

    def _files(self) -> Iterator[tuple[str, Path]]:
        yield self._own, self._client
        try:
            names = sorted(self._remotes.iterdir()) if self._remotes else []
        except OSError:
            return
        for path in names:
            if path.name != self._own and not path.name.startswith("."):
                yield path.name, path

    def _config(self, path: Path) -> EtcdConfig | None:
        mark = _mark(path)
        if path not in self._configs or self._configs[path][0] != mark:
            self._configs[path] = mark, _load(path)
        return self._configs[path][1]

    def _certificates(
        self, path: Path, what: str, reading: "Callable[[bytes], Iterable[CertificateStatus]]"
    ) -> tuple[CertificateStatus, ...]:
        mark = _mark(path)
        if (path, what) not in self._read or self._read[path, what][0] != mark:
            self._read[path, what] = mark, tuple(described(path, what, reading))
        return self._read[path, what][1]


def described(
    path: Path, what: str, reading: "Callable[[bytes], Iterable[CertificateStatus]]"
) -> Iterator[CertificateStatus]:
    """What a PEM file holds, under the name it is used by; nothing when it cannot be read."""
    from msgspec.structs import replace

    try:
        pem = path.read_bytes()
        for one in reading(pem):
            yield replace(one, what=what, file=str(path))
    except (OSError, ValueError):
        return


def of(held: bytes, what: str, where: str) -> Iterator[CertificateStatus]:
    """The certificates of a piece, under the name they are used by; none of what holds none."""
    from msgspec.structs import replace

    try:
        for one in each(held):
            yield replace(one, what=what, file=where)
    except ValueError:
        return


def first(pem: bytes) -> Iterator[CertificateStatus]:
    """The certificate at the head of a chain: the one that is presented."""
    yield next(iter(each(pem)))


def each(pem: bytes) -> Iterator[CertificateStatus]:
    """Every certificate of a bundle. Raises ``ValueError``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    for found in x509.load_pem_x509_certificates(pem):
        try:
            extension = found.extensions.get_extension_for_class(x509.BasicConstraints)
            authority = extension.value.ca
        except x509.ExtensionNotFound:
            authority = False
        yield CertificateStatus(
            subject=found.subject.rfc4514_string(),
            fingerprint=found.fingerprint(hashes.SHA256()).hex(),
            not_after=found.not_valid_after_utc.timestamp(),
            authority=authority,
        )


def _load(path: Path) -> EtcdConfig | None:
    try:
        if not path.is_file() or path.stat().st_size > LIMIT:
            return None
        if b"endpoints:" not in path.read_bytes():
            return None
        return EtcdConfig.load(path)
    except (OSError, ConfigError):
        return None


def _mark(path: Path) -> object:
    """Changes when the file does; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
