"""Asking a process in a pod: on its own unix socket by ``pods/exec``, else on its TCP port.

``kube:`` URLs name a container of a pod, and what of it can be used: its socket, its port, or both.
"""

import http.client
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from clustermesh.errors import NoAnswer, UsageError
from clustermesh.meshctl.kube import relays
from clustermesh.places.connection import connection

SCHEME: Final = "kube:"
NO_RIGHT: Final = "you have no right to get pods/exec"
KEPT: Final = 3.0
"""Seconds for which a relay waits for another question; the process hangs up after five."""


class Process(NamedTuple):
    """One of a container. ``socket`` is empty where we may not exec, ``port`` where only the pod
    itself reaches it.
    """

    context: str
    kubeconfig: str
    namespace: str
    pod: str
    container: str
    socket: str
    port: str

    @property
    def url(self) -> str:
        return SCHEME + "/".join(quote(part, safe="") for part in self)


def process(url: str) -> Process:
    """What a ``kube:`` URL names. Raises ``UsageError``."""
    parts = [unquote(part) for part in url.removeprefix(SCHEME).split("/")]
    if len(parts) != len(Process._fields):
        raise UsageError(f"{url!r} names no process of a pod: name the cluster's context instead.")
    return Process(*parts)


def spoken(url: str) -> str:
    """It in words."""
    named = process(url)
    return f"pod {named.pod} ({named.container}) of context {named.context or '(current)'}"


def reach(url: str, timeout: float) -> http.client.HTTPConnection:
    """A connection on which the process is asked. Raises ``UsageError``, ``NoAnswer``."""
    return _ways().setdefault(url, _Way(url)).open(timeout)


def run(url: str, command: Sequence[str]) -> bytes:
    """What a program says in the container of a process. Raises ``UsageError``, ``NoAnswer``."""
    to = process(url)
    if not to.socket:
        raise NoAnswer(f"{spoken(url)} cannot be asked: {NO_RIGHT}")
    try:
        return relays.output(_container(to), command)
    except relays.Unable as error:
        raise NoAnswer(f"{spoken(url)} cannot be asked: {error}") from None
    except OSError as error:
        raise NoAnswer(f"{spoken(url)} does not answer ({error.strerror or error})") from error


def _container(to: Process) -> relays.Container:
    made = connection(to.context, to.kubeconfig)
    return relays.Container(made, to.namespace, to.pod, to.container)


def hang_up() -> None:
    """Let every relay end that waits for another question."""
    for way in _ways().values():
        way.close()
    _ways().clear()


class _Way:
    """To one process, remembered for as long as meshctl runs. So is what bars relays for good; all
    else may have passed when it is asked again.
    """

    def __init__(self, url: str) -> None:
        self._to = process(url)
        self._name = spoken(url)
        self._idle: deque[tuple[float, relays.Relay]] = deque()
        self._barred = "" if self._to.socket else NO_RIGHT

    def open(self, timeout: float) -> http.client.HTTPConnection:
        why = self._barred
        if not why:
            try:
                return relays.Inside(self._relay(), self._idle, timeout)
            except relays.Unable as error:
                why = str(error)
                if error.lasting:
                    self._barred = why
            except OSError as error:
                said = error.strerror or error
                raise NoAnswer(f"{self._name} does not answer ({said})") from error
        return self._proxied(timeout, why)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _relay(self) -> relays.Relay:
        """One that has nothing to do, or a new one."""
        with suppress(IndexError):  # several threads may ask
            while True:
                since, relay = self._idle.pop()
                if time.monotonic() - since < KEPT:
                    return relay
                relay.close()
        return relays.start(_container(self._to), self._to.socket)

    def _proxied(self, timeout: float, why: str) -> http.client.HTTPConnection:
        if not self._to.port:
            raise NoAnswer(f"{self._name} cannot be asked: {why}")
        made = connection(self._to.context, self._to.kubeconfig)
        where = f"/api/v1/namespaces/{self._to.namespace}/pods/{self._to.pod}:{self._to.port}"
        return made.open(f"{where}/proxy", timeout)


@cache
def _ways() -> dict[str, _Way]:
    return {}
