"""gRPC's edge: one connection to one etcd, typed, and guarded against another etcd's answers."""

import asyncio
from collections.abc import Generator
from contextlib import suppress
from itertools import count
from typing import Any, Generic, Protocol, Self, TypeVar

from kvstore import failure
from kvstore._grpc import grpc
from kvstore._proto import etcd_pb2 as rpc
from kvstore.client import Denied, OtherPast, StoreError, Unavailable
from kvstore.config import EtcdConfig


class Request(Protocol):
    """A message that can be sent."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


class Reply(Protocol):
    """A message that tells which etcd sent it."""

    @property
    def header(self) -> rpc.ResponseHeader: ...

    @classmethod
    def FromString(cls, data: bytes, /) -> Self: ...  # noqa: N802 - protobuf's name


_Grpc = Any  # grpc has no types; its objects do not leave this module

_numbers = count(1)

Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Reply)


class Method(Generic[Q, R]):
    """A path with the types that travel on it."""

    def __init__(self, path: str, request: type[Q], reply: type[R]) -> None:
        self.path = path
        self.request = request
        self.reply = reply


RANGE = Method("/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", rpc.TxnRequest, rpc.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", rpc.CompactionRequest, rpc.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", rpc.WatchRequest, rpc.WatchResponse)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse)
KEEP_ALIVE = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse
)
STATUS = Method("/etcdserverpb.Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse)
AUTHENTICATE = Method(
    "/etcdserverpb.Auth/Authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse
)

_Metadata = tuple[tuple[str, str], ...]


class Link:
    """One connection. It ends once, for a stated reason, and is never mended: the next one is a new
    link.
    """

    def __init__(self, channel: _Grpc, *, name: str, config: EtcdConfig) -> None:
        self._channel = channel
        self._config = config
        self._callables: dict[str, _Grpc] = {}
        self._metadata: _Metadata = ()
        self._ended: asyncio.Event = asyncio.Event()
        self.name = name
        self.end_reason = ""
        self.number = next(_numbers)
        """Of this process's connections, to whatever etcd."""
        self.cluster_id = 0
        self.version = ""
        self.outdated = False
        """Its streams go by a token that is not the newest: they open no more watches."""

    @property
    def alive(self) -> bool:
        """Not ended, and still the very connection that was dialled."""
        if (
            not self._ended.is_set()
            and self._channel.get_state() is not grpc.ChannelConnectivity.READY
        ):
            self.end("the connection was lost")
        return not self._ended.is_set()

    @property
    def has_token(self) -> bool:
        """Is it by a token, which may run out, that etcd knows us?"""
        return bool(self._metadata)

    def end(self, reason: str) -> None:
        """From now on every call fails with ``Unavailable``."""
        if not self._ended.is_set():
            self.end_reason = reason
            self._ended.set()

    async def greet(self) -> None:
        """The first words on a new connection: (with a password) may I come in, and who are you.

        An etcd that tells its status to administrators only is known by its first other reply.
        """
        if self._config.username is not None:
            await self._authenticate()
        with suppress(Denied):
            status = await self._once(STATUS, rpc.StatusRequest(), self._config.dial_timeout)
            self.cluster_id, self.version = status.header.cluster_id, status.version

    async def ended(self) -> None:
        """Wait for the end; ``end_reason`` says why. The stream of watches, which is open as long
        as the link is, notices a lost connection also when nobody calls.
        """
        await self._ended.wait()

    async def close(self) -> None:
        """End, and let go of the socket."""
        self.end("it was closed here")
        await self._channel.close()

    async def call(self, method: Method[Q, R], request: Q, *, timeout: float | None = None) -> R:  # noqa: ASYNC109
        """One request and its reply; raises one of our words."""
        return await self.begin(method, request, timeout=timeout)

    def begin(
        self, method: Method[Q, R], request: Q, *, timeout: float | None = None
    ) -> "Pending[Q, R]":
        """Send now, await the reply later."""
        return Pending(self, method, request, timeout or self._config.request_timeout)

    def stream(self, method: Method[Q, R], *, need_leader: bool = False) -> "Stream[Q, R]":
        """A stream of requests and replies."""
        if not self.alive:
            raise Unavailable(self.end_reason)
        make = self._callable(method, streaming=True)
        extra: _Metadata = (("hasleader", "true"),) if need_leader else ()
        return Stream(self, make(metadata=self._metadata + extra))

    def guard(self, reply: R) -> R:
        """Pass on a reply of the etcd this link belongs to (contract kvstore 5.2: a header that
        names another one).
        """
        self.cluster_id = self.cluster_id or reply.header.cluster_id
        if reply.header.cluster_id != self.cluster_id:
            self.end(f"etcd {reply.header.cluster_id:x} answered instead of {self.cluster_id:x}")
            raise OtherPast(self.end_reason)
        return reply

    def failed(self, error: grpc.aio.AioRpcError) -> StoreError:
        """A call's failure in our words; ends the link when it is the connection that failed."""
        told = failure.translate(error)
        if failure.breaks(error):
            self.end(str(told))
        return told

    def interrupted(self) -> StoreError | None:
        """Was a CancelledError gRPC's way of saying that the channel closed, rather than a
        cancellation of this task?
        """
        task = asyncio.current_task()
        if self._ended.is_set() and task is not None and not task.cancelling():
            return Unavailable(self.end_reason)
        return None

    def start(self, method: Method[Q, R], request: Q, timeout: float) -> _Grpc:
        return self._callable(method, streaming=False)(
            request, timeout=timeout, metadata=self._metadata
        )

    async def renew_token(self) -> None:
        """Authenticate again, where it is done with a password; a certificate needs no token."""
        if self._config.username is not None:
            await self._authenticate()
            self.outdated = True

    async def _authenticate(self) -> None:
        request = rpc.AuthenticateRequest(
            name=self._config.username, password=self._config.password
        )
        try:
            reply = await self._once(AUTHENTICATE, request, self._config.dial_timeout)
        except Denied as error:
            if "not enabled" not in str(error):
                raise Denied(f"etcd refuses user {self._config.username}: {error}") from None
            return  # an etcd without users lets everybody in
        self._metadata = (("token", reply.token),)

    async def _once(self, method: Method[Q, R], request: Q, seconds: float) -> R:
        try:
            reply: R = await self.start(method, request, seconds)
        except grpc.aio.AioRpcError as error:
            raise self.failed(error) from None
        return reply

    def _callable(self, method: Method[Q, R], *, streaming: bool) -> _Grpc:
        found = self._callables.get(method.path)
        if found is None:
            make = self._channel.stream_stream if streaming else self._channel.unary_unary
            found = self._callables[method.path] = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.reply.FromString,
            )
        return found


