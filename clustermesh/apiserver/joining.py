"""Join tokens of this cluster, and the listener where they are redeemed (docs/trust.md).

This process enforces that a token is good once: it alone has the record, under its state directory.
What needs ``cryptography`` is imported when somebody joins: a start does without.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from clustermesh import http
from clustermesh.apiserver.seat import Seat, seat_of
from clustermesh.apiserver.settings import Settings
from clustermesh.errors import MeshError, NoAnswer
from clustermesh.http import Answer, Query, Refused
from clustermesh.logs import get_logger
from clustermesh.process import Fault

if TYPE_CHECKING:
    import socket

    from clustermesh.pki import Authority
    from clustermesh.trust.host import Host
    from clustermesh.trust.messages import Envelope

log = get_logger()
T = TypeVar("T")

WAIT = 2.0  # seconds between looks for the mesh file
HOUR = 3600.0


@contextmanager
def listening(settings: Settings) -> "Iterator[list[socket.socket]]":
    """The socket of the join listener, bound; none when it is not asked for. Raises ``Fault``."""
    if settings.join_secrets and settings.join_mesh is not None:
        raise Fault("give either --join-mesh or --join-secrets")
    if settings.join_listen and seat_of(settings) is None:
        raise Fault(
            "--join-listen needs --join-mesh, a mesh file with this cluster's entry,"
            " or --join-secrets"
        )
    with http.listening(socket=None, listen=settings.join_listen) as sockets:
        yield sockets


class Joining:
    """Owns the record of tokens. One request at a time: what two ask for at once, one gets."""

    def __init__(self, settings: Settings, report: Callable[[str | None], None]) -> None:
        self._settings = settings
        self._seat = seat_of(settings)
        self._report = report
        self._one = ThreadPoolExecutor(max_workers=1, thread_name_prefix="joining")
        """Whoever gives up waiting does not let the next one in before the work is done."""

    def actions(self) -> Mapping[str, Answer]:
        """For the unix socket: who may write there is the operator."""
        if self._seat is None:
            return {}
        return {
            "/v1/tokens/create": self._create,
            "/v1/tokens/list": self._list,
            "/v1/tokens/revoke": self._revoke,
            "/v1/join": self._offline,
        }

    async def serve(self, sockets: "list[socket.socket]") -> None:
        """Let guests in, for ever; waits for the mesh file when it is not there yet."""
        if self._seat is not None:
            await self._insist(self._seat.begin, "who may read this etcd is not listed yet")
        if not sockets:
            return
        from clustermesh.trust.listener import Listener

        async def trust(_: bytes) -> bytes:
            return listener.bundle

        handlers = {
            "GET /v1/trust": trust,
            "POST /v1/join": self._join,
            "POST /v1/join/finish": self._join,
        }
        name = self._settings.cluster_name
        listener = Listener(name, handlers, authority=self._authority, told=_refused)
        while True:
            await self._insist(listener.refresh, "nobody can join")
            await listener.serve(sockets[0])

    async def _insist(self, work: Callable[[], object], without: str) -> None:
        """Until it is done once."""
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._one, work)
            except (MeshError, NoAnswer, ValueError, OSError) as error:
                self._report(f"{without}: {error}")
                await asyncio.sleep(WAIT)
                continue
            self._report(None)
            return

    # -- the operator's --------------------------------------------------------------------------

    async def _create(self, query: Query) -> object:
        hours = query.get("hours", "24")
        if not re.fullmatch(r"\d{1,4}(\.\d{1,4})?", hours):
            raise Refused(400, "hours: expected a number")
        seat = self._sure()

        def create(host: "Host") -> object:
            addresses = seat.addresses()
            text, listed = host.invite(
                query.get("guest", ""), life=float(hours) * HOUR, addresses=addresses
            )
            log.info("join token made", id=listed.id, guest=listed.guest)
            return {"token": text, **msgspec.structs.asdict(listed)}

        return await self._in_turn(create)

    async def _list(self, _: Query) -> object:
        return await self._in_turn(lambda host: host.ledger.listed())

    async def _revoke(self, query: Query) -> object:
        def revoke(host: "Host") -> object:
            record = host.ledger.revoke(query.get("id", ""))
            log.info("join token revoked", id=record.id, guest=record.guest)
            return {"id": record.id, "state": host.ledger.state(record)}

        return await self._in_turn(revoke)

    async def _offline(self, query: Query) -> object:
        """A request that came as a file."""
        from clustermesh.trust.messages import Envelope, JoinError

        try:
            envelope = msgspec.convert(dict(query), Envelope)
        except msgspec.ValidationError as error:
            raise Refused(400, f"not a request to join: {error}") from None
        try:
            return await self._in_turn(lambda host: _received(host, envelope))
        except JoinError as error:
            raise Refused(403, str(error)) from None

    # -- the guests' -----------------------------------------------------------------------------

    async def _join(self, body: bytes) -> bytes:
        from clustermesh.trust.messages import Envelope, decode

        envelope = decode(body, Envelope)
        try:
            done = await self._turned(lambda host: _received(host, envelope))
        except (MeshError, NoAnswer) as error:
            raise ValueError(str(error)) from None  # ours to mend, not the guest's to know
        return msgspec.json.encode(done)

    # -- how ---------------------------------------------------------------------------------------

    async def _in_turn(self, work: "Callable[[Host], T]") -> T:
        from clustermesh.trust.messages import JoinError

        try:
            return await self._turned(work)
        except JoinError as error:
            raise Refused(403, str(error)) from None
        except (MeshError, NoAnswer, ValueError, OSError) as error:
            raise Refused(500, str(error)) from None

    async def _turned(self, work: "Callable[[Host], T]") -> T:
        return await asyncio.get_running_loop().run_in_executor(self._one, self._work, work)

    def _work(self, work: "Callable[[Host], T]") -> T:
        return work(self._sure().host())

    def _authority(self) -> "Authority":
        return self._sure().authority()

    def _sure(self) -> Seat:
        if self._seat is None:
            raise ValueError("this apiserver was started without --join-mesh and --join-secrets")
        return self._seat


def _received(host: "Host", envelope: "Envelope") -> object:
    from clustermesh.trust.messages import JOIN

    if envelope.purpose == JOIN:
        sealed = host.join(envelope)
        log.info("a cluster asks to join and may", token=envelope.token)
        return sealed
    name = host.finish(envelope)
    log.info("a cluster has joined", cluster=name, token=envelope.token)
    return {"joined": name}


def _refused(source: str, why: str) -> None:
    log.warning("joining refused", source=source, reason=why)
