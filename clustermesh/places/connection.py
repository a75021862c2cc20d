"""One API server, asked as kubeconfig says; what does not work is told in one sentence.

The official package reads the kubeconfig, in a process of its own (``sources.kubernetes.login``).
"""

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from clustermesh.errors import NoAnswer, UsageError
from clustermesh.places.shelf import REHEARSING, Taken
from clustermesh.places.standing import Standing
from clustermesh.sources.kubernetes.access import Access
from clustermesh.sources.kubernetes.failures import (
    ApiFailure,
    Conflict,
    CredentialsError,
    Missing,
    Unauthorized,
    failure,
)
from clustermesh.sources.kubernetes.settings import KubernetesSettings

TIMEOUT: Final = 10.0
REVIEWS: Final = "authorization.k8s.io/v1"
REVIEW: Final = "SelfSubjectAccessReview"

Object = dict[str, Any]


class Connection:
    """A context of a kubeconfig. Objects are plain dictionaries, as the API server has them."""

    def __init__(self, context: str, kubeconfig: str) -> None:
        """Raises ``UsageError`` when there are no credentials."""
        self.context = context
        self._name = f"context {context}" if context else "the current context"
        path = Path(kubeconfig) if kubeconfig else None
        settings = KubernetesSettings(kubeconfig=path, context=context)
        try:
            self._standing = Standing(settings)
            self._server = self._standing.current().server
        except CredentialsError as error:
            raise UsageError(f"{self._name}: {error}.") from None

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._server

    def get(self, path: str) -> Object | None:
        """The object at a path of the API; None when there is none. Raises ``NoAnswer``."""
        try:
            return self._call("GET", path)
        except Missing:
            return None

    def text(self, path: str) -> bytes:
        """What is no object, such as a log. Raises ``NoAnswer``."""
        return self._raw("GET", path)

    def items(self, path: str) -> list[Object]:
        """A list; empty where the API server does not serve the kind. Raises ``NoAnswer``."""
        found = self.get(path)
        return list(found.get("items") or []) if found else []

    def may(self, verb: str, resource: str, part: str, namespace: str) -> bool:
        """Whether we have a right. An API server that does not say so will say it when it is used.

        Raises ``NoAnswer``.
        """
        what = {"verb": verb, "resource": resource, "subresource": part, "namespace": namespace}
        body = {"apiVersion": REVIEWS, "kind": REVIEW, "spec": {"resourceAttributes": what}}
        try:
            found = self._call("POST", f"/apis/{REVIEWS}/{REVIEW.lower()}s", body)
        except Missing:
            return True
        return found.get("status", {}).get("allowed") is not False

    def create(self, path: str, body: Object) -> None:
        """Raises ``Taken`` when it is there already, ``NoAnswer``."""
        self._call("POST", path, body)

    def replace(self, path: str, body: Object) -> None:
        """Raises ``Taken`` when somebody else has changed it since it was read, ``NoAnswer``."""
        self._call("PUT", path, body)

    def delete(self, path: str, version: str) -> None:
        """Only as it was read at ``version``. What is not there is gone."""
        try:
            self._call("DELETE", path, {"preconditions": {"resourceVersion": version}})
        except Missing:
            return

    def open(self, path: str, timeout: float) -> "Below":
        """A connection on which every path is below one of the API server's."""
        try:
            access = self._standing.current()
        except CredentialsError as error:
            raise NoAnswer(f"{self._name}: {error}") from None
        return Below(access, path, timeout, doubt=self._standing.doubt)

    def _call(self, method: str, path: str, body: Object | None = None) -> Object:
        raw = self._raw(method, path, body)
        try:
            found: Object = json.loads(raw)
        except ValueError:
            raise NoAnswer(f"{self._name}: {self.server} gives what is no JSON") from None
        return found

    def _raw(self, method: str, path: str, body: Object | None = None) -> bytes:
        if method != "GET" and REHEARSING.get():
            path += "?dryRun=All"
        opened = self.open("", TIMEOUT)
        try:
            try:
                return opened.ask(method, path, body)
            except (Unauthorized, ssl.SSLError, ConnectionResetError):
                other = self.open("", TIMEOUT)
                if other.access is opened.access:
                    raise
                return other.ask(method, path, body)
        except Missing:
            raise
        except Conflict as error:
            raise Taken(f"{self._name}: {error}.") from None
        except ApiFailure as error:
            raise NoAnswer(f"{self._name}: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            raise NoAnswer(f"{self._name}: {self.server} does not answer ({said})") from None


@cache
def connection(context: str, kubeconfig: str) -> Connection:
    """The one connection of this process for a context."""
    return Connection(context, kubeconfig)


class Below(http.client.HTTPSConnection):
    """HTTP to an API server, logged in by ``access``, with a path before every path.

    ``doubt`` is told of an access that the server does not take, or a server that it cannot be.
    """

    def __init__(
        self, access: Access, base: str, timeout: float, *, doubt: Callable[[Access], None]
    ) -> None:
        parts = urlsplit(access.server)
        self._plain = access.tls is None
        tls = access.tls or ssl.create_default_context()
        super().__init__(parts.hostname or "", parts.port, timeout=timeout, context=tls)
        self._base = f"{parts.path.rstrip('/')}{base}"
        self.url = f"{parts.scheme}://{parts.netloc}{self._base}"
        self.access = access
        self._doubt = doubt

    @property
    def login(self) -> dict[str, str]:
        """Headers that say who we are."""
        return self.access.headers

    def refused(self) -> None:
        """Who speaks more than HTTP here says that the server does not take our access."""
        self._doubt(self.access)

    def connect(self) -> None:
        """Without TLS where the kubeconfig says so, or with the server name that it says."""
        http.client.HTTPConnection.connect(self)
        if not self._plain:
            name = self.access.server_name or self.host
            try:
                self.sock = self._context.wrap_socket(self.sock, server_hostname=name)
            except ssl.SSLError:
                self._doubt(self.access)
                raise

    _context: ssl.SSLContext

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,  # noqa: ANN401  # the base class's signature
        headers: Mapping[str, Any] = {},  # never changed
        *,
        encode_chunked: bool = False,
    ) -> None:
        """As the base class, further down."""
        all_headers = {**self.access.headers, **headers}
        super().request(method, self._base + url, body, all_headers, encode_chunked=encode_chunked)

    def getresponse(self) -> http.client.HTTPResponse:
        """As the base class."""
        try:
            response = super().getresponse()
        except (ssl.SSLError, ConnectionResetError):  # how TLS 1.3 refuses a client certificate
            self._doubt(self.access)
            raise
        if response.status == http.client.UNAUTHORIZED:
            self._doubt(self.access)
        return response

    def ask(self, method: str, path: str, body: Object | None = None) -> bytes:
        """One question and its whole answer, JSON both. Raises ``ApiFailure`` and ``OSError``."""
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self.request(method, path, data, {"Accept": "application/json", **kind})
            response = self.getresponse()
            raw = response.read()
        finally:
            self.close()
        if response.status >= http.client.MULTIPLE_CHOICES:
            raise failure(response.status, raw)
        return raw
