"""An explanation as a person reads it: wishes first, then who answers, then the maps. [pure]"""

from collections.abc import Iterator, Sequence

import msgspec

from clustermesh.explanation import Candidate, Explanation, FrontendStory, Teller
from clustermesh.meshctl.output import columns, duration

PAGE = "docs/services.md"


def render(service: str, everybody: Sequence[Explanation], views: Sequence[Explanation]) -> str:
    """``everybody`` tells the clusters' wishes, ``views`` are shown; equal ones once."""
    parts = [f"{service}: what each cluster wants\n{_wishes(everybody)}"]
    for view, like in folded(views):
        parts.append("\n".join(_view(view, like, everybody)))
    return "\n\n".join(parts)


def folded(views: Sequence[Explanation]) -> list[tuple[Explanation, list[str]]]:
    """Each view that says something new, with the names of the nodes that say the same."""
    found: dict[bytes, tuple[Explanation, list[str]]] = {}
    for view in views:
        first = found.setdefault(_gist(view), (view, []))
        if first[0] is not view:
            first[1].append(f"{view.cluster}/{view.node}")
    return list(found.values())


def _gist(view: Explanation) -> bytes:
    """What two nodes of a cluster must agree on: not their ids, slots and ages."""
    stories = tuple(
        msgspec.structs.replace(
            story,
            held=None if story.held is None else msgspec.structs.replace(story.held, id=0),
            candidates=tuple(
                msgspec.structs.replace(one, id=0, slot=0) for one in story.candidates
            ),
        )
        for story in view.frontends
    )
    tellers = tuple(
        msgspec.structs.replace(one, fact_age=None, newest_fact_age=None, heartbeat_age=None)
        for one in view.tellers
    )
    return msgspec.json.encode(
        msgspec.structs.replace(view, node="", frontends=stories, tellers=tellers)
    )


def _wishes(everybody: Sequence[Explanation]) -> str:
    header = ("CLUSTER", "GLOBAL", "SHARED", "AFFINITY", "ENDPOINTS", "OUR ANNOTATIONS")
    first = {found.cluster: found for found in reversed(everybody)}
    rows = []
    for name, found in sorted(first.items()):
        if not found.found:
            rows.append((name, "absent", "", "", "", ""))
            continue
        own = next((teller for teller in found.tellers if teller.own), None)
        endpoints = str(own.endpoints) if own else "?"
        shared = _yes(found.shared) if found.is_global else "-"
        told = _annotations(found)
        rows.append((name, _yes(found.is_global), shared, found.affinity, endpoints, told))
    return columns(header, rows)


def _annotations(found: Explanation) -> str:
    pairs = sorted(found.annotations.items())
    return "; ".join(f"{key.partition('/')[2]}: {value}" for key, value in pairs) or "-"


def _view(
    view: Explanation, like: Sequence[str], everybody: Sequence[Explanation]
) -> Iterator[str]:
    also = f" (the same on {', '.join(like)})" if like else ""
    yield f"As {view.cluster}/{view.node} has it{also}"
    if not view.found:
        yield "  there is no such service in this cluster: nothing is done for it"
        return
    yield from _said(view)
    wishes = {found.cluster: found for found in everybody}
    yield ""
    header = ("CLUSTER", "OFFERS", "CHANGED", "NEWEST FACT", "HEARTBEAT", f"CANDIDATES ({PAGE}, 1)")
    told = columns(header, [_teller(view, one, wishes.get(one.cluster)) for one in view.tellers])
    yield from _indented(told)
    if view.headless:
        yield "  headless: not in the maps"
    for story in view.frontends:
        yield ""
        yield from _indented("\n".join(_story(story)))


def _said(view: Explanation) -> Iterator[str]:
    if view.refused:
        yield f"  REFUSED: {view.refused}; the last good policy stays"
    if view.trouble:
        yield f"  TROUBLE: {view.trouble}"
    if view.waiting_for:
        yield f"  waits for {', '.join(view.waiting_for)} to tell all services"
    if not view.settled:
        yield "  being written at this moment"
    if view.session_affinity_seconds:
        yield f"  a client sticks to its backend for {view.session_affinity_seconds} s"


def _teller(view: Explanation, one: Teller, wish: Explanation | None) -> tuple[str, ...]:
    return (
        f"{one.cluster} (own)" if one.own else one.cluster,
        str(one.endpoints),
        f"{duration(one.fact_age)} ago" if one.fact_age is not None else "-",
        duration(one.newest_fact_age),
        duration(one.heartbeat_age),
        "; ".join(_candidacy(view, one, wish)),
    )


def _candidacy(view: Explanation, one: Teller, wish: Explanation | None) -> Iterator[str]:
    """The row of the page's first table, and what else stands in the way."""
    if one.own:
        yield "its own"
    elif not view.is_global:
        yield "not global here: never used"
    elif one.endpoints:
        yield "global here, global and shared there: candidates"
    else:
        yield _nothing(wish)
    if one.not_used:
        yield f"NOT USED: {one.not_used}"
    if not one.own:
        yield from _doubts(one)


def _nothing(wish: Explanation | None) -> str:
    """Why another cluster offers nothing, by what its own agent says."""
    if wish is None:
        return "offers nothing; nobody there answers to say why"
    if not wish.found:
        return "absent there: not published"
    if not wish.is_global:
        return "not global there: not published"
    if not wish.shared:
        return "global there, shared not true: not published"
    return "global and shared there, without endpoints"


def _doubts(one: Teller) -> Iterator[str]:
    if not one.told_all:
        yield "has not told everything yet"
    elif not one.connected:
        yield "not connected: this is its last word"
    elif one.unconfirmed:
        yield "known from an earlier run"


def _story(story: FrontendStory) -> Iterator[str]:
    name = f" ({story.port_name})" if story.port_name else ""
    yield f"{story.frontend}{name}"
    for row in story.rows:
        yield f"  {PAGE} {row.section}: {row.condition}: {row.result}"
    header = ("BACKEND", "CLUSTER", "STATE", "SHARE", "ID", "SLOT", "TABLE", "WHY NOT")
    if story.candidates:
        yield from _indented(columns(header, map(_candidate, story.candidates)))
    else:
        yield "  no backend anywhere"
    yield f"  maps: {_held(story)}"
    for sentence in story.wrong:
        yield f"  WRONG: {sentence}"


def _candidate(one: Candidate) -> tuple[str, ...]:
    return (
        one.address,
        one.cluster,
        one.state,
        f"{one.share:.1%}",
        str(one.id or "-"),
        str(one.slot or "-"),
        str(one.entries) if one.slot else "-",
        one.why,
    )


def _held(story: FrontendStory) -> str:
    held = story.held
    if held is None:
        return "this frontend is not in them"
    table = f"a table of {held.table_size} entries" if held.table_size else "no table"
    parked = f", {held.parked} keeping connections only" if held.parked else ""
    return (
        f"id {held.id}, {held.count} selected of {held.slots} slots{parked}, {table},"
        f" replies come from {held.reverse_nat or 'nowhere'}"
    )


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}" for line in text.splitlines())


def _yes(value: bool) -> str:  # noqa: FBT001  # a word for a boolean is what this is
    return "yes" if value else "no"
