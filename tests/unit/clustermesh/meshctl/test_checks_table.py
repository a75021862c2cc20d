"""docs/checks.md names every code that a check can give, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.provoked import claims, provokes, witnessed

ROOT = Path(__file__).parents[4]
MAKERS = {"_ok", "_failed", "_warning", "Stopped"}
"""Functions and classes whose first argument is a code."""


def codes_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(code)), *_]):
                if name in MAKERS:
                    yield code
            case ast.keyword(arg="code", value=value):
                yield from words(value)
            case ast.Assign(targets=[ast.Name(id="code"), *_], value=value):
                yield from words(value)


def words(value: ast.AST) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def in_source() -> set[str]:
    found: set[str] = set()
    for folder in ("agent", "clustermesh"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "clustermesh.findings import" in text and "Finding" in text:
                found |= set(codes_of(ast.parse(text)))
    return {code for code in found if re.fullmatch(r"[A-Z][A-Z0-9_]*", code)}


def test_every_code_is_in_the_table_once_and_every_row_is_a_code():
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs/checks.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows)), "a code is there twice"
    source = in_source()
    assert source - set(rows) == set(), "describe these codes in docs/checks.md"
    assert set(rows) - source == set(), "no check gives these"
    assert len(source) > 60


INJECTED = {"CLOCK_SKEW": "machines of one test share a clock: an agent's reply tells another"}
"""Codes that only an answer of the test's own can give, and why."""


def test_every_code_is_provoked_by_something_real():
    """A check that nothing makes fail proves nothing; what claims it fails where it is not seen."""
    claimed = set(claims([ROOT / "tests/integration", ROOT / "tests/e2e"]))
    assert in_source() - claimed - INJECTED.keys() == set(), (
        "provoke these (tests/support/provoked)"
    )
    assert claimed - in_source() == set(), "no check gives these"
    assert claimed & INJECTED.keys() == set(), "these are provoked: strike them from INJECTED"


async def test_a_claim_that_is_not_seen_fails_the_test():
    @provokes("TCP_REFUSED", "DNS")
    def half() -> None:
        witnessed(["DNS", "TCP"])

    @provokes()
    async def named(code: str) -> None:
        witnessed(["DNS"])

    with pytest.raises(AssertionError, match="not seen: TCP_REFUSED"):
        half()
    await named(code="DNS")
    with pytest.raises(AssertionError, match="not seen: TCP"):
        await named(code="TCP")
