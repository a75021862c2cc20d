"""What explain shows, from values, and how it judges them."""

import msgspec
import pytest

from clustermesh.explanation import Candidate, Explanation, FrontendStory, Held, Row, Teller
from clustermesh.meshctl.errors import Exit, MeshctlError
from clustermesh.meshctl.explain import Explained, _check, _judge
from clustermesh.meshctl.explain_text import folded, render

LOCAL = Candidate(
    address="10.1.0.1:8080", cluster="cluster-a", state="active", weight=1, share=1.0,
    id=4, slot=1, entries=251, expected=251,
)  # fmt: skip
REMOTE = Candidate(
    address="10.2.0.1:8080", cluster="cluster-b", state="active", why="its cluster has weight 0"
)
STORY = FrontendStory(
    frontend="10.96.0.1:80/TCP",
    port_name="http",
    rows=(Row(section="5. When", condition="it has a backend", result="goes there"),),
    candidates=(LOCAL, REMOTE),
    held=Held(
        id=7, count=1, parked=0, slots=2, table_size=251, reverse_nat="10.96.0.1:80"
    ),
)  # fmt: skip
TELLERS = (
    Teller(cluster="cluster-a", own=True, endpoints=1, told_all=True, connected=True),
    Teller(cluster="cluster-b", endpoints=1, told_all=True, connected=True, newest_fact_age=61.0),
)
VIEW = Explanation(
    cluster="cluster-a",
    node="node-1",
    service="shop/web",
    found=True,
    is_global=True,
    shared=True,
    affinity="none",
    annotations={"service.clustermesh.io/weights": "cluster-b=0"},
    tellers=TELLERS,
    frontends=(STORY,),
)
ABSENT = Explanation(cluster="cluster-b", node="node-1", service="shop/web")


def with_(view: Explanation = VIEW, **changes: object) -> Explanation:
    return msgspec.structs.replace(view, **changes)


def shown(view: Explanation, *others: Explanation) -> str:
    return render("shop/web", [view, *others], [view])


def told(*views: Explanation, silent: dict[str, str] | None = None) -> Explained:
    nodes = {f"{view.cluster}/{view.node}": view for view in views}
    silent = silent or {}
    return Explained(service="shop/web", asked=(*nodes, *silent), nodes=nodes, silent=silent)


def test_wishes_verdicts_and_maps_are_shown():
    text = shown(VIEW)
    assert "weights: cluster-b=0" in text
    assert "docs/services.md 5. When: it has a backend: goes there" in text
    for cells in (["100.0%", "4", "1", "251"], ["0.0%", "-", "-", "-", "its cluster has weight 0"]):
        assert any(line.split()[3:] == " ".join(cells).split() for line in text.splitlines())
    assert "id 7, 1 selected of 2 slots, a table of 251 entries" in text
    assert "1m01s" in text


def test_nodes_that_agree_are_shown_once():
    story = msgspec.structs.replace(
        STORY,
        candidates=(msgspec.structs.replace(LOCAL, id=99, slot=2), REMOTE),
        held=msgspec.structs.replace(STORY.held, id=3),
    )
    other = with_(node="node-2", frontends=(story,))
    assert folded([VIEW, other]) == [(VIEW, ["cluster-a/node-2"])]


def test_a_node_that_differs_is_shown_itself():
    other = with_(node="node-2", frontends=(msgspec.structs.replace(STORY, wrong=("gone",)),))
    assert [view.node for view, _ in folded([VIEW, other])] == ["node-1", "node-2"]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ((), "nobody there answers to say why"),
        ((ABSENT,), "absent there: not published"),
        ((with_(ABSENT, found=True),), "not global there: not published"),
        ((with_(ABSENT, found=True, is_global=True),), "shared not true: not published"),
        (
            (with_(ABSENT, found=True, is_global=True, shared=True),),
            "global and shared there, without endpoints",
        ),
    ],
)
def test_why_a_cluster_offers_nothing_is_its_own_word(wish, said):
    silent = msgspec.structs.replace(TELLERS[1], endpoints=0)
    assert said in shown(with_(tellers=(TELLERS[0], silent)), *wish)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connected": False}, "not connected: this is its last word"),
        ({"told_all": False}, "has not told everything yet"),
        ({"unconfirmed": True}, "known from an earlier run"),
        ({"not_used": "its ranges overlap"}, "NOT USED: its ranges overlap"),
    ],
)
def test_what_makes_a_clusters_word_doubtful_is_said(changes, said):
    assert said in shown(
        with_(tellers=(TELLERS[0], msgspec.structs.replace(TELLERS[1], **changes)))
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"refused": "weights: x"}, "REFUSED: weights: x"),
        ({"trouble": "no id left"}, "TROUBLE: no id left"),
        ({"waiting_for": ("cluster-c",)}, "waits for cluster-c"),
        ({"settled": False}, "being written at this moment"),
        ({"session_affinity_seconds": 30}, "sticks to its backend for 30 s"),
        ({"headless": True}, "headless: not in the maps"),
        ({"found": False}, "there is no such service in this cluster"),
    ],
)
def test_what_holds_for_the_whole_service_is_said(changes, said):
    assert said in shown(with_(**changes))


def test_a_wrong_map_is_said_and_fails():
    wrong = with_(frontends=(msgspec.structs.replace(STORY, wrong=("the maps do not hold it",)),))
    assert "WRONG: the maps do not hold it" in shown(wrong)
    with pytest.raises(MeshctlError, match=r"cluster-a/node-1: 10\.96\.0\.1:80/TCP: the maps"):
        _judge(told(wrong))


def test_what_is_being_written_is_not_wrong_yet():
    wrong = msgspec.structs.replace(STORY, wrong=("the maps do not hold it",))
    _judge(told(with_(frontends=(wrong,), settled=False)))


def test_all_is_well_when_everybody_asked_answers():
    _judge(told(VIEW, ABSENT))


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (told(silent={"cluster-a/node-1": "dead"}), Exit.UNREACHABLE),
        (told(VIEW, silent={"cluster-a/node-2": "dead"}), Exit.UNREACHABLE),
        (told(with_(ABSENT, similar=("shop/webs",))), Exit.FAILED),
    ],
)
def test_what_cannot_be_told_is_a_failure(found, code):
    with pytest.raises(MeshctlError) as failure:
        _judge(found)
    assert failure.value.code is code


@pytest.mark.parametrize("name", ["web", "/web", "shop/", "shop/web?x=1", "a/b/c", "Shop/web"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(MeshctlError, match="expected NAMESPACE/NAME"):
        _check(name)
