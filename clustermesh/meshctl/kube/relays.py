"""Programs that run in a container, and HTTP by way of one (``clustermesh.relay``, ``pods/exec``).

The API server and kubelet carry WebSocket messages whose first byte names a stream, as the
subprotocols ``v4.channel.k8s.io`` and ``v5.channel.k8s.io`` (KEP-4006) say. Whatever else goes
wrong than that no relay can be had is an ``OSError``, as of a socket.
"""

import errno
import http.client
import io
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from clustermesh.places.connection import Below, Connection
from clustermesh.relay import GREETING
from clustermesh.sources.kubernetes.failures import (
    ApiFailure,
    Forbidden,
    Unauthorized,
    failure,
)

if TYPE_CHECKING:
    from websocket import WebSocket

PROGRAM: Final = "clustermesh-relay"
PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ENDED = range(4)
PIECE: Final = 1 << 15
TIMEOUT: Final = 15.0
"""Seconds that a process may take to start in a pod."""


class Unable(Exception):
    """No relay can be had there; the text is a clause that says why."""

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        """``lasting``: nor will it be had, for as long as a command runs."""
        super().__init__(text)
        self.lasting = lasting


class _Outcome(msgspec.Struct, frozen=True):
    """metav1.Status, of a program."""

    status: str = ""
    message: str = ""


class Relay:
    """A program that runs; as much of a socket as ``http.client`` uses."""

    def __init__(self, wire: "WebSocket", program: str) -> None:
        """``wire`` is a connection to the stdin, stdout and stderr of the program."""
        self._wire = wire
        self._program = program
        self._heard = bytearray()
        self._complaint = b""
        self._verdict = b""
        self._readers = 0
        self._unwanted = False

    def settimeout(self, seconds: float) -> None:
        """The longest silence."""
        self._wire.settimeout(seconds)

    def greeted(self) -> None:
        """Wait until a relay is connected. Raises ``Unable``, ``OSError``."""
        while len(self._heard) < len(GREETING):
            piece = self._next()
            if not piece:
                raise self._unable()
            self._heard += piece
        if not self._heard.startswith(GREETING):
            raise Unable(f"{PROGRAM} there is of another release", lasting=True)
        del self._heard[: len(GREETING)]

    def all(self) -> bytes:
        """What it says until it ends well. Raises ``Unable``, ``OSError``."""
        while piece := self._next():
            self._heard += piece
        if self._outcome().status != "Success":
            raise self._unable()
        return bytes(self._heard)

    def sendall(self, data: bytes) -> None:
        """To the process."""
        from websocket import WebSocketException

        try:
            for at in range(0, len(data), PIECE):
                self._wire.send_binary(bytes([STDIN]) + data[at : at + PIECE])
        except WebSocketException as error:
            raise OSError(errno.EPIPE, str(self._unable())) from error

    def makefile(self, *_: object) -> io.BufferedReader:
        """What the process says."""
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def read(self, room: int) -> bytes:
        """At most ``room`` bytes; none at the end."""
        if not self._heard:
            self._heard += self._next()
        piece = bytes(self._heard[:room])
        del self._heard[:room]
        return piece

    def close(self) -> None:
        """End it, when nobody reads any more."""
        self._unwanted = True
        if not self._readers:
            self._wire.shutdown()

    def left(self) -> None:
        """A reader is closed."""
        self._readers -= 1
        if self._unwanted:
            self.close()

    def _next(self) -> bytes:
        """What it says next; empty at its end, and ever after."""
        from websocket import (
            ABNF,
            WebSocketConnectionClosedException,
            WebSocketException,
            WebSocketTimeoutException,
        )

        while not self._verdict:
            try:
                opcode, message = self._wire.recv_data()
            except WebSocketConnectionClosedException:
                break
            except WebSocketTimeoutException:
                raise OSError(errno.ETIMEDOUT, "silent for too long") from None
            except WebSocketException as error:
                raise OSError(errno.EPROTO, str(error)) from error
            if opcode == ABNF.OPCODE_CLOSE:
                break
            if piece := self._sorted(message):
                return piece
        return b""

    def _sorted(self, message: bytes) -> bytes:
        """What of a message the process has said."""
        stream, piece = next(iter(message), STDIN), message[1:]
        if stream == STDERR:
            self._complaint += piece
        elif stream == ENDED:
            self._verdict = piece or b"{}"
        return piece if stream == STDOUT else b""

    def _unable(self) -> Unable:
        """Why it has ended: in its own words, or those of who should have started it."""
        if said := self._complaint.decode(errors="replace").split():
            return Unable(" ".join(said)[:300])
        message = self._outcome().message
        absent = "not found" in message or "no such file" in message.lower()
        if absent and self._program in message:  # a container can be absent, too: it starts again
            why = f"its image has no {self._program}: it is of an older release"
            return Unable(why, lasting=True)
        return Unable(message or "it ended at once")

    def _outcome(self) -> "_Outcome":
        try:
            return msgspec.json.decode(self._verdict, type=_Outcome)
        except msgspec.MsgspecError:
            return _Outcome()


