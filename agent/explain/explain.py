"""Explain one service: every candidate with its verdict, and whether the maps really say so.

Two sources that can disagree are asked independently: the facts, merged once more for this answer,
and the kernel's maps. What differs is said in sentences.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from agent.clusters import Clusters
from agent.explain import held, rows
from agent.facts import Me
from agent.picture import Picture, at, told
from agent.services.merge import Verdict
from agent.services.offers import Condition
from agent.services.program import Place
from agent.services.services import Services
from agent.services.table import quotas
from bpf.datapath import Maps
from bpf.errors import BpfError
from clustermesh.explanation import Candidate, Explanation, FrontendStory, Held, Row, Teller
from clustermesh.http import Answer, Query, Refused
from clustermesh.local import Frontend, LocalService
from clustermesh.status import RemoteStatus


class Explainer:
    """Answers from present facts and maps; it changes nothing."""

    def __init__(
        self, me: Me, maps: Maps, clusters: Clusters, services: Services, picture: Picture
    ) -> None:
        self._me = me
        self._maps = maps
        self._clusters = clusters
        self._services = services
        self._picture = picture

    def service(self, name: str, remotes: Mapping[str, RemoteStatus]) -> Explanation:
        """The service ``namespace/name``; ``remotes`` by cluster, the own one included."""
        tellers = tuple(self._tellers(name, remotes))
        service = self._services.facts.local(name)
        if service is None:
            known = list(self._services.facts.names())
            return Explanation(
                cluster=self._me.cluster,
                node=self._me.node,
                service=name,
                tellers=tellers,
                similar=tuple(difflib.get_close_matches(name, known)),
            )
        return Explanation(
            cluster=self._me.cluster,
            node=self._me.node,
            service=name,
            found=True,
            headless=service.headless,
            is_global=service.is_global,
            shared=service.shared,
            affinity=service.affinity,
            session_affinity_seconds=service.session_affinity_seconds,
            internal_traffic_policy=service.internal_traffic_policy,
            annotations=dict(service.annotations),
            refused=self._services.facts.policies.refused.get(name, ""),
            trouble=self._services.retries.reasons().get(name, ""),
            settled=self._services.idle,
            waiting_for=tuple(self._clusters.missing()) if service.is_global else (),
            tellers=tellers,
            frontends=tuple(self._frontends(name, service)),
        )

    def held(self) -> Mapping[str, str]:
        """Clusters whose backends are not used now, and why."""
        return self._services.held

    def local_services(self) -> Iterator[LocalService]:
        """Every service of the own cluster."""
        for name in self._services.facts.names():
            if (found := self._services.facts.local(name)) is not None:
                yield found

    def _tellers(self, name: str, remotes: Mapping[str, RemoteStatus]) -> Iterator[Teller]:
        offered = {offer.cluster: offer.size for offer in self._services.facts.offers(name)}
        others = sorted({*self._clusters.expected(), *offered} - {self._me.cluster})
        for cluster in (self._me.cluster, *others):
            own = cluster == self._me.cluster
            status = remotes.get(cluster, RemoteStatus(name=cluster))
            yield Teller(
                cluster=cluster,
                cluster_id=self._clusters.id_of(cluster),
                own=own,
                endpoints=offered.get(cluster, 0),
                told_all=self._told_all(cluster, own=own),
                connected=status.connected,
                unconfirmed=status.unconfirmed,
                fact_age=self._services.ages.age(cluster, name),
                newest_fact_age=status.newest_fact_age,
                heartbeat_age=status.heartbeat_age,
                not_used=self._services.held.get(cluster, ""),
            )

    def _told_all(self, cluster: str, *, own: bool) -> bool:
        if own:
            return self._clusters.own_services
        return self._clusters.told_services(cluster) and self._clusters.told_addresses(cluster)

    def _frontends(self, name: str, service: LocalService) -> Iterator[FrontendStory]:
        rivals = [reason for rival, reason in self._services.rivalries() if rival == name]
        for place, frontend in self._services.frontends(service).items():
            yield self._frontend(name, service, place, frontend, rivals)

    def _frontend(
        self,
        name: str,
        service: LocalService,
        place: Place,
        frontend: Frontend,
        rivals: Sequence[str],
    ) -> FrontendStory:
        served = self._services.serves(service)
        verdicts = self._services.verdicts(name, service, place, frontend)
        settled = self._clusters.settled if service.is_global else self._clusters.own_services
        usable = any(verdict.weight for verdict in verdicts)
        row = rows.presence(served=served, usable=usable, everybody_told=settled)
        found = [
            row,
            *filter(None, [rows.affinity(service.affinity, verdicts) if served else None]),
        ]
        spoken = told(place)
        out = [
            Candidate(address=b.address, cluster=b.cluster, state=b.state, why=b.why)
            for b in self._picture.left_out(name, place, frontend)
        ]
        if reason := next((it for it in rivals if it.startswith(_spot(place))), ""):
            candidates = tuple(map(_candidate, verdicts))
            return FrontendStory(
                frontend=spoken, port_name=frontend.name, candidates=(*candidates, *out),
                wrong=(f"two services name this address and port: {reason}",),
            )  # fmt: skip
        return self._compared(spoken, frontend, place, found, verdicts, out)

    def _compared(
        self,
        spoken: str,
        frontend: Frontend,
        place: Place,
        found: Sequence[Row],
        verdicts: Sequence[Verdict],
        out: Sequence[Candidate],
    ) -> FrontendStory:
        try:
            program = held.read(self._maps, place)
        except BpfError as error:
            program, wrong = None, [f"the maps cannot be read: {error}"]
        else:
            wrong = list(differences(found[0], verdicts, program))
        candidates = [_candidate(verdict) for verdict in verdicts]
        return FrontendStory(
            frontend=spoken,
            port_name=frontend.name,
            rows=tuple(found),
            candidates=(*_placed(candidates, verdicts, program), *out),
            held=_held(program),
            wrong=tuple(wrong),
        )


def answer(explainer: Explainer, statuses: Callable[[], Sequence[RemoteStatus]]) -> Answer:
    """GET /v1/explain?service=NAMESPACE/NAME."""

    def explain(query: Query) -> Explanation:
        if unknown := sorted(query.keys() - {"service"}):
            raise Refused(400, f"unknown parameter {unknown[0]!r}; known is service")
        name = query.get("service", "")
        namespace, slash, rest = name.partition("/")
        if not (namespace and slash and rest) or "/" in rest:
            raise Refused(400, f"service: {name!r}, expected NAMESPACE/NAME")
        return explainer.service(name, {status.name: status for status in statuses()})

    return explain


def differences(
    row: Row, verdicts: Sequence[Verdict], program: held.Program | None
) -> Iterator[str]:
    """Sentences on how the maps differ from what the verdicts ask for, for one frontend."""
    if program is None:
        if row in (rows.HAS_BACKEND, rows.HAS_NONE):
            yield "the maps do not hold it"
    elif row is rows.NOT_SERVED:
        yield "the maps hold it, although the service is not global"
    else:
        wanted = {_key(verdict): verdict for verdict in verdicts if verdict.weight}
        yield from _wrong_slots(wanted.keys(), program)
        yield from _wrong_shares(list(wanted.values()), program)


def _wrong_slots(wanted: AbstractSet[tuple[bytes, int]], program: held.Program) -> Iterator[str]:
    selected = program.slots[: program.master.count]
    have = {(s.value.address, s.value.port) for s in selected if s.value is not None}
    for slot in program.slots:
        if slot.value is None:
            yield f"slot {slot.number} names backend {slot.id}, which is in no map"
    if len(selected) < program.master.count:
        yield f"its master entry counts {program.master.count}, there are {len(selected)} slots"
    for key in sorted(wanted - have):
        yield f"{at(*key)} is used, the maps do not select it"
    for key in sorted(have - wanted):
        yield f"the maps select {at(*key)}, which is not to be used"


def _wrong_shares(wanted: Sequence[Verdict], program: held.Program) -> Iterator[str]:
    if not wanted:
        return
    if program.table is None:
        yield "it has no selection table: the used backends take turns, whatever their shares"
        return
    size = program.table.total()
    numbers = {(s.value.address, s.value.port): s.id for s in program.slots if s.value}
    for verdict, right in zip(wanted, quotas([v.weight for v in wanted], size), strict=True):
        number = numbers.get(_key(verdict))
        found = program.table[number] if number is not None else 0
        if found != right:
            yield f"{at(*_key(verdict))} has {found} of {size} entries of the table, not {right}"


def _candidate(verdict: Verdict) -> Candidate:
    backend = verdict.backend
    return Candidate(
        address=at(backend.address, backend.port),
        cluster=backend.cluster,
        state=Condition(backend.condition).name.lower().replace("_", " "),
        weight=verdict.weight,
        why=verdict.why,
    )


def _placed(
    candidates: Sequence[Candidate], verdicts: Sequence[Verdict], program: held.Program | None
) -> Iterator[Candidate]:
    """With their shares, and where the maps have them."""
    total = sum(verdict.weight for verdict in verdicts)
    table = program.table if program is not None else None
    used = [verdict for verdict in verdicts if verdict.weight]
    size = table.total() if table is not None else 0
    right = iter(quotas([v.weight for v in used], size) if used and size else [])
    held_slots = program.slots if program is not None else ()
    slots = {(s.value.address, s.value.port): s for s in held_slots if s.value}
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        slot = slots.get(_key(verdict))
        yield msgspec.structs.replace(
            candidate,
            share=verdict.weight / total if total else 0.0,
            slot=slot.number if slot else 0,
            id=slot.id if slot else 0,
            entries=table[slot.id] if table is not None and slot else 0,
            expected=next(right, 0) if verdict.weight else 0,
        )


def _held(program: held.Program | None) -> Held | None:
    if program is None:
        return None
    back = program.reverse_nat
    return Held(
        id=program.master.rev_nat,
        count=program.master.count,
        parked=program.master.qcount,
        slots=len(program.slots),
        table_size=program.table.total() if program.table is not None else 0,
        reverse_nat=at(back.address, back.port) if back is not None else "",
    )


def _key(verdict: Verdict) -> tuple[bytes, int]:
    return verdict.backend.address, verdict.backend.port


def _spot(place: Place) -> str:
    """How a rivalry begins that is about this place."""
    address, _, port = at(place.address, place.port).rpartition(":")
    return f"{address.strip('[]')} port {port} "
