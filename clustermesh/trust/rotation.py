"""A new authority takes over from the old one in three steps; nobody is refused meanwhile.

    trust   the new one is made and certified by the old one; every bundle names both
    issue   the new key signs; every certificate is issued anew for the key that it has
    drop    every bundle names the new one only; the old key is removed

Each step is worked out from what is there: after a crash it is taken up again, and what is done
already is not done twice. Only whole pieces (files, or keys of Secrets) are replaced, and never a
leaf's key, so whoever reads between two changes finds what works. An etcd reads its trusted
authorities at its start only: until then it believes the new one because certificates carry
``ca.cross.crt`` along.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

from cryptography import x509

from clustermesh.certificates import CertificateError, common_name, is_authority, parsed, pem_of
from clustermesh.pki import CROSS, Authority
from clustermesh.places.shelf import Shelf
from clustermesh.trust.keeping import Keys, certificates_of

NEXT: Final = "ca.next.crt"
NEXT_KEY: Final = "ca.next.key"
OLD_KEY: Final = "ca.old.key"


class Step(StrEnum):
    """In their order."""

    TRUST = "trust"
    ISSUE = "issue"
    DROP = "drop"


class Change(NamedTuple):
    """One thing to do, in words for the operator."""

    what: str
    do: Callable[[], None]


class Found(NamedTuple):
    """A piece with certificates."""

    shelf: Shelf
    name: str
    certificates: list[x509.Certificate]

    @property
    def where(self) -> str:
        return self.shelf.where(self.name)

    def replaced(self, content: bytes) -> Callable[[], None]:
        return partial(self.shelf.put, self.name, content)


class Rotation:
    """One authority, and the shelves where its certificates are used."""

    def __init__(self, keys: Keys, places: Sequence[Shelf], *, name: str) -> None:
        self._own = keys.shelf
        self._certificate = keys.certificate
        self._key = keys.key
        self._places = tuple(dict.fromkeys((keys.shelf, *places)))
        self._name = name

    @property
    def done(self) -> Step | None:
        """The last step that has been begun; None when no rotation is under way."""
        if self._own.read(NEXT) and self._own.read(NEXT_KEY):
            return Step.TRUST
        return Step.ISSUE if self._own.read(OLD_KEY) else None

    def authority(self) -> Authority:
        """Who signs now. Raises ``CertificateError``."""
        return self._with(self._key)

    def successor(self) -> Authority:
        """Who will sign, with its chain to who signs now. Raises ``CertificateError``."""
        return self._with(NEXT_KEY) if self.done is Step.TRUST else self.authority()

    def _with(self, key: str) -> Authority:
        return Keys(self._own, self._certificate, key).authority()

    def changes(self, step: Step) -> Iterator[Change]:
        """What the step still has to do. Raises ``CertificateError``."""
        return {Step.TRUST: self._trust, Step.ISSUE: self._issue, Step.DROP: self._drop}[step]()

    def predecessor(self) -> Authority | None:
        """Who signed before, as long as the step ``drop`` is not done."""
        if self.done is not Step.ISSUE:
            return None
        try:
            return self._with(OLD_KEY)
        except CertificateError:
            return None

    def leaves(self, authority: Authority) -> Iterator[tuple[Found, x509.Certificate]]:
        """The certificates in use that it issued, by piece."""
        for found in self._pieces():
            leaf = found.certificates[0]
            if not is_authority(leaf) and authority.issued(leaf):
                yield found, leaf

    # -- trust ----------------------------------------------------------------------------------

    def _trust(self) -> Iterator[Change]:
        if self.done is Step.ISSUE:
            return
        if self.done is None:
            yield Change(
                f"{self._name}: new authority ({self._own.where(NEXT)}); its key stays there",
                self._make,
            )
        if self.done is Step.TRUST:  # and not only talked about
            yield from self._bundles()

    def _make(self) -> None:
        self.authority()
        made = Authority.create(self._name, generation=f"{datetime.now(UTC):%Y-%m-%d %H%M%S}")
        pair = made.pair()
        self._own.put(NEXT_KEY, pair.key)
        self._own.put(NEXT, pair.certificate)

    def _bundles(self) -> Iterator[Change]:
        active = self.authority()
        fresh = parsed(self._own.read(NEXT), self._own.where(NEXT))[0]
        cross = certificates_of(self._own.read(CROSS))
        if not any(one.public_key() == fresh.public_key() for one in cross):
            content = active.certify(fresh) + _kept(cross, active)
            yield Change(
                f"{self._name}: the old authority vouches for the new one"
                f" ({self._own.where(CROSS)})",
                partial(self._own.put, CROSS, content),
            )
        for found in self._pieces():
            held = found.certificates
            if active.root in held and fresh not in held and is_authority(held[0]):
                yield Change(
                    f"{self._name}: both authorities are trusted ({found.where})",
                    found.replaced(pem_of(*held, fresh)),
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
            where = self._own.where(self._key)
            yield Change(f"{self._name}: the new key signs from now on ({where})", self._switch)
        if (old := self.predecessor()) is None:
            return
        now = self.authority()
        for found, leaf in self.leaves(old):
            yield Change(
                f"{self._name}: {common_name(leaf)} issued anew ({found.where})",
                partial(_renew, now, found, leaf),
            )

    def _switch(self) -> None:
        """Each write may be the last: the old key is kept before it is replaced, and only once."""
        held, fresh = self._own.read(self._key), self._own.read(NEXT_KEY)
        if held != fresh:
            self._own.put(OLD_KEY, held)
            self._own.put(self._key, fresh)
        self._own.put(NEXT_KEY, None)
        self._own.put(NEXT, None)

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
        if left := [found.where for found, _ in self.leaves(old)]:
            raise CertificateError(f"{left[0]} is still the old authority's: step `{Step.ISSUE}`")
        mine = (self._own, self._certificate)
        for found in sorted(self._pieces(), key=lambda it: it[:2] == mine):  # ours comes last
            held = found.certificates
            if old.root in held and is_authority(held[0]):
                rest = [one for one in held if one != old.root]
                yield Change(
                    f"{self._name}: the old authority is trusted no more ({found.where})",
                    found.replaced(pem_of(*rest)),
                )
        yield self._forget()

    def _forget(self) -> Change:
        return Change(
            f"{self._name}: the old key is removed ({self._own.where(OLD_KEY)})",
            partial(self._own.put, OLD_KEY, None),
        )

    # -- pieces ---------------------------------------------------------------------------------

    def _pieces(self) -> Iterator[Found]:
        """Everything with certificates in the places but what is the rotation's itself."""
        for shelf in self._places:
            for name, held in shelf.pieces().items():
                if (
                    name not in (CROSS, NEXT)
                    and name.endswith(".crt")
                    and (it := certificates_of(held))
                ):
                    yield Found(shelf, name, it)


def _renew(authority: Authority, found: Found, leaf: x509.Certificate) -> None:
    found.shelf.put(found.name, authority.renew(leaf))


def _kept(cross: Sequence[x509.Certificate], active: Authority) -> bytes:
    """The chain of who signs now, who may have come from a rotation, too."""
    key = active.root.public_key()
    return b"".join(pem_of(one) for one in cross if one.public_key() == key)
