"""One of several replicas at a time: a coordination.k8s.io Lease, renewed while it is held."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from clustermesh.sources.kubernetes.failures import ApiFailure, Conflict, Missing
from clustermesh.sources.kubernetes.request import Request, Sends

_PATH = "/apis/coordination.k8s.io/v1/namespaces"


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. A holder that is silent for ``duration`` has lost it."""

    namespace: str
    holder: str
    name: str = "clustermesh-identities"
    duration: float = 15.0
    renew: float = 4.0

    @property
    def path(self) -> str:
        """Of the object."""
        return f"{_PATH}/{self.namespace}/leases/{self.name}"


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Found(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()


_found = msgspec.json.Decoder(_Found)


class Lease:
    """Whether we are the one. Clocks of different hosts are never compared."""

    def __init__(
        self,
        api: Sends,
        settings: LeaseSettings,
        report: Callable[[str | None], None] = lambda _said: None,
    ) -> None:
        """``report`` is told a sentence when nobody can be asked, None when that is over."""
        self._api = api
        self._settings = settings
        self._report = report
        self._until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        """Version of somebody else's lease, and when it was first seen."""
        self.taken = asyncio.Event()
        """Set whenever the lease was taken or renewed; clear it to wait for the next time."""

    @property
    def held(self) -> bool:
        """We have it, with time to spare for a write."""
        return asyncio.get_running_loop().time() < self._until

    async def run(self) -> None:
        """Take it when it is free, renew it while it is ours, let it go in the end."""
        try:
            while True:
                try:
                    await self._try()
                    self._report(None)
                except Conflict:
                    self._until = 0.0  # somebody was faster
                except ApiFailure as failure:
                    self._report(f"the lease {self._settings.name} cannot be had: {failure}")
                await asyncio.sleep(self._settings.renew)
        finally:
            if self.held:
                await self._let_go()

    async def _try(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            found = _found.decode(await self._api.send(Request("GET", self._settings.path)))
        except Missing:
            await self._write("POST", self._settings.path.rpartition("/")[0], _Found(), takes=True)
        else:
            ours = found.spec.holder_identity == self._settings.holder
            if not ours and not self._is_free(found, began):
                self._until = 0.0
                return
            await self._write("PUT", self._settings.path, found, takes=not ours)
        self._until = began + self._settings.duration * 2 / 3
        self.taken.set()

    def _is_free(self, found: _Found, now: float) -> bool:
        """Nobody holds it, or its holder has been silent for as long as it promised to speak."""
        if not found.spec.holder_identity:
            return True
        version, since = self._seen
        if version != found.metadata.resource_version:
            self._seen = (found.metadata.resource_version, now)
            return False
        return now - since > (found.spec.lease_duration_seconds or self._settings.duration)

    async def _write(self, method: str, path: str, found: _Found, *, takes: bool) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, object] = {
            "holderIdentity": self._settings.holder,
            "leaseDurationSeconds": int(self._settings.duration),
            "renewTime": now,
            "leaseTransitions": (found.spec.lease_transitions or 0) + takes,
        }
        if takes:
            spec["acquireTime"] = now
        await self._put(method, path, found, spec)

    async def _put(self, method: str, path: str, found: _Found, spec: dict[str, object]) -> None:
        meta = {"name": self._settings.name, "namespace": self._settings.namespace}
        if found.metadata.resource_version:
            meta["resourceVersion"] = found.metadata.resource_version
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": spec,
        }
        await self._api.send(Request(method, path, body=json.dumps(body).encode()))

    async def _let_go(self) -> None:
        """So that the next one need not wait; not worth more than a moment."""
        self._until = 0.0
        with contextlib.suppress(ApiFailure, TimeoutError):
            async with asyncio.timeout(self._settings.renew / 2):
                found = _found.decode(await self._api.send(Request("GET", self._settings.path)))
                if found.spec.holder_identity == self._settings.holder:
                    transitions = found.spec.lease_transitions or 0
                    spec = {"holderIdentity": "", "leaseTransitions": transitions}
                    await self._put("PUT", self._settings.path, found, spec)
