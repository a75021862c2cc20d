"""The inviting side of joining: makes tokens, lets the guest in, and comes to know it in turn.

Everything is checked before a token counts as used, and the record of that is on disk before the
answer is given. All that is written afterwards is written again when the same guest asks again.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from clustermesh.certificates import CertificateError, key_pin, pin
from clustermesh.meshfile import Cluster
from clustermesh.pki import Authority
from clustermesh.places.place import Place
from clustermesh.trust import issuing, messages, token, users
from clustermesh.trust.books import Books
from clustermesh.trust.ledger import Ledger, Listed, State
from clustermesh.trust.messages import (
    FINISH,
    JOIN,
    Answer,
    Envelope,
    Finish,
    JoinError,
    Me,
    Member,
    Request,
    Sealed,
)
from clustermesh.trust.peerfiles import PeerFiles
from clustermesh.trust.token import Token


class Host:
    """One cluster and its place; ``books`` are the record of what it promised."""

    def __init__(
        self,
        cluster: Cluster,
        place: Place,
        books: Books,
        *,
        max_clusters: int,
        known: Mapping[int, str] = {},  # never changed
        now: Callable[[], float] = time.time,
    ) -> None:
        """``known``: ids of the mesh's clusters, by whatever way they were connected."""
        self._known = known
        self._cluster = cluster
        self._place = place
        self._me = Me(cluster.name, cluster.id, max_clusters)
        self._peers = books.peers
        self._now = now
        self.ledger = Ledger(books.tokens, now=now)

    def invite(self, guest: str, *, life: float, addresses: Sequence[str]) -> tuple[str, Listed]:
        """The text of a new token, good for ``life`` seconds. Raises ``JoinError``."""
        try:
            issuing.cluster_name(guest)
        except ValueError as error:
            raise JoinError(str(error)) from None
        if guest == self._me.name:
            raise JoinError(f"{guest} is this cluster itself")
        if self._place.users is None:
            raise JoinError(unlisted(self._me.name))
        authority = self._authority()
        record, secret = self.ledger.create(guest, life=life)
        made = Token(
            id=record.id,
            host=self._me.name,
            guest=guest,
            addresses=tuple(addresses),
            ca=pin(authority.root),
            expires=record.expires,
            secret=secret,
        )
        (listed,) = (one for one in self.ledger.listed() if one.id == record.id)
        return token.write(made, authority), listed

    def join(self, envelope: Envelope) -> Sealed:
        """Let the guest in. Raises ``JoinError``, or what its own files raise."""
        record = self.ledger.owner(envelope, JOIN)
        request = messages.decode(envelope.message, Request)
        member = request.member
        messages.check(member, expected=record.guest, me=self._me, ids=self._ids())
        user = f"remote-{member.name}"
        if record.state is State.DONE and not users.has(self._place, user):
            raise JoinError(f"{member.name} is let in no more: ask for a new token")
        key = _asked(request.csr, user)
        authority = self._authority()
        record = self.ledger.use(record, key_pin(key))
        self._remember(member)
        files = self._files(member.name)
        files.trust(member.trust)
        users.add(self._place, user)
        answer = Answer(
            token=record.id,
            expires=record.expires,
            member=presented(self._cluster, authority, self._me.max_clusters),
            certificate=authority.sign(user, key).decode(),
            csr=issuing.request(f"remote-{self._me.name}", files.key()).decode(),
        )
        return messages.seal(answer, authority)

    def finish(self, envelope: Envelope) -> str:
        """Take the guest's certificate and begin to read its etcd; its name. Raises as above."""
        record = self.ledger.owner(envelope, FINISH)
        finish = messages.decode(envelope.message, Finish)
        member = self._remembered(record.guest)
        files = self._files(record.guest)
        if member is None or not files.has_key:
            raise JoinError("nothing is known of a request before this: join first")
        if not users.has(self._place, f"remote-{record.guest}"):
            raise JoinError(f"{record.guest} is let in no more: ask for a new token")
        key = files.key().public_key()
        name = f"remote-{self._me.name}"
        chain = messages.check_certificate(finish.certificate, name, key, member.trust)
        files.connect(member, chain)
        self.ledger.finish(record)
        return record.guest

    def _authority(self) -> Authority:
        return self._place.authority()

    def _files(self, peer: str) -> PeerFiles:
        return PeerFiles(self._place, peer)

    def _remember(self, member: Member) -> None:
        self._peers.put(f"{member.name}.json", msgspec.json.encode(member))

    def _remembered(self, name: str) -> Member | None:
        return _member(self._peers.read(f"{name}.json"))

    def _ids(self) -> dict[int, str]:
        """Of the clusters that have joined and are still read."""
        members = map(_member, self._peers.pieces().values())
        joined = {one.id: one.name for one in members if one and self._files(one.name).is_read}
        return {**joined, **self._known}


def _member(held: bytes) -> Member | None:
    try:
        return msgspec.json.decode(held, type=Member)
    except msgspec.MsgspecError:
        return None


def unlisted(cluster: str) -> str:
    """Why a cluster cannot take part in joining when its etcd's users are not ours to list."""
    return (
        f"{cluster} does not list who may read its etcd (one user for all readers, or Cilium's own"
        " list), so nobody can join it with a token; use `meshctl connect`, or the chart's"
        " `join.enabled`"
    )


def presented(cluster: Cluster, authority: Authority, max_clusters: int) -> Member:
    """How a cluster presents itself to another."""
    return Member(
        name=cluster.name,
        id=cluster.id,
        max_clusters=max_clusters,
        endpoints=cluster.endpoints,
        host_aliases=cluster.host_aliases,
        trust=authority.bundle.decode(),
    )


def _asked(csr: str, user: str) -> ec.EllipticCurvePublicKey:
    try:
        return issuing.requested(csr.encode(), user)
    except CertificateError as error:
        raise JoinError(str(error)) from None
