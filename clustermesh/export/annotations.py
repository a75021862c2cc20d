"""What annotations say, under their present and their older names (contract kvstore 6.1)."""

import difflib
from collections.abc import Iterator, Mapping

from clustermesh.local import ANNOTATIONS
from clustermesh.sources.objects import Meta, Namespace

GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
SHARED = ("service.cilium.io/shared", "io.cilium/shared-service")
AFFINITY = ("service.cilium.io/affinity", "io.cilium/service-affinity")
WIREGUARD = ("network.cilium.io/wg-pub-key", "io.cilium.network.wg-pub-key")
NAMESPACE_GLOBAL = "clustermesh.cilium.io/global"

POLICIES = ("weights", "failover", "min-local")
"""Annotations of our own, after ``service.clustermesh.io/``."""


def first(annotations: Mapping[str, str] | None, names: tuple[str, ...]) -> str | None:
    """The value under the first of the names that is present, even if it is empty."""
    found = annotations or {}
    return next((found[name] for name in names if name in found), None)


def is_global(meta: Meta) -> bool:
    """Whether a service includes remote backends."""
    return _true(first(meta.annotations, GLOBAL))


def is_shared(meta: Meta) -> bool:
    """Whether a service's backends are for other clusters; only a global service's ever are."""
    if not is_global(meta):
        return False
    shared = first(meta.annotations, SHARED)
    return shared is None or _true(shared)


def affinity(meta: Meta) -> str:
    """``none``, ``local`` or ``remote``; an unknown word means none."""
    word = (first(meta.annotations, AFFINITY) or "").lower() if is_global(meta) else ""
    return word if word in ("local", "remote") else "none"


def exports(namespace: Namespace | None, *, default: bool) -> bool:
    """Whether a namespace's objects are published; one not known yet follows the default."""
    annotations = namespace.metadata.annotations if namespace else None
    value = (annotations or {}).get(NAMESPACE_GLOBAL)
    return default if value is None else _true(value)


def policies(meta: Meta) -> dict[str, str]:
    """Our own annotations, whole: agents judge their values."""
    return {
        key: value for key, value in (meta.annotations or {}).items() if key.startswith(ANNOTATIONS)
    }


def mistakes(meta: Meta) -> Iterator[str]:
    """What is wrong with a service's annotations, one sentence each."""
    word = first(meta.annotations, AFFINITY)
    if word is not None and word.lower() not in ("", "none", "local", "remote"):
        yield f"{AFFINITY[0]}: {word!r}, expected local, remote or none; none is used"
    for key in policies(meta):
        name = key.removeprefix(ANNOTATIONS)
        if name not in POLICIES:
            near = difflib.get_close_matches(name, POLICIES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(POLICIES)}"
            yield f"{key}: unknown annotation; {hint}"


def _true(value: str | None) -> bool:
    return value is not None and value.lower() == "true"
