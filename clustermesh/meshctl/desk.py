"""Where a cluster's join tokens are made and taken back: its apiserver, or a Secret there.

On a host only the apiserver may write the record. In Kubernetes the record is a Secret, replaced
only as it was read, which the operator and every replica share.
"""

from contextlib import suppress
from typing import Final, Protocol

import msgspec

from clustermesh.meshctl import api
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.places import place_of
from clustermesh.meshfile import Cluster, Mesh
from clustermesh.trust import users
from clustermesh.trust.ledger import Listed
from clustermesh.trust.messages import Envelope, JoinError, Sealed

PATIENCE: Final = 20.0  # seconds
HOUR: Final = 3600.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A new token: the only time that its text is shown."""

    token: str
    id: str
    guest: str
    expires: int


class Desk(Protocol):
    """What may be done with the tokens of one cluster. All raise ``NoAnswer``."""

    def create(self, guest: str, hours: float) -> Made: ...

    def listed(self) -> tuple[Listed, ...]: ...

    def revoke(self, token: str) -> str:
        """What became of it."""
        ...

    def join(self, envelope: Envelope) -> Sealed: ...

    def finish(self, envelope: Envelope) -> str:
        """The cluster that has joined."""
        ...


def desk_of(cluster: Cluster, mesh: Mesh | None = None) -> Desk:
    """``mesh`` is needed to let somebody in: whoever joins must not have a member's id."""
    return _Secrets(cluster, mesh) if cluster.context else _Apiserver(cluster)


def usable(desk: Desk, guest: str) -> list[Listed]:
    """With which the guest could let itself in. Also one that is used: it may ask again."""
    ended = ("expired", "revoked")
    return [one for one in desk.listed() if one.guest == guest and one.state not in ended]


def unasked(cluster: Cluster) -> str:
    """Why it is not known who is let in and what tokens there are; empty: it is known, or there
    is nobody to ask.
    """
    try:
        if cluster.context:
            users.read(place_of(cluster))
            desk_of(cluster).listed()
        else:
            api.get(cluster.apiserver, "/livez")
            with suppress(api.NoAnswer):  # without a join listener there are none
                desk_of(cluster).listed()
    except MeshctlError as error:
        return str(error).rstrip(".")
    except api.NoAnswer as error:
        return str(error) if cluster.context or cluster.apiserver else ""
    return ""


class _Apiserver:
    """Asks over the unix socket. What it refuses is a ``MeshctlError``, as of the other desk."""

    def __init__(self, cluster: Cluster) -> None:
        self._name = cluster.name
        self._url = cluster.apiserver

    def create(self, guest: str, hours: float) -> Made:
        return self._ask("/v1/tokens/create", {"guest": guest, "hours": f"{hours:g}"}, Made)

    def listed(self) -> tuple[Listed, ...]:
        return self._ask("/v1/tokens/list", {}, tuple[Listed, ...])

    def revoke(self, token: str) -> str:
        return self._ask("/v1/tokens/revoke", {"id": token}, dict[str, str])["state"]

    def join(self, envelope: Envelope) -> Sealed:
        return self._ask("/v1/join", msgspec.structs.asdict(envelope), Sealed)

    def finish(self, envelope: Envelope) -> str:
        return self._ask("/v1/join", msgspec.structs.asdict(envelope), dict[str, str])["joined"]

    def _ask(self, path: str, body: dict[str, str], kind: type[api.T]) -> api.T:
        try:
            return api.ask(self._url, path, body, kind, timeout=PATIENCE)
        except api.Refusal as error:
            raise MeshctlError(f"{self._name}: {error.reason}.") from None


class _Secrets:
    """Does itself what the apiserver would; refusals are told as it would tell them."""

    def __init__(self, cluster: Cluster, mesh: Mesh | None) -> None:
        from clustermesh.places.connection import connection
        from clustermesh.trust.books import in_secrets
        from clustermesh.trust.host import Host

        self._made = connection(cluster.context, cluster.kubeconfig)
        self._space = cluster.namespace
        self._host = Host(
            cluster,
            place_of(cluster),
            in_secrets(self._made, cluster.namespace),
            known={it.id: it.name for it in mesh.clusters} if mesh else {},
            max_clusters=mesh.max_connected_clusters if mesh else 255,
        )

    def create(self, guest: str, hours: float) -> Made:
        from clustermesh.places import service

        addresses = service.join(self._made, self._space)
        try:
            text, listed = self._host.invite(guest, life=hours * HOUR, addresses=addresses)
        except JoinError as error:
            raise _refused(error) from error
        return Made(token=text, id=listed.id, guest=listed.guest, expires=listed.expires)

    def listed(self) -> tuple[Listed, ...]:
        return self._host.ledger.listed()

    def revoke(self, token: str) -> str:
        try:
            return self._host.ledger.state(self._host.ledger.revoke(token))
        except JoinError as error:
            raise _refused(error) from error

    def join(self, envelope: Envelope) -> Sealed:
        try:
            return self._host.join(envelope)
        except JoinError as error:
            raise _refused(error) from error

    def finish(self, envelope: Envelope) -> str:
        try:
            return self._host.finish(envelope)
        except JoinError as error:
            raise _refused(error) from error


def _refused(error: JoinError) -> MeshctlError:
    return MeshctlError(f"{error}.", Exit.FAILED)
