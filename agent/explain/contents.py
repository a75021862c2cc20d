"""What a remote cluster's etcd holds, read once more: canaries, and some values of every kind."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from clustermesh import keys
from clustermesh.checks import BadFact
from clustermesh.findings import Finding, Result
from clustermesh.keys import Kind, Layout, Origin
from clustermesh.model import ClusterConfig, Node
from kvstore.client import Entry, Reader
from kvstore.events import shown

SLICES_ONLY: Final = "endpointslices-only"
WIREGUARD: Final = 255
"""``EncryptionKey`` of a node (contract kvstore 2.2); 1 to 15 are IPsec's."""


async def findings(
    store: Reader, origin: Origin, config: ClusterConfig, beat: bytes, *, limit: float
) -> AsyncIterator[Finding]:
    """``beat`` is the heartbeat's value; ``limit`` the seconds for which it counts."""
    if config.capabilities.synced_canaries:
        yield await _canaries(store, origin.cluster, config, _age(beat), limit)
    read, bad, keyed = 0, [], {}
    for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS, _services(config)):
        for entry in await _first_page(store, keys.prefix(kind, origin.layout, origin.cluster)):
            read += 1
            try:
                fact = keys.decode(kind, origin, entry.key, entry.value)
            except BadFact as error:
                bad.append((shown(entry.key), str(error)))
                continue
            if isinstance(fact, Node) and fact.encryption_key:
                keyed[fact.name] = fact.encryption_key
    yield _values(origin, read, bad)
    if keyed:
        yield _encryption(origin.cluster, keyed)


async def _canaries(
    store: Reader, cluster: str, config: ClusterConfig, age: float, limit: float
) -> Finding:
    layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
    where = keys.canaries_prefix(cluster)
    missing = [
        str(kind)
        for kind in (Kind.NODES, Kind.IDENTITIES, Kind.IPS, _services(config))
        if await store.get(keys.canary(kind, layout, cluster)) is None
    ]
    if missing:
        seen = f"the peer has not finished its first list of {', '.join(missing)}"
        return _failed("CANARY_MISSING", where, seen, "see the status of the peer's apiserver")
    if age > limit:
        seen = (
            "the first full lists are said to be there by a control plane whose last heartbeat is"
            f" {age:.0f} s old by this node's clock"
        )
        fix = "start the peer's apiserver again; if it runs, compare the clocks"
        return _failed("CANARY_STALE", where, seen, fix)
    return _ok("CANARIES", where, "the peer has published its first full lists")


def _services(config: ClusterConfig) -> Kind:
    slices = config.capabilities.endpoint_slices_export_mode == SLICES_ONLY
    return Kind.ENDPOINT_SLICES if slices else Kind.SERVICES


async def _first_page(store: Reader, prefix: str) -> list[Entry]:
    async with aclosing(store.pages(prefix)) as pages:  # type: ignore[type-var]  # all are generators
        async for page in pages:
            return list(page.entries)
    return []


def _values(origin: Origin, read: int, bad: list[tuple[str, str]]) -> Finding:
    if not bad:
        where = f"cilium/{origin.layout}/"
        return _ok("VALUES", where, f"{read} values read again, each as it should be")
    (key, reason), more = bad[0], len(bad) - 1
    seen = f"{reason}" + (f" (and {more} more values)" if more else "")
    fix = "have the peer's apiserver write it anew: wipe that etcd, or bring both to one release"
    return _failed("VALUE_CORRUPT", key, seen, fix)


def _encryption(cluster: str, keyed: dict[str, int]) -> Finding:
    names = ", ".join(sorted(keyed)[:3]) + (" ..." if len(keyed) > 3 else "")
    kinds = {"WireGuard" if key == WIREGUARD else "IPsec" for key in keyed.values()}
    seen = (
        f"{len(keyed)} of its nodes ({names}) announce {' and '.join(sorted(kinds))}, which this"
        " mesh does not speak: packets between them and us are lost or refused"
    )
    fix = "turn node encryption off in that cluster (Cilium: encryption.enabled=false)"
    return _failed("ENCRYPTION", cluster, seen, fix)


def _age(beat: bytes) -> float:
    """Seconds since the time that a heartbeat names; 0 when it names none."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(beat.decode())).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _ok(code: str, where: str, seen: str) -> Finding:
    return Finding(code=code, result=Result.OK, where=where, seen=seen)


def _failed(code: str, where: str, seen: str, fix: str) -> Finding:
    return Finding(code=code, result=Result.FAILED, where=where, seen=seen, fix=fix)
