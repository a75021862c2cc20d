"""Who we are to the API server: had from kubeconfig or the pod, renewed before and when refused."""

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from clustermesh.sources.kubernetes.failures import CredentialsError
from clustermesh.sources.kubernetes.settings import KubernetesSettings

RENEW_EARLY = 60.0
"""Seconds before a credential's end at which it is renewed."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """What ``clustermesh.sources.kubernetes.login`` prints. Certificates and keys are PEM."""

    server: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    authorization: str = ""
    token_file: str = ""
    expires: float = 0.0
    """Unix seconds; 0: not known."""
    verify: bool = True
    server_name: str = ""

    def __repr__(self) -> str:
        """Secrets stay out of logs."""
        return f"Login({self.server})"


class Access(msgspec.Struct, frozen=True):
    """A login made ready for requests."""

    server: str
    headers: dict[str, str]
    tls: ssl.SSLContext | None
    server_name: str | None

    def __repr__(self) -> str:
        """Secrets stay out of logs."""
        return f"Access({self.server})"


class Credentials:
    """The present access; owned by one Api."""

    def __init__(
        self, settings: KubernetesSettings, *, now: Callable[[], float] = time.time
    ) -> None:
        """``now`` gives Unix seconds."""
        self._settings = settings
        self._now = now
        self._held: tuple[Login, Access] | None = None
        self._reread_at = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def current(self) -> Access:
        """What to use now. Raises ``CredentialsError``."""
        async with self._one_at_a_time:
            if self._held is None:
                return await self._log_in()
            login, access = self._held
            if login.expires and self._now() >= login.expires - RENEW_EARLY:
                return await self._renew_early(login, access)
            if login.token_file and self._now() >= self._reread_at:
                return self._reread(login, access)
            return access

    async def refused(self, access: Access) -> None:
        """The server did not accept ``access``: get another, unless that has happened already.

        Raises ``CredentialsError``.
        """
        async with self._one_at_a_time:
            if self._held is None or self._held[1] is not access:
                return
            login, _ = self._held
            if not login.token_file or self._reread(login, access) is access:
                await self._log_in()

    async def _log_in(self) -> Access:
        login = await log_in(self._settings)
        access = await asyncio.to_thread(access_of, login)
        return self._hold(login, access)

    async def _renew_early(self, login: Login, access: Access) -> Access:
        try:
            return await self._log_in()
        except CredentialsError:
            if self._now() >= login.expires:
                raise
            return access

    def _reread(self, login: Login, access: Access) -> Access:
        """Take the token out of its file; the same access when it has not changed."""
        self._reread_at = self._now() + self._settings.token_reread
        authorization = authorization_in(login.token_file)
        if not authorization or authorization == access.headers.get("Authorization"):
            return access
        headers = {**access.headers, "Authorization": authorization}
        return self._hold(login, msgspec.structs.replace(access, headers=headers))

    def _hold(self, login: Login, access: Access) -> Access:
        self._held = (login, access)
        self._reread_at = self._now() + self._settings.token_reread
        return access


def authorization_in(token_file: str) -> str:
    """The header that a token's file makes; empty where it holds none, or is away."""
    try:
        token = Path(token_file).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f"Bearer {token}" if token and _is_header(token) else ""


def _is_header(text: str) -> bool:
    """Any other is refused by ``http.client`` with the whole text, which may be a secret."""
    return text.isascii() and text.isprintable()


def access_of(login: Login) -> Access:
    """Headers and a TLS context. Raises ``CredentialsError`` for what cannot be used."""
    if not _is_header(login.authorization):
        raise CredentialsError(f"the token for {login.server} is not one line of ASCII")
    headers = {"Authorization": login.authorization} if login.authorization else {}
    if not login.server.startswith("https:"):
        return Access(login.server, headers, None, None)
    try:
        context = ssl.create_default_context(cadata=login.ca or None)
        if not login.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if login.certificate:
            _present(context, login.certificate, login.key)
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsError(
            f"the certificates for {login.server} are unusable: {error}"
        ) from None
    return Access(login.server, headers, context, login.server_name or None)


def _present(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Use a client certificate; OpenSSL wants a file, which here never reaches a disk."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(f"{certificate}\n{key}\n".encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


async def log_in(settings: KubernetesSettings) -> Login:
    """Ask kubeconfig (contexts, plugins) or the pod, in a process of its own.

    The official package stays out of our memory, and a plugin that hangs can be ended.
    Raises ``CredentialsError``.
    """
    arguments = ["--context", settings.context] if settings.context else []
    if settings.kubeconfig is not None:
        arguments += ["--kubeconfig", str(settings.kubeconfig)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "clustermesh.sources.kubernetes.login", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(settings.login_timeout):
            answer, complaint = await process.communicate()
    except TimeoutError:
        raise CredentialsError(
            f"the kubeconfig's credentials plugin gave no answer in {settings.login_timeout:g} s"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise CredentialsError(_sentence(complaint))
    return msgspec.json.decode(answer, type=Login)


def _sentence(complaint: bytes) -> str:
    lines = complaint.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no credentials for the Kubernetes API: no reason given"
