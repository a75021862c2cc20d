"""The record of join tokens: made, used, revoked. What is not in it does not exist.

A piece per token, replaced in one step and kept before anybody is answered: a token is used when
its piece says so. Where it is a file, it belongs to one process, the apiserver that made the token;
another replica has another record and knows none of them. Keys of a Secret are shared by replicas.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

import msgspec

from clustermesh.places.shelf import Shelf, Taken
from clustermesh.trust import token as tokens
from clustermesh.trust.messages import Envelope, JoinError
from clustermesh.trust.token import ID

LONGEST_LIFE = 7 * 86_400  # seconds
MOST_OPEN = 100
KEPT = 30 * 86_400  # seconds that the record of an ended token is kept
UNKNOWN = "the token is not known here, or the proof is not one of its owner"


class State(StrEnum):
    """``USED``: the guest has its certificate; ``DONE``: the host has its own, too."""

    OPEN = "open"
    USED = "used"
    DONE = "done"
    REVOKED = "revoked"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One token. Times are Unix seconds; ``key`` checks proofs; ``user`` is the hash of the one
    public key that it was used for.
    """

    id: str
    guest: str
    created: float
    expires: int
    key: str
    state: State = State.OPEN
    used: float = 0.0
    user: str = ""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A token without anything that would let somebody use it."""

    id: str
    guest: str
    created: float
    expires: int
    state: str
    used: float


class Ledger:
    """The records, on a shelf of their own."""

    def __init__(self, shelf: Shelf, *, now: Callable[[], float] = time.time) -> None:
        self._shelf = shelf
        self._now = now

    def create(self, guest: str, *, life: float) -> tuple[Record, str]:
        """A new token for the cluster ``guest``: record and secret. Raises ``JoinError``."""
        if not 0 < life <= LONGEST_LIFE:
            raise JoinError(f"a token lives at most {LONGEST_LIFE // 86_400} days")
        self._tidy()
        if sum(self.state(one) == State.OPEN for one in self._records()) >= MOST_OPEN:
            raise JoinError(f"{MOST_OPEN} tokens are open: revoke some first")
        secret = tokens.new_secret()
        record = Record(
            id=secrets.token_hex(8),
            guest=guest,
            created=self._now(),
            expires=int(self._now() + life),
            key=tokens.proof_key(secret).hex(),
        )
        self._shelf.put(_piece(record.id), msgspec.json.encode(record))
        return record, secret

    def listed(self) -> tuple[Listed, ...]:
        """All there are, oldest first."""
        return tuple(
            Listed(
                id=one.id, guest=one.guest, created=one.created, expires=one.expires,
                state=self.state(one), used=one.used,
            )
            for one in sorted(self._records(), key=lambda it: it.created)
        )  # fmt: skip

    def state(self, record: Record) -> str:
        """As an operator would say it."""
        over = record.state is State.OPEN and record.expires <= self._now()
        return "expired" if over else str(record.state)

    def revoke(self, token: str) -> Record:
        """Let nobody use it any more. Raises ``JoinError`` when there is no such token."""
        if (record := self._read(token)) is None:
            raise JoinError("there is no such token here; list them with `meshctl token list`")
        if record.state is not State.REVOKED:
            record = self._change(record, msgspec.structs.replace(record, state=State.REVOKED))
        return record

    def owner(self, envelope: Envelope, purpose: str) -> Record:
        """The record of a message's token, when its sender has the secret. Raises ``JoinError``.

        To others all tokens look alike: that there is one, and what became of it, is not told.
        """
        record = self._read(envelope.token)
        key = bytes.fromhex(record.key) if record else bytes(hashlib.sha256().digest_size)
        right = tokens.proves(key, purpose, envelope.message, envelope.proof)
        if record is None or not right or envelope.purpose != purpose:
            raise JoinError(UNKNOWN)
        if record.expires <= self._now():
            raise JoinError("the token has expired: ask for a new one")
        if record.state is State.REVOKED:
            raise JoinError("the token has been revoked: ask for a new one")
        return record

    def use(self, record: Record, user: str) -> Record:
        """Record that it is used, for one public key and no other. Raises ``JoinError``.

        Whoever used it may ask again with the same key: the first answer may have been lost.
        """
        if record.state is not State.OPEN:
            if not hmac.compare_digest(record.user.encode(), user.encode()):
                raise JoinError("the token has been used already: ask for a new one")
            return record
        used = msgspec.structs.replace(record, state=State.USED, used=self._now(), user=user)
        return self._change(record, used)

    def finish(self, record: Record) -> None:
        """Record that both sides have what they need."""
        if record.state is State.OPEN:
            raise JoinError("the token has not been used yet: join first")
        self._change(record, msgspec.structs.replace(record, state=State.DONE))

    def _records(self) -> list[Record]:
        found = (_record(held) for held in self._shelf.pieces().values())
        return [record for record in found if record is not None]

    def _read(self, token: str) -> Record | None:
        if not ID.fullmatch(token):
            return None
        return _record(self._shelf.read(_piece(token)))

    def _change(self, record: Record, changed: Record) -> Record:
        """Replace it, unless it is another by now: several replicas may share the shelf."""
        held = self._shelf.read(_piece(record.id))
        with suppress(Taken):
            if _record(held) == record:
                self._shelf.swap(_piece(record.id), held, msgspec.json.encode(changed))
                return changed
        raise JoinError("somebody else is using the token just now: try again")

    def _tidy(self) -> None:
        for one in self._records():
            if one.expires + KEPT < self._now():
                self._shelf.put(_piece(one.id), None)


def _piece(token: str) -> str:
    return f"{token}.json"


def _record(held: bytes) -> Record | None:
    try:
        return msgspec.json.decode(held, type=Record)
    except msgspec.MsgspecError:
        return None
