"""Results of checks as JUnit XML, which every CI shows."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

import msgspec

from clustermesh.pki import write_private


class Case(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One check. ``failure`` is a sentence, empty when it passed; ``said`` is what was seen."""

    suite: str
    name: str
    said: str = ""
    failure: str = ""
    seconds: float = 0.0


def document(name: str, cases: Sequence[Case]) -> bytes:
    """A ``testsuites`` document with a suite per node."""
    failures = sum(bool(it.failure) for it in cases)
    top = Xml.Element(
        "testsuites", name=name, tests=str(len(cases)), failures=str(failures), errors="0"
    )
    for suite in dict.fromkeys(it.suite for it in cases):
        those = [it for it in cases if it.suite == suite]
        part = Xml.SubElement(
            top,
            "testsuite",
            name=clean(suite),
            tests=str(len(those)),
            failures=str(sum(bool(it.failure) for it in those)),
            errors="0",
            time=f"{sum(it.seconds for it in those):.3f}",
        )
        for it in those:
            case = Xml.SubElement(
                part,
                "testcase",
                classname=clean(it.suite),
                name=clean(it.name),
                time=f"{it.seconds:.3f}",
            )
            if it.failure:
                said = Xml.SubElement(case, "failure", message=clean(it.failure))
                said.text = clean(it.failure)
    written: bytes = Xml.tostring(top, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def write(path: Path, name: str, cases: Sequence[Case]) -> None:
    """Replace the file in one step."""
    write_private(path, document(name, cases))


def clean(text: str) -> str:
    """Only characters that XML may have."""
    return "".join(c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or
                   c >= "\U00010000" else "?" for c in text)  # fmt: skip
