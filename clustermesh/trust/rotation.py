"""A new authority takes over from the old one in three steps; nobody is refused meanwhile.

    trust   the new one is made and certified by the old one; every bundle names both
    issue   the new key signs; every certificate is issued anew for the key that it has
    drop    every bundle names the new one only; the old key is removed

Each step is worked out from the files as they are: after a crash it is taken up again, and what is
done already is not done twice. Only whole files are replaced, and never a leaf's key, so whoever
reads between two changes finds what works. An etcd reads its trusted authorities at its start only:
until then it believes the new one because certificates carry ``ca.cross.crt`` along.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from clustermesh.certificates import (
    CertificateError,
    certificates_in,
    common_name,
    is_authority,
    pem_of,
)
from clustermesh.pki import CROSS, Authority, write_private


class Step(StrEnum):
    """In their order."""

    TRUST = "trust"
    ISSUE = "issue"
    DROP = "drop"


class Change(NamedTuple):
    """One thing to do, in words for the operator."""

    what: str
    do: Callable[[], None]


class Rotation:
    """The authority of one directory, and the directories where its certificates are used."""

    def __init__(self, certificate: Path, key: Path, places: Sequence[Path], *, name: str) -> None:
        self._certificate = certificate
        self._key = key
        self._places = tuple(dict.fromkeys((certificate.parent, *places)))
        self._name = name
        self._next = certificate.with_name("ca.next.crt")
        self._next_key = certificate.with_name("ca.next.key")
        self._old_key = certificate.with_name("ca.old.key")

    @property
    def done(self) -> Step | None:
        """The last step that has been begun; None when no rotation is under way."""
        if self._next.exists() and self._next_key.exists():
            return Step.TRUST
        return Step.ISSUE if self._old_key.exists() else None

    def authority(self) -> Authority:
        """Who signs now. Raises ``CertificateError``."""
        return Authority.load(self._certificate, self._key)

    def successor(self) -> Authority:
        """Who will sign, with its chain to who signs now. Raises ``CertificateError``."""
        if self.done is not Step.TRUST:
            return self.authority()
        return Authority.load(self._certificate, self._next_key)

    def changes(self, step: Step) -> Iterator[Change]:
        """What the step still has to do. Raises ``CertificateError``."""
        return {Step.TRUST: self._trust, Step.ISSUE: self._issue, Step.DROP: self._drop}[step]()

    def predecessor(self) -> Authority | None:
        """Who signed before, as long as the step ``drop`` is not done."""
        if self.done is not Step.ISSUE:
            return None
        try:
            return Authority.load(self._certificate, self._old_key)
        except CertificateError:
            return None

    def leaves(self, authority: Authority) -> Iterator[tuple[Path, x509.Certificate]]:
        """The certificates in use that it issued, by file."""
        for path, found in self._files():
            if not is_authority(found[0]) and authority.issued(found[0]):
                yield path, found[0]

    # -- trust ----------------------------------------------------------------------------------

    def _trust(self) -> Iterator[Change]:
        if self.done is Step.ISSUE:
            return
        if self.done is None:
            yield Change(
                f"{self._name}: new authority ({self._next}); its key stays there", self._make
            )
        if self.done is Step.TRUST:  # and not only talked about
            yield from self._bundles()

    def _make(self) -> None:
        self.authority()
        made = Authority.create(self._name, generation=f"{datetime.now(UTC):%Y-%m-%d %H%M%S}")
        made.write(self._next, self._next_key)

    def _bundles(self) -> Iterator[Change]:
        active = self.authority()
        fresh = certificates_in(self._next)[0]
        cross = self._certificate.with_name(CROSS)
        if not any(one.public_key() == fresh.public_key() for one in _read(cross)):
            content = active.certify(fresh) + _kept(cross, active)
            yield Change(
                f"{self._name}: the old authority vouches for the new one ({cross})",
                partial(write_private, cross, content),
            )
        for path, found in self._files():
            if active.root in found and fresh not in found and is_authority(found[0]):
                yield Change(
                    f"{self._name}: both authorities are trusted ({path})",
                    partial(write_private, path, pem_of(*found, fresh)),
                )

    # -- issue ----------------------------------------------------------------------------------

    def _issue(self) -> Iterator[Change]:
        if self.done is None:
            raise CertificateError(
                f"{self._name}: no rotation is under way; begin with the step `{Step.TRUST}`"
            )
        if self.done is Step.TRUST:
            if left := list(self._bundles()):
                raise CertificateError(f"{left[0].what} is still to be done: step `{Step.TRUST}`")
            yield Change(f"{self._name}: the new key signs from now on ({self._key})", self._switch)
        if (old := self.predecessor()) is None:
            return
        now = self.authority()
        for path, leaf in self.leaves(old):
            yield Change(
                f"{self._name}: {common_name(leaf)} issued anew ({path})",
                partial(_renew, now, path, leaf),
            )

    def _switch(self) -> None:
        write_private(self._old_key, self._key.read_bytes())
        self._next_key.replace(self._key)
        self._next.unlink(missing_ok=True)

    # -- drop -----------------------------------------------------------------------------------

    def _drop(self) -> Iterator[Change]:
        if self.done is None:
            return
        if self.done is Step.TRUST:
            raise CertificateError(f"{self._name}: the step `{Step.ISSUE}` has to come first")
        old = self.predecessor()
        if old is None:  # interrupted: the bundle is short already, the key still there
            yield self._forget()
            return
        if left := [path for path, _ in self.leaves(old)]:
            raise CertificateError(f"{left[0]} is still the old authority's: step `{Step.ISSUE}`")
        mine = self._certificate
        for path, found in sorted(self._files(), key=lambda it: it[0] == mine):  # ours comes last
            if old.root in found and is_authority(found[0]):
                rest = [one for one in found if one != old.root]
                yield Change(
                    f"{self._name}: the old authority is trusted no more ({path})",
                    partial(write_private, path, pem_of(*rest)),
                )
        yield self._forget()

    def _forget(self) -> Change:
        return Change(
            f"{self._name}: the old key is removed ({self._old_key})",
            partial(self._old_key.unlink, missing_ok=True),
        )

    # -- files ----------------------------------------------------------------------------------

    def _files(self) -> Iterator[tuple[Path, list[x509.Certificate]]]:
        """Every certificate file of the places but those of the rotation itself."""
        for place in self._places:
            for path in sorted(place.glob("*.crt")):
                if path.name in (CROSS, self._next.name):
                    continue
                if found := _read(path):
                    yield path, found


def _renew(authority: Authority, path: Path, leaf: x509.Certificate) -> None:
    write_private(path, authority.renew(leaf))


def _kept(cross: Path, active: Authority) -> bytes:
    """The chain of who signs now, who may have come from a rotation, too."""
    key = active.root.public_key()
    return b"".join(pem_of(one) for one in _read(cross) if one.public_key() == key)


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return certificates_in(path)
    except CertificateError:
        return []
