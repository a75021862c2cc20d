"""A look at a directory before it is followed: which kinds are there, and what is wrong."""

from pathlib import Path

from clustermesh.sources.directory.files import manifests
from clustermesh.sources.directory.parse import parse
from clustermesh.sources.objects import ObjectKind


def kinds_in(root: Path) -> tuple[frozenset[ObjectKind], list[tuple[str, str]]]:
    """The kinds of object in the files below ``root``, and (place, reason) of what is bad.

    Raises ``OSError`` when the directory cannot be read.
    """
    kinds: set[ObjectKind] = set()
    problems: list[tuple[str, str]] = []
    for name in sorted(manifests(root)):
        try:
            parsed = parse((root / name).read_bytes())
        except OSError as error:
            problems.append((name, f"cannot be read: {error.strerror}"))
            continue
        kinds.update(ref.kind for ref in parsed.objects)
        problems += [(f"{name} {problem.where}", problem.reason) for problem in parsed.problems]
    return frozenset(kinds), problems
