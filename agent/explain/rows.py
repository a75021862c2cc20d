"""Which rows of docs/services.md apply to a frontend, in the words of that page. [pure]"""

from collections.abc import Iterable, Sequence
from typing import Final

from agent.services import merge
from agent.services.merge import Backend, Verdict
from agent.services.offers import Condition
from clustermesh.explanation import Row

AFFINITY: Final = "3. Affinity"
PRESENCE: Final = "5. When a frontend is in the maps"

_OUT_BEFORE_AFFINITY: Final = frozenset(
    {merge.NOT_READY, merge.NOT_HERE, merge.DRAINED, merge.NO_TIER, merge.UNREACHABLE}
)

NOT_SERVED: Final = Row(
    section=PRESENCE,
    condition="not global, without --kube-proxy-replacement",
    result="passes untouched to what served it before",
)
HAS_BACKEND: Final = Row(
    section=PRESENCE, condition="it has a backend that can be used", result="goes there"
)
HAS_NONE: Final = Row(
    section=PRESENCE,
    condition="it has none, and every cluster has told its services",
    result="refused at once (EHOSTUNREACH)",
)
HAS_NONE_YET: Final = Row(
    section=PRESENCE,
    condition="it has none yet: somebody has not told its services",
    result="passes untouched, or as before",
)


def presence(*, served: bool, usable: bool, everybody_told: bool) -> Row:
    """Whether a frontend is in the maps, and what becomes of a new connection."""
    if not served:
        return NOT_SERVED
    if usable:
        return HAS_BACKEND
    return HAS_NONE if everybody_told else HAS_NONE_YET


def affinity(kind: str, verdicts: Sequence[Verdict]) -> Row | None:
    """The side that is used; None when nobody is left to choose a side of."""
    running = [v.backend for v in verdicts if v.why not in _OUT_BEFORE_AFFINITY]
    ours = [backend for backend in running if backend.local]
    others = [backend for backend in running if not backend.local]
    if kind == "none":
        return _row("none | any | any", "both sides")
    if kind == "remote":
        return _remote(others)
    if kind != "local":
        return None
    if _any_active(ours):
        return _row("local | at least one ready | any", "local")
    if others:
        condition = "local | none ready (terminating ones do not count) | at least one"
        return _row(condition, "remote")
    return _row("local | only terminating | none", "the terminating ones") if ours else None


def _remote(others: Sequence[Backend]) -> Row:
    if others:
        return _row("remote | any | at least one", "remote")
    return _row("remote | any | none", "local")


def _any_active(backends: Iterable[Backend]) -> bool:
    return any(backend.condition is Condition.ACTIVE for backend in backends)


def _row(condition: str, result: str) -> Row:
    return Row(section=AFFINITY, condition=condition, result=result)
