"""The first contact with a cluster that invites: nothing is sent before it is known who answers.

First its authorities are asked for, of whoever answers, and the one that the token names by its
hash is picked out. Then a new connection is made that trusts that one alone, for a name that only
the join listener of this cluster has a certificate for. A stranger in between fails one of the two.
"""

import http.client
import json
import socket
import ssl
import threading
from contextlib import suppress
from typing import Self

import msgspec
from cryptography import x509

from clustermesh.certificates import CertificateError, parsed, pem_of
from clustermesh.trust.listener import server_name
from clustermesh.trust.messages import LONGEST, Envelope, JoinError, Sealed, pinned
from clustermesh.trust.token import Token

PATIENCE = 15.0  # seconds for one question and its whole answer


class Unreached(Exception):
    """Nobody answers; the text is a sentence."""


class Refusal(JoinError):
    """The join listener answers, and says no."""


class Foreign(JoinError):
    """Somebody answers who is no join listener; the text begins with the address."""


class Contact:
    """The host at the first of a token's addresses that answers."""

    def __init__(self, token: Token, *, patience: float = PATIENCE) -> None:
        self._token = token
        self._patience = patience
        self._address = ""
        self.root: x509.Certificate | None = None

    def meet(self) -> x509.Certificate:
        """The authority that the token names. Raises ``Unreached`` and ``JoinError``."""
        why = []
        for address in self._token.addresses:
            anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            anybody.check_hostname = False
            anybody.verify_mode = ssl.CERT_NONE  # what comes is compared with the token's hash
            try:
                bundle = self._ask(address, anybody, "GET", "/v1/trust", b"")
                _certificates(address, bundle)
            except (Unreached, Foreign) as error:
                why.append(str(error))
                continue
            except Refusal as error:
                why.append(f"{address}: {error}")
                continue
            root = pinned(bundle, self._token.ca)
            if root is None:
                raise JoinError(
                    f"{address} shows another authority than the token names: somebody is in"
                    " between, or the host has a new authority since; nothing was sent to it"
                )
            self._address, self.root = address, root
            return root
        raise Unreached(
            "; ".join(why)
            or "the token names no address: the host was started without --join-listen"
        )

    def join(self, envelope: Envelope) -> Sealed:
        """Send the request. Raises ``Unreached`` and ``JoinError``."""
        try:
            return msgspec.json.decode(self._send("/v1/join", envelope), type=Sealed)
        except msgspec.MsgspecError:
            raise JoinError(f"{self._address} gives an answer that is none") from None

    def finish(self, envelope: Envelope) -> None:
        self._send("/v1/join/finish", envelope)

    def _send(self, path: str, envelope: Envelope) -> bytes:
        if self.root is None:
            raise JoinError("nothing is sent to somebody unknown")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_verify_locations(cadata=pem_of(self.root).decode())
        return self._ask(self._address, tls, "POST", path, msgspec.json.encode(envelope))

    def _ask(self, address: str, tls: ssl.SSLContext, method: str, path: str, body: bytes) -> bytes:
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal():
            raise JoinError(f"the token names the address {address!r}, which is no host:port")
        connection = http.client.HTTPConnection(host, int(port))
        limit = _Limit(self._patience)
        try:
            plain = socket.create_connection((host, int(port)), timeout=self._patience)
            with limit.on(plain):
                name = server_name(self._token.host)
                connection.sock = tls.wrap_socket(plain, server_hostname=name)
                connection.request(method, path, body or None)
                response = connection.getresponse()
                content = response.read(2 * LONGEST)
                limit.check()  # half an answer can look like a whole one
        except ssl.SSLCertVerificationError as error:
            raise JoinError(
                f"{address} does not prove to be {self._token.host} ({error.verify_message}):"
                " somebody is in between; nothing was sent to it"
            ) from None
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            if limit.over or isinstance(error, TimeoutError):
                why = f"not in {self._patience:g} s"
                raise Unreached(f"{address} does not answer ({why})") from None
            if (what := _foreign(error)) is not None:
                raise Foreign(_no_listener(address, what)) from None
            raise Unreached(f"{address} does not answer ({_silence(error)})") from None
        finally:
            connection.close()
        if response.status == http.client.OK:
            return content
        if (reason := _reason(content)) is None:
            what = f"answers with the HTTP status {response.status}"
            raise Foreign(_no_listener(address, what))
        raise Refusal(f"{self._token.host} refuses: {reason}")


class _Limit:
    """Ends a connection after so many seconds, however much of an answer trickles in."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def on(self, plain: socket.socket) -> Self:
        """The socket may be wrapped and closed meanwhile: what counts is the connection."""
        self._held = plain.dup()
        return self

    def check(self) -> None:
        """Raises ``TimeoutError`` when the time is over."""
        if self.over:
            raise TimeoutError

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._held.close()

    def _end(self) -> None:
        self.over = True
        with suppress(OSError):
            self._held.shutdown(socket.SHUT_RDWR)


def _reason(content: bytes) -> str | None:
    """What a join listener says with a refusal; None: it is not one that speaks."""
    try:
        return str(json.loads(content)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return None


def _certificates(address: str, bundle: bytes) -> None:
    """Raises ``Foreign`` unless authorities are what came."""
    try:
        parsed(bundle, "it")
    except CertificateError:
        raise Foreign(_no_listener(address, "gives what is no certificate")) from None


def _silence(error: Exception) -> str:
    if isinstance(error, ConnectionResetError | ssl.SSLEOFError):
        return "it ends the connection: it is busy, or an etcd, which wants a client certificate"
    return str(getattr(error, "strerror", None) or error)


def _foreign(error: Exception) -> str | None:
    """What shows that somebody else answers there; None: nobody does."""
    if isinstance(error, http.client.RemoteDisconnected):
        return None  # ours does so when too many ask at once: ``_silence``
    if isinstance(error, http.client.HTTPException):
        return "gives an answer that is no HTTP"
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return None
    reason = str(error.reason or "").replace("_", " ").lower()
    if "certificate" in reason:
        return "asks for a client certificate, as an etcd does"
    return f"does not speak TLS as it should ({reason or 'it breaks the handshake'})"


def _no_listener(address: str, what: str) -> str:
    return (
        f"{address} {what}: that is no join listener, but another server or a proxy on the way;"
        " run meshctl where this address leads to the host's clustermesh-apiserver itself, or get"
        " a token with the listener's address (its --join-address)"
    )
