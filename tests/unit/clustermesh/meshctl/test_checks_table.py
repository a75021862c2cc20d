"""docs/checks.md names every code that a check can give, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

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


def test_every_code_is_expected_by_a_test():
    """Provoked or told by name somewhere: a check that nothing makes fail proves nothing."""
    folders = (ROOT / "tests").rglob("*.py")
    named = {
        word for path in folders for word in re.findall(r"\b[A-Z][A-Z0-9_]+\b", path.read_text())
    }
    assert in_source() - named == set()