class _Reader(io.RawIOBase):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # the base class's signature
        piece = self._relay.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._relay.left()
        super().close()


class Inside(http.client.HTTPConnection):
    """HTTP to the process behind a relay, which serves the next question, too."""

    auto_open = 0  # no other relay in the middle of a question

    def __init__(self, relay: Relay, idle: "deque[tuple[float, Relay]]", timeout: float) -> None:
        """``idle`` gets the relay back, with the time of the monotonic clock."""
        super().__init__("localhost", timeout=timeout)
        relay.settimeout(timeout)
        self._relay: Relay | None = relay
        self._idle = idle
        self._answer: http.client.HTTPResponse | None = None
        self.sock = relay

    def getresponse(self) -> http.client.HTTPResponse:
        """As the base class."""
        self._answer = super().getresponse()
        return self._answer

    def close(self) -> None:
        """Keep a relay whose answer was read to its end."""
        relay, answer, self._relay = self._relay, self._answer, None
        if relay and answer and answer.isclosed() and not answer.will_close:
            self._idle.append((time.monotonic(), relay))
            self.sock = None
        super().close()


class Container(NamedTuple):
    """Where programs are started."""

    made: Connection
    namespace: str
    pod: str
    name: str


def start(place: Container, socket: str) -> Relay:
    """Have a relay to a unix socket of a container run in it. Raises ``Unable``, ``OSError``."""
    relay = _run(place, (PROGRAM, socket))
    try:
        relay.greeted()
    except (OSError, Unable):
        relay.close()
        raise
    return relay


def output(place: Container, command: Sequence[str]) -> bytes:
    """All that a program says, when it ends well. Raises ``Unable``, ``OSError``."""
    running = _run(place, command)
    try:
        return running.all()
    finally:
        running.close()


def _run(place: Container, command: Sequence[str]) -> Relay:
    words = "".join(f"&command={quote(word, safe='')}" for word in command)
    path = f"/api/v1/namespaces/{place.namespace}/pods/{place.pod}/exec?container={place.name}"
    try:
        wire = _open(place.made, f"{path}{words}&stdin=true&stdout=true&stderr=true")
    except ApiFailure as error:
        raise Unable(str(error), lasting=isinstance(error, Forbidden)) from None
    wire.settimeout(TIMEOUT)
    return Relay(wire, command[0])


def _open(made: Connection, path: str) -> "WebSocket":
    """With credentials that are read again when the server does not take them."""
    opened = made.open(path, TIMEOUT)
    try:
        return _upgraded(opened)
    except (Unauthorized, ssl.SSLError, ConnectionResetError):
        opened.refused()
        other = made.open(path, TIMEOUT)
        if other.access is opened.access:
            raise
        return _upgraded(other)


def _upgraded(opened: Below) -> "WebSocket":
    """Raises ``ApiFailure`` and ``OSError``."""
    from websocket import WebSocket, WebSocketBadStatusException, WebSocketException

    wire = WebSocket(skip_utf8_validation=True)
    try:
        opened.connect()
        wire.connect(
            opened.url.replace("http", "ws", 1),
            socket=opened.sock,
            header=opened.login,
            subprotocols=list(PROTOCOLS),
            suppress_origin=True,
            redirect_limit=0,
        )
    except WebSocketBadStatusException as error:
        opened.close()
        raise failure(error.status_code, error.resp_body or b"") from None
    except WebSocketException as error:
        opened.close()
        raise OSError(errno.EPROTO, str(error)) from error
    except OSError:
        opened.close()
        raise
    return wire
