"""JUnit reports, also of what is hostile."""

from pathlib import Path
from xml.etree import ElementTree as Xml

from hypothesis import given
from hypothesis import strategies as st

from clustermesh.meshctl.junit import Case, document, write


def test_suites_count_their_failures(tmp_path: Path):
    cases = (
        Case(suite="a/1", name="ready", said="fine", seconds=0.5),
        Case(suite="a/1", name="answers", failure="no <answer> & more"),
        Case(suite="b/1", name="ready"),
    )
    write(tmp_path / "report.xml", "meshctl verify", cases)
    top = Xml.parse(tmp_path / "report.xml").getroot()  # noqa: S314  # our own
    assert (top.get("tests"), top.get("failures")) == ("3", "1")
    assert [it.get("failures") for it in top] == ["1", "0"]
    (failure,) = top.iter("failure")
    assert failure.get("message") == "no <answer> & more"


@given(st.text(max_size=60))
def test_every_text_makes_a_readable_document(text: str):
    Xml.fromstring(document("x", (Case(suite=text, name=text, failure=text),)))  # noqa: S314  # our own
