"""An explanation agrees with the merge, and tells when the maps do not."""

import re
from pathlib import Path

import pytest

from agent.explain import explain, rows
from agent.explain.explain import differences
from agent.explain.rows import Row
from agent.services.program import Place, slot_key
from bpf.layout_lb import pack_backend_id, pack_rev_nat, pack_table
from clustermesh.addresses import packed
from clustermesh.explanation import Explanation, FrontendStory
from clustermesh.http import Refused
from clustermesh.model import Port
from clustermesh.status import RemoteStatus
from tests.support.mesh import OWN, VIP, Agent, node, offer, pod, service

A1, A2, B1, B2 = "10.1.0.1", "10.1.0.2", "10.2.0.1", "10.2.0.2"
PLACE = Place(packed(VIP), 80, 6)
PAGE = Path(__file__).parents[4] / "docs" / "services.md"


def mesh(*backends: object, **more: object) -> Agent:
    agent = Agent().expect("cluster-b")
    agent.local(service(*backends, **more)).synced(OWN)  # type: ignore[arg-type]
    agent.nodes(node("cluster-b", "b1", "192.168.0.2", "10.2.0.0/24", "10.2.0.254"))
    agent.pods("cluster-b", pod(B1, "192.168.0.2", 2 << 16 | 7))
    agent.remote(offer("cluster-b", B1)).synced("cluster-b")
    return agent.settle()


def explained(agent: Agent, name: str = "shop/web") -> Explanation:
    remotes = {"cluster-b": RemoteStatus(name="cluster-b", connected=True, newest_fact_age=4.0)}
    return agent.dataplane.explainer.service(name, remotes)


def story(agent: Agent) -> FrontendStory:
    (only,) = explained(agent).frontends
    return only


def conditions(found: FrontendStory) -> list[str]:
    return [f"{row.condition} => {row.result}" for row in found.rows]


def test_every_candidate_has_its_share_and_its_place_in_the_maps() -> None:
    found = story(mesh(A1))
    assert found.frontend == f"{VIP}:80/TCP"
    assert found.wrong == ()
    assert {(c.address, c.cluster, c.share, c.why) for c in found.candidates} == {
        (f"{A1}:8080", "cluster-a", 0.5, ""),
        (f"{B1}:8080", "cluster-b", 0.5, ""),
    }
    assert all(c.slot and c.id and c.entries == c.expected > 0 for c in found.candidates)
    assert found.held is not None
    assert (found.held.count, found.held.parked, found.held.table_size) == (2, 0, 251)
    assert found.held.reverse_nat == f"{VIP}:80"


def test_weights_are_shares_of_the_table() -> None:
    weights = {"service.clustermesh.io/weights": "local=80,cluster-b=20"}
    shares = {c.cluster: c.share for c in story(mesh(A1, annotations=weights)).candidates}
    assert shares == {"cluster-a": 0.8, "cluster-b": 0.2}


def test_who_is_held_back_keeps_a_slot_and_says_why() -> None:
    found = story(mesh(A1, affinity="local"))
    out = next(c for c in found.candidates if c.cluster == "cluster-b")
    assert (out.weight, out.share, out.entries) == (0, 0.0, 0)
    assert out.why == "affinity local: there are local backends"
    assert conditions(found)[1] == "local | at least one ready | any => local"
    assert found.wrong == ()


def test_an_endpoint_without_a_matching_port_is_named() -> None:
    agent = mesh(A1)
    agent.remote(offer("cluster-b", B2, ports={"admin": Port("TCP", 9)})).settle()
    out = next(c for c in story(agent).candidates if c.address == B2)
    assert out.why == "its ports are named admin, the frontend's http"


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (lambda: mesh(A1, is_global=False), rows.NOT_SERVED),
        (lambda: mesh(A1), rows.HAS_BACKEND),
        (lambda: mesh().remote(offer("cluster-b")).settle(), rows.HAS_NONE),
        (
            lambda: Agent().expect("cluster-b").local(service()).synced(OWN).settle(),
            rows.HAS_NONE_YET,
        ),
    ],
)
def test_the_row_says_what_becomes_of_a_connection(agent, said: Row) -> None:
    found = story(agent())
    assert found.rows[0] == said
    assert found.wrong == ()


