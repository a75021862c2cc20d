"""Which tests make the checks of docs/checks.md find something real: a process, a file, a kernel.

``@provokes("TCP_REFUSED")`` claims it, and the test fails unless such a finding was ``witnessed``
meanwhile. ``@provokes()`` claims the codes that a test is parametrized with, by the name ``code``.
"""

import ast
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_SEEN: set[str] = set()


def witnessed(codes: Iterable[str]) -> None:
    """Codes of findings that the program under test has just given."""
    _SEEN.update(codes)


def provokes(*codes: str) -> Callable[[T], T]:
    """The test sees each of these codes."""

    def decorate(test: T) -> T:
        @functools.wraps(test)
        def run(*arguments: Any, **named: Any) -> None:
            _SEEN.clear()
            test(*arguments, **named)
            _judge(codes or (named["code"],))

        @functools.wraps(test)
        async def run_async(*arguments: Any, **named: Any) -> None:
            _SEEN.clear()
            await test(*arguments, **named)
            _judge(codes or (named["code"],))

        return run_async if inspect.iscoroutinefunction(test) else run  # type: ignore[return-value]

    return decorate


def _judge(codes: Collection[str]) -> None:
    missing = sorted(set(codes) - _SEEN)
    assert not missing, f"claimed, and not seen: {', '.join(missing)}; seen: {sorted(_SEEN)}"


def claims(folders: Iterable[Path]) -> Iterator[str]:
    """Every code that a test in these folders claims."""
    for folder in folders:
        for path in folder.rglob("test_*.py"):
            text = path.read_text()
            if "provokes(" in text:
                for node in ast.walk(ast.parse(text)):
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield from _claimed(node)


def _claimed(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="provokes"), args=[]):
                others = [it for it in node.decorator_list if it is not decorator]
                yield from (word for it in others for word in _words(it) if word.isupper())
            case ast.Call(func=ast.Name(id="provokes")):
                yield from _words(decorator)


def _words(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value