class Pending(Generic[Q, R]):
    """A request that is under way. Awaiting it gives the reply; ``cancel`` when nobody will."""

    def __init__(self, link: Link, method: Method[Q, R], request: Q, seconds: float) -> None:
        self._link = link
        self._method = method
        self._request = request
        self._seconds = seconds
        self._call = link.start(method, request, seconds) if link.alive else None

    def __await__(self) -> Generator[_Grpc, None, R]:
        return self._reply().__await__()

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    async def _reply(self) -> R:
        if self._call is None:
            raise Unavailable(self._link.end_reason)
        try:
            try:
                reply: R = await self._call
            except grpc.aio.AioRpcError as error:
                if not failure.asks_for_new_token(error):
                    raise
                await self._link.renew_token()
                reply = await self._link.start(self._method, self._request, self._seconds)
            return self._link.guard(reply)
        except grpc.aio.AioRpcError as error:
            raise self._link.failed(error) from None
        except asyncio.CancelledError:
            if told := self._link.interrupted():
                raise told from None
            raise


class Stream(Generic[Q, R]):
    """Both directions of a streaming call, in our words."""

    def __init__(self, link: Link, call: _Grpc) -> None:
        self._link = link
        self._call = call

    async def send(self, request: Q) -> None:
        """Send one request; one sender at a time."""
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await self._why(error) from None
        except asyncio.CancelledError:
            if told := self._link.interrupted():
                raise told from None
            raise

    async def receive(self) -> R:
        """The next reply; raises ``Unavailable`` also when the other side ended the stream."""
        try:
            reply = await self._call.read()
            if reply is grpc.aio.EOF:
                code = await self._call.code()
                if code is grpc.StatusCode.OK:
                    self._link.end("etcd ended the stream")
                    raise Unavailable("etcd ended the stream")
        except grpc.aio.AioRpcError as error:
            raise self._link.failed(error) from None
        except asyncio.CancelledError:
            if told := self._link.interrupted():
                raise told from None
            raise
        if reply is grpc.aio.EOF:
            raise await self._why(None)
        message: R = reply
        return self._link.guard(message)

    def cancel(self) -> None:
        self._call.cancel()

    async def _why(self, error: Exception | None) -> StoreError:
        if not isinstance(error, grpc.aio.AioRpcError):
            error = grpc.aio.AioRpcError(
                await self._call.code(),
                grpc.aio.Metadata(),
                grpc.aio.Metadata(),
                details=await self._call.details(),
            )
        return self._link.failed(error)
