"""Why a remote cluster is not connected, tried anew from the node that has to connect to it.

In order: file, client certificate, name, TCP, TLS, etcd's answer, config; the first that fails is
the cause and ends the row. With a connection it goes on: heartbeat, canaries, values, use.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from agent.explain import contents
from agent.facts import Me
from clustermesh import keys
from clustermesh.findings import Diagnosis, Finding, Result
from clustermesh.http import Query, Refused
from clustermesh.keys import Layout, Origin
from clustermesh.model import ClusterConfig
from clustermesh.remotes import directory, handshake, way
from clustermesh.remotes.directory import RemoteFile
from clustermesh.remotes.session import Opener
from clustermesh.status import RemoteStatus
from kvstore.client import Denied, Reader, StoreError
from kvstore.config import ConfigError, EtcdConfig

SOON: Final = timedelta(days=30)
PATIENCE: Final = 5.0
"""Seconds for an etcd to answer one question."""


class Diagnoser:
    """Tries each stage for one remote cluster, beside the connection that there may be."""

    def __init__(
        self,
        me: Me,
        folder: Path,
        *,
        opener: Opener,
        statuses: Callable[[], Sequence[RemoteStatus]],
        held: Callable[[], Mapping[str, str]],
        heartbeat_limit: float,
    ) -> None:
        self._me = me
        self._folder = folder
        self._opener = opener
        self._statuses = statuses
        self._held = held
        self._heartbeat_limit = heartbeat_limit

    async def troubleshoot(self, query: Query) -> list[Diagnosis]:
        """GET /v1/troubleshoot?cluster=NAME; without a name every configured cluster."""
        if unknown := sorted(query.keys() - {"cluster"}):
            raise Refused(400, f"unknown parameter {unknown[0]!r}; known is cluster")
        files, problem = await asyncio.to_thread(directory.scan, self._folder, own=self._me.cluster)
        if problem:
            raise Refused(503, problem)
        wanted = query.get("cluster")
        if wanted and wanted not in files:
            raise Refused(404, f"cluster {wanted!r} is not configured on this node")
        chosen = [file for name, file in sorted(files.items()) if wanted in (None, "", name)]
        return [await self._diagnose(file) for file in chosen]

    async def _diagnose(self, file: RemoteFile) -> Diagnosis:
        return Diagnosis(
            cluster=self._me.cluster,
            node=self._me.node,
            remote=file.cluster,
            findings=tuple([finding async for finding in self._stages(file)]),
        )

    async def _stages(self, file: RemoteFile) -> AsyncIterator[Finding]:
        where = str(file.path)
        if file.config is None:
            yield _failed(
                "FILE_UNREADABLE", where, file.problem, "correct the file, or connect again"
            )
            return
        yield _ok("FILE", where, f"leads to {', '.join(map(str, file.config.endpoints))}")
        found = [*_client_certificate(file.config), *await self._servers(file.config)]
        for finding in found:
            yield finding
        if any(finding.result is Result.FAILED for finding in found):
            return
        async for finding in self._behind(file):
            yield finding

    async def _servers(self, config: EtcdConfig) -> list[Finding]:
        """The way to each address; one that works is enough."""
        try:
            authority = await asyncio.to_thread(_authority, config)
        except OSError as error:
            seen = f"{config.trusted_ca_file} cannot be read: {error.strerror}"
            where = str(config.trusted_ca_file)
            return [_failed("CA_UNREADABLE", where, seen, "connect again: it is written anew")]
        found_ways = [
            await asyncio.to_thread(way.walk, each) for each in way.servers(config, authority)
        ]
        works = any(it[-1].result is Result.OK for it in found_ways)
        found = [finding for it in found_ways for finding in it]
        return [_milder(finding) for finding in found] if works else found

    async def _behind(self, file: RemoteFile) -> AsyncIterator[Finding]:
        """What the etcd itself says, asked over a connection of its own."""
        where = ", ".join(map(str, file.config.endpoints)) if file.config else ""
        try:
            async with asyncio.timeout(PATIENCE), self._opener(_hasty(file)) as store:
                entry = await store.get(keys.cluster_config(file.cluster))
                config = _judged(file.cluster, entry.value if entry else None, self._me)
                yield _ok("CONFIG", where, f"cluster {file.cluster}, id {config.id}")
                async for finding in self._life(store, file.cluster, config):
                    yield finding
        except Denied as error:
            yield _failed("ETCD_DENIED", where, f"etcd answers: {error}", _DENIED_FIX)
        except handshake.Refused as error:
            seen, _, fix = str(error).partition("; ")
            yield _failed("CONFIG_REFUSED", where, seen, fix or _CONFIG_FIX)
        except StoreError as error:
            yield _failed("ETCD_UNAVAILABLE", where, f"etcd fails: {error}", _SICK_FIX)
        except TimeoutError:
            seen = f"etcd accepts the connection, but does not answer within {PATIENCE:g} s"
            yield _failed("ETCD_NO_ANSWER", where, seen, _SICK_FIX)

    async def _life(
        self, store: Reader, cluster: str, config: ClusterConfig
    ) -> AsyncIterator[Finding]:
        status = next((it for it in self._statuses() if it.name == cluster), None)
        beat = await store.get(keys.HEARTBEAT)
        yield self._heartbeat(status, None if beat is None else beat.value)
        layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
        origin = Origin(cluster, config.id, self._me.max_clusters, layout)
        async for finding in contents.findings(
            store, origin, config, beat.value if beat else b"", limit=self._heartbeat_limit
        ):
            yield finding
        if status is not None:
            for finding in self._use(status):
                yield finding

    def _heartbeat(self, status: RemoteStatus | None, value: bytes | None) -> Finding:
        where = keys.HEARTBEAT
        if value is None:
            seen = "its etcd has no heartbeat: nobody keeps its facts"
            return _failed("HEARTBEAT_MISSING", where, seen, "start the peer's apiserver")
        age = status.heartbeat_age if status is not None else None
        if age is not None and age > self._heartbeat_limit:
            seen = f"the heartbeat has not changed for {age:.0f} s: facts may be old"
            return _failed("HEARTBEAT_STALE", where, seen, "start the peer's apiserver again")
        told = "" if age is None else f", changed {age:.0f} s ago"
        return _ok("HEARTBEAT", where, value.decode(errors="replace")[:40] + told)

    def _use(self, status: RemoteStatus) -> Iterator[Finding]:
        """What this agent has made of it."""
        name = status.name
        if status.ready:
            told = f"{status.num_nodes} nodes, {status.num_endpoints} endpoints"
            yield _ok("SYNCED", name, f"{told}, {status.num_shared_services} services")
        else:
            seen = status.status or status.last_failure_reason or "its lists are not complete"
            yield _failed("NOT_SYNCED", name, seen, "wait a minute; then see this agent's log")
        if status.refused_values:
            seen = f"{status.refused_values} values of it were refused; the log names each"
            fix = "mend the objects in the peer, or bring both to the same release"
            yield _warning("VALUES_REFUSED", name, seen, fix)
        if status.held:
            fix = "start the peer's apiserver: they are believed again when it has been heard of"
            yield _warning("DELETIONS_HELD", name, status.held, fix)
        if reason := self._held().get(name):
            fix = "renumber one of the two: `meshctl plan` names what they both claim"
            yield _failed("NOT_USED", name, reason, fix)


_DENIED_FIX: Final = (
    "let the peer's apiserver make the user that the certificate names (its users file;"
    " meshctl connect writes it), and see in its status that it has"
)
_CONFIG_FIX: Final = "bring both clusters to releases that know each other"
_SICK_FIX: Final = "see the health of the peer's etcd: quorum, disk, alarms"


def _judged(cluster: str, value: bytes | None, me: Me) -> ClusterConfig:
    if value is None:
        raise handshake.Refused(
            f"its etcd has no {keys.cluster_config(cluster)}; start its apiserver, or correct the"
            f" name of the client file: it must be the cluster's, which may not be {cluster}"
        )
    return handshake.judge(cluster, value, me)


def _client_certificate(config: EtcdConfig) -> Iterator[Finding]:
    """Dates only: whether the server takes it is seen by trying."""
    if config.cert_file is None:
        return
    where, again = config.cert_file, "issue it anew: meshctl connect does"
    try:
        found = x509.load_pem_x509_certificate(Path(where).read_bytes())
    except OSError as error:
        seen = f"it cannot be read: {error.strerror}"
        yield _failed("CLIENT_CERT_UNREADABLE", where, seen, again)
        return
    except ValueError:
        yield _failed("CLIENT_CERT_UNREADABLE", where, "it is no certificate in PEM", again)
        return
    until, now = found.not_valid_after_utc, datetime.now(UTC)
    told = f"{found.subject.rfc4514_string()}, valid until {until:%Y-%m-%d}"
    if until < now:
        yield _failed("CLIENT_CERT_EXPIRED", where, f"expired: {told}", again)
    elif until - now < SOON:
        yield _warning("CLIENT_CERT_EXPIRES", where, told, again)
    else:
        yield _ok("CLIENT_CERT", where, told)


def _authority(config: EtcdConfig) -> str:
    """The PEM text of whom to trust, empty when nothing is encrypted."""
    if not any(endpoint.secure for endpoint in config.endpoints):
        return ""
    return Path(config.trusted_ca_file or "").read_text(encoding="ascii", errors="replace")


def _hasty(file: RemoteFile) -> EtcdConfig:
    if file.config is None:
        raise ConfigError(file.problem)
    return msgspec.structs.replace(file.config, dial_timeout=PATIENCE, request_timeout=PATIENCE)


def _milder(finding: Finding) -> Finding:
    if finding.result is not Result.FAILED:
        return finding
    return msgspec.structs.replace(finding, result=Result.WARNING)


def _ok(code: str, where: str, seen: str) -> Finding:
    return Finding(code=code, result=Result.OK, where=where, seen=seen)


def _warning(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.WARNING, where=where, seen=seen, fix=fix)


def _failed(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.FAILED, where=where, seen=seen, fix=fix)
