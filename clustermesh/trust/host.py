"""The inviting side of joining: makes tokens, lets the guest in, and comes to know it in turn.

Everything is checked before a token counts as used, and the record of that is on disk before the
answer is given. All that is written afterwards is written again when the same guest asks again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from clustermesh.certificates import CertificateError, key_pin, pin
from clustermesh.meshctl.meshfile import Cluster
from clustermesh.pki import Authority, write_private
from clustermesh.trust import issuing, messages, token, users
from clustermesh.trust.issuing import DIRECTORY
from clustermesh.trust.ledger import Ledger, Listed, State, sync
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
    """One cluster, with the places that its entry in the mesh file names."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        max_clusters: int,
        state: Path,
        known: Mapping[int, str] = {},  # never changed
        now: Callable[[], float] = time.time,
    ) -> None:
        """``known``: ids of the mesh's clusters, by whatever way they were connected."""
        self._known = known
        self._cluster = cluster
        self._me = Me(cluster.name, cluster.id, max_clusters)
        self._peers = state / "peers"
        self._now = now
        self.ledger = Ledger(state / "tokens", now=now)

    def invite(self, guest: str, *, life: float, addresses: Sequence[str]) -> tuple[str, Listed]:
        """The text of a new token, good for ``life`` seconds. Raises ``JoinError``."""
        try:
            issuing.cluster_name(guest)
        except ValueError as error:
            raise JoinError(str(error)) from None
        if guest == self._me.name:
            raise JoinError(f"{guest} is this cluster itself")
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
        if record.state is State.DONE and not users.has(self._cluster.users_file, user):
            raise JoinError(f"{member.name} is let in no more: ask for a new token")
        key = _asked(request.csr, user)
        authority = self._authority()
        record = self.ledger.use(record, key_pin(key))
        self._remember(member)
        files = self._files(member.name)
        files.trust(member.trust)
        users.add(self._cluster.users_file, user)
        answer = Answer(
            token=record.id,
            expires=record.expires,
            member=presented(self._cluster, authority, self._me.max_clusters),
            certificate=authority.sign(user, key).decode(),
            csr=issuing.request(f"remote-{self._me.name}", issuing.own_key(files.key)).decode(),
        )
        return messages.seal(answer, authority)

    def finish(self, envelope: Envelope) -> str:
        """Take the guest's certificate and begin to read its etcd; its name. Raises as above."""
        record = self.ledger.owner(envelope, FINISH)
        finish = messages.decode(envelope.message, Finish)
        member = self._remembered(record.guest)
        files = self._files(record.guest)
        if member is None or not files.key.exists():
            raise JoinError("nothing is known of a request before this: join first")
        if not users.has(self._cluster.users_file, f"remote-{record.guest}"):
            raise JoinError(f"{record.guest} is let in no more: ask for a new token")
        key = issuing.own_key(files.key).public_key()
        name = f"remote-{self._me.name}"
        chain = messages.check_certificate(finish.certificate, name, key, member.trust)
        files.connect(member, chain)
        self.ledger.finish(record)
        return record.guest

    def _authority(self) -> Authority:
        return Authority.load(self._cluster.ca_cert, self._cluster.ca_key)

    def _files(self, peer: str) -> PeerFiles:
        cluster = self._cluster
        return PeerFiles(
            cluster.config_dir, peer, agents=cluster.agent_config_dir, cache=cluster.cache_client
        )

    def _remember(self, member: Member) -> None:
        self._peers.mkdir(mode=DIRECTORY, parents=True, exist_ok=True)
        write_private(self._peers / f"{member.name}.json", msgspec.json.encode(member))
        sync(self._peers)

    def _remembered(self, name: str) -> Member | None:
        try:
            return msgspec.json.decode((self._peers / f"{name}.json").read_bytes(), type=Member)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _ids(self) -> dict[int, str]:
        """Of the clusters that have joined and are still read."""
        names = (path.stem for path in self._peers.glob("*.json"))
        members = (self._remembered(name) for name in names)
        joined = {
            one.id: one.name for one in members if one and self._files(one.name).config.exists()
        }
        return {**joined, **self._known}


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
