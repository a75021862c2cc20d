"""Who we are to an API server, for as long as a process lives: read again where it may change.

The join listener of an apiserver that runs outside of a pod lives for months; its kubeconfig's
tokens, client certificates and CA do not.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from clustermesh.sources.kubernetes.access import (
    RENEW_EARLY,
    Access,
    Login,
    access_of,
    authorization_in,
    log_in,
)
from clustermesh.sources.kubernetes.failures import CredentialsError
from clustermesh.sources.kubernetes.settings import KubernetesSettings

PAUSE: Final = 10.0
"""Seconds to the next reading after one that brought nothing better: each is a process."""


class Standing:
    """The present access. Threads may share it: one renews, the others wait for that.

    A token file is read at every use; all else before it ends, and when the server does not take
    it any more.
    """

    def __init__(
        self, settings: KubernetesSettings, *, now: Callable[[], float] = time.time
    ) -> None:
        """``now`` gives Unix seconds. Raises ``CredentialsError``."""
        self._settings = settings
        self._now = now
        self._one_at_a_time = threading.Lock()
        self._login = self._read()
        self._access = access_of(self._login)
        self._doubted: Access | None = None
        self._not_before = 0.0

    def current(self) -> Access:
        """What to use now. Raises ``CredentialsError``."""
        with self._one_at_a_time:
            if self._ends_soon or self._doubted is self._access:
                self._renew()
            if self._login.token_file:
                self._take_token()
            return self._access

    def doubt(self, access: Access) -> None:
        """The server does not take it, or is not who it should be: read again before the next use,
        unless that has happened meanwhile.
        """
        self._doubted = access

    @property
    def _ends_soon(self) -> bool:
        return 0.0 < self._login.expires <= self._now() + RENEW_EARLY

    def _renew(self) -> None:
        """Until it has ended, what is held is better than nothing."""
        if self._now() < self._not_before:
            return
        before = self._login
        try:
            self._hold(self._read())
        except CredentialsError:
            if self._doubted is self._access or self._login.expires <= self._now():
                raise
        finally:
            if self._login is before or self._ends_soon:
                self._not_before = self._now() + PAUSE

    def _take_token(self) -> None:
        """A pod's is replaced every hour. While the file is away the old one goes on."""
        authorization = authorization_in(self._login.token_file)
        if authorization and authorization != self._access.headers.get("Authorization"):
            headers = {**self._access.headers, "Authorization": authorization}
            self._access = msgspec.structs.replace(self._access, headers=headers)

    def _hold(self, login: Login) -> None:
        if login != self._login:
            self._access, self._login = access_of(login), login

    def _read(self) -> Login:
        return asyncio.run(log_in(self._settings))