def test_who_is_waited_for_is_named() -> None:
    agent = Agent().expect("cluster-b").local(service()).synced(OWN).settle()
    assert explained(agent).waiting_for == ("cluster-b",)


def test_tellers_have_their_ages() -> None:
    own, other = explained(mesh(A1)).tellers
    assert (own.cluster, own.own, own.endpoints) == ("cluster-a", True, 1)
    assert (other.cluster, other.endpoints, other.newest_fact_age) == ("cluster-b", 1, 4.0)
    assert other.told_all


def test_a_service_that_is_not_here_is_not_found_and_near_names_are() -> None:
    found = explained(mesh(A1), "shop/webb")
    assert not found.found
    assert found.similar == ("shop/web",)


def test_a_refused_annotation_is_said() -> None:
    found = explained(mesh(A1, annotations={"service.clustermesh.io/weights": "local"}))
    assert "expected CLUSTER=NUMBER" in found.refused


# --- maps that are not as they should be ---------------------------------------------------------


def test_a_missing_master_is_said() -> None:
    agent = mesh(A1)
    agent.maps.services4.drop_many([slot_key(PLACE, 0)])
    assert story(agent).wrong == ("the maps do not hold it",)


def test_a_backend_that_is_gone_is_said() -> None:
    agent = mesh(A1)
    number = story(agent).candidates[0].id
    agent.maps.backends4.drop_many([pack_backend_id(number)])
    said = " ".join(story(agent).wrong)
    assert f"names backend {number}, which is in no map" in said
    assert f"{A1}:8080 is used, the maps do not select it" in said


def test_a_wrong_table_is_said() -> None:
    agent = mesh(A1)
    found = story(agent)
    assert found.held is not None
    only = pack_table([found.candidates[0].id] * 251)
    agent.maps.tables4.swap([pack_rev_nat(found.held.id)], only)
    assert any(
        "10.2.0.1:8080 has 0 of 251 entries of the table" in said for said in story(agent).wrong
    )


def test_a_missing_table_is_said() -> None:
    agent = mesh(A1)
    found = story(agent)
    assert found.held is not None
    agent.maps.tables4.drop([pack_rev_nat(found.held.id)])
    (said,) = story(agent).wrong
    assert said.startswith("it has no selection table")


def test_a_backend_that_ought_not_to_be_there_is_said() -> None:
    agent = mesh(A1)
    program = explain.held.read(agent.maps, PLACE)
    assert [*differences(rows.HAS_NONE, [], program)] == [
        f"the maps select {address}:8080, which is not to be used" for address in (A1, B1)
    ]


# --- the page, and the query ---------------------------------------------------------------------


def all_rows() -> set[tuple[str, str]]:
    source = Path(rows.__file__).read_text()
    written = {(r.condition, r.result) for r in vars(rows).values() if isinstance(r, Row)}
    told = re.findall(r'_row\("([^"]+)", "([^"]+)"\)', source)
    later = re.findall(r'condition = "([^"]+)"\n\s+return _row\(condition, "([^"]+)"\)', source)
    return {*written, *told, *later}


def test_every_row_is_a_row_of_the_page() -> None:
    page = {
        " | ".join(cell.strip() for cell in line.strip("|").split("|"))
        for line in re.sub(r"[`*]", "", PAGE.read_text()).splitlines()
    }
    found = all_rows()
    assert len(found) == 10
    for condition, result in found:
        assert any(
            line.startswith(condition) and line.removeprefix(condition).strip(" |").endswith(result)
            for line in page
        ), (condition, result)


@pytest.mark.parametrize("query", [{}, {"service": "web"}, {"service": "a/b/c"}, {"name": "a/b"}])
def test_a_query_that_names_no_service_is_refused(query: dict[str, str]) -> None:
    answer = explain.answer(mesh(A1).dataplane.explainer, list)
    with pytest.raises(Refused):
        answer(query)
