"""Where a remote cluster's keys come from and where their copies go (contract kvstore 1.2)."""

from collections.abc import Mapping
from typing import Final

import msgspec

from clustermesh import keys, propagation
from clustermesh.checks import BadFact
from clustermesh.keys import Kind, Layout
from clustermesh.model import ClusterConfig

SLICES_ONLY: Final = "endpointslices-only"
SIGNS: Final = ("cilium/cluster-config/", "cilium/synced/")
"""Prefixes of the keys that speak for others."""
DRAIN_ORDER: Final = (
    Kind.IPS,
    Kind.IDENTITIES,
    Kind.NODES,
    Kind.SERVICE_EXPORTS,
    Kind.SERVICES,
    Kind.ENDPOINT_SLICES,
)
"""In which order the copies of a removed cluster go (contract kvstore 5.5)."""
SERVICE_KINDS: Final = frozenset({Kind.SERVICES, Kind.SERVICE_EXPORTS, Kind.ENDPOINT_SLICES})
"""What a cluster that stays away too long takes along (contract kvstore 5.5)."""


class Route(msgspec.Struct, frozen=True):
    """One kind of a cluster: from prefix ``source`` to prefix ``target``, both with their slash.

    ``awaited`` is the canary that the source writes, empty when it writes none.
    """

    kind: Kind
    source: str
    target: str
    awaited: str


def routes(cluster: str, config: ClusterConfig) -> tuple[Route, ...]:
    """What is copied of a cluster that says this of itself (contract kvstore 2.7 and 4)."""
    capabilities = config.capabilities
    layout = Layout.CACHE if capabilities.cached else Layout.STATE
    return tuple(
        Route(
            kind,
            keys.prefix(kind, layout, cluster),
            keys.prefix(kind, Layout.CACHE, cluster),
            keys.canary(kind, layout, cluster) if capabilities.synced_canaries else "",
        )
        for kind in kinds(config)
    )


def kinds(config: ClusterConfig) -> tuple[Kind, ...]:
    """The kinds that a cluster publishes."""
    mode = config.capabilities.endpoint_slices_export_mode
    found = [Kind.NODES, Kind.IDENTITIES, Kind.IPS]
    if mode != SLICES_ONLY:
        found.append(Kind.SERVICES)
    if mode:
        found.append(Kind.ENDPOINT_SLICES)
    if config.capabilities.service_exports_enabled is not None:
        found.append(Kind.SERVICE_EXPORTS)
    return tuple(found)


def probe(cluster: str, config: ClusterConfig) -> tuple[str, str]:
    """From which prefix to which key the cluster's propagation probe goes."""
    layout = Layout.CACHE if config.capabilities.cached else Layout.STATE
    return propagation.prefix(layout, cluster), propagation.key(Layout.CACHE, cluster)


def target(cluster: str, kind: Kind) -> str:
    """The prefix of the copies of a kind."""
    return keys.prefix(kind, Layout.CACHE, cluster)


def canary(cluster: str, kind: Kind) -> str:
    """The key that says that the copy of a kind is complete."""
    return keys.canary(kind, Layout.CACHE, cluster)


def owned(cluster: str) -> tuple[str, ...]:
    """Every prefix that belongs to the copy of one cluster, canaries first, in drain order."""
    copies = (target(cluster, kind) for kind in DRAIN_ORDER)
    return (keys.canaries_prefix(cluster), *copies, propagation.prefix(Layout.CACHE, cluster))


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TRUE: Final = msgspec.Raw(b"true")
_FORCED: Final = {"syncedCanaries": _TRUE, "cached": _TRUE}
_CAPABILITIES: Final = "capabilities"
_NULL: Final = b"null"


def announced(value: bytes) -> bytes:
    """A cluster's config as its copy says it: cached, with canaries, and otherwise untouched.

    Members that this release does not know keep their bytes (contract kvstore, trap 42). Names are
    compared as Go does it, without regard to case. Raises ``BadFact``.
    """
    try:
        members = _members.decode(value)
        config: dict[str, object] = {}
        capabilities: Mapping[str, msgspec.Raw] = {}
        for name, content in members.items():
            if name.lower() == _CAPABILITIES:
                capabilities = _members.decode(content) if bytes(content) != _NULL else {}
            else:
                config[name] = content
    except msgspec.MsgspecError as error:
        raise BadFact(str(error)) from None
    forced = {name.lower() for name in _FORCED}
    rest = {name: it for name, it in capabilities.items() if name.lower() not in forced}
    return msgspec.json.encode({**config, _CAPABILITIES: {**_FORCED, **rest}})


def copied_clusters(signs: Mapping[str, bytes]) -> frozenset[str]:
    """The clusters of which there is a copy, from the keys under ``SIGNS``.

    Configs that are not marked as cached belong to the own cluster or to somebody's mistake.
    """
    configs, canaries = SIGNS
    found = set()
    for key, value in signs.items():
        if key.startswith(configs):
            if _is_cached(value):
                found.add(key.removeprefix(configs))
        else:
            name, _, rest = key.removeprefix(canaries).partition("/")
            if rest.startswith(f"cilium/{Layout.CACHE}/"):
                found.add(name)
    return frozenset(found)


def _is_cached(config: bytes) -> bool:
    try:
        return keys.decode_config(config).capabilities.cached
    except BadFact:
        return False
