"""Columns, durations, and what reaches a terminal."""

import json

import pytest

from clustermesh.meshctl.output import columns, complain, duration, say, shortened, show_json


def test_columns_are_three_apart_and_at_least_five_wide():
    text = columns(("ID", "LABELS"), [("1", "a"), ("65537", "b")])
    assert text.splitlines() == ["ID      LABELS", "1       a", "65537   b"]
    assert columns(("A", "B"), [("1", "2")]).splitlines()[0] == "A    B"


def test_a_list_without_rows_still_has_its_header():
    assert columns(("TUNNEL", "VALUE"), []) == "TUNNEL   VALUE"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (59.4, "59s"), (185, "3m05s"), (7800, "2h10m"), (-3, "0s")],
)
def test_durations(seconds: float | None, text: str):
    assert duration(seconds) == text


def test_what_is_rewritten_in_place_stays_on_one_line():
    assert shortened("waiting ...", 20) == "waiting ..."
    assert shortened("waiting for everybody ...", 10) == "waiting..."


def test_what_others_say_steers_no_terminal(capsys: pytest.CaptureFixture[str]):
    evil = "\x1b]0;owned\x07 \x9b2J\rgone"
    complain(evil)
    say(f"a\n\t{evil}")
    spelled = "\\u001b]0;owned\\u0007 \\u009b2J\\u000dgone"
    assert capsys.readouterr() == (f"a\n\t{spelled}\n", f"meshctl: {spelled}\n")
    show_json({"name": evil})
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert json.loads(out) == {"name": evil}
