"""The invited side of joining: makes its key where it stays, and takes what the host answers.

Every step may be repeated: the key is kept, so the same token answers the same guest again.
"""

import time
from collections.abc import Callable, Mapping

from cryptography import x509

from clustermesh.certificates import CertificateError
from clustermesh.meshfile import Cluster
from clustermesh.pki import Authority
from clustermesh.places.place import Place
from clustermesh.trust import issuing, messages, token, users
from clustermesh.trust.host import presented, unlisted
from clustermesh.trust.messages import (
    FINISH,
    JOIN,
    Answer,
    Envelope,
    Finish,
    JoinError,
    Me,
    Request,
    Sealed,
)
from clustermesh.trust.peerfiles import PeerFiles
from clustermesh.trust.token import Token, TokenError


class Guest:
    """One cluster with a token. Raises ``TokenError`` when the token is not for it."""

    def __init__(
        self,
        text: str,
        cluster: Cluster,
        place: Place,
        *,
        max_clusters: int,
        known: Mapping[int, str] = {},  # never changed
        now: Callable[[], float] = time.time,
    ) -> None:
        self.token: Token = token.read(text)
        self._text = text
        self._cluster = cluster
        self._place = place
        self._max_clusters = max_clusters
        self._known = known
        self._now = now
        if self.token.guest != cluster.name:
            raise TokenError(f"the token is for {self.token.guest}, not for {cluster.name}")
        try:
            issuing.cluster_name(self.token.host)
        except ValueError as error:
            raise TokenError(f"the token's host: {error}") from None
        if place.users is None:
            raise TokenError(unlisted(cluster.name))
        if self.token.host == cluster.name:
            raise TokenError("the token is of this cluster itself")
        if self.token.expires <= now():
            raise TokenError("the token has expired: ask for a new one")
        self._files = PeerFiles(place, self.token.host)

    def verify(self, root: x509.Certificate) -> None:
        """Raise ``TokenError`` unless this authority signed the token."""
        token.verify(self._text, root)

    def request(self) -> Envelope:
        """Makes the key when there is none, and asks for a certificate for it."""
        key = self._files.key()
        request = Request(
            member=presented(self._cluster, self._authority(), self._max_clusters),
            csr=issuing.request(f"remote-{self._cluster.name}", key).decode(),
        )
        return self._envelope(JOIN, messages.encode(request))

    def accept(self, sealed: Sealed) -> tuple[Answer, Envelope]:
        """Take the answer: who may read us, and whom we trust; what the host is to be told.

        Nothing is followed yet: that is ``connect``. Raises ``JoinError`` and ``TokenError``.
        """
        answer = messages.unseal(sealed, ca=self.token.ca, token=self.token.id, now=self._now())
        if root := messages.pinned(answer.member.trust.encode(), self.token.ca):
            self.verify(root)
        me = Me(self._cluster.name, self._cluster.id, self._max_clusters)
        messages.check(answer.member, expected=self.token.host, me=me, ids=self._known)
        self._certificate(answer)
        user = f"remote-{self.token.host}"
        try:
            key = issuing.requested(answer.csr.encode(), user)
        except CertificateError as error:
            raise JoinError(str(error)) from None
        certificate = self._authority().sign(user, key).decode()
        self._files.trust(answer.member.trust)
        users.add(self._place, user)
        finish = Finish(certificate=certificate)
        return answer, self._envelope(FINISH, messages.encode(finish))

    def connect(self, answer: Answer) -> None:
        """Begin to read the host's etcd."""
        self._files.connect(answer.member, self._certificate(answer))

    def _certificate(self, answer: Answer) -> bytes:
        key = self._files.key().public_key()
        name = f"remote-{self._cluster.name}"
        return messages.check_certificate(answer.certificate, name, key, answer.member.trust)

    def _authority(self) -> Authority:
        return self._place.authority()

    def _envelope(self, purpose: str, message: str) -> Envelope:
        proof = token.prove(self.token.key, purpose, message)
        return Envelope(token=self.token.id, purpose=purpose, message=message, proof=proof)
