"""From the bytes of a manifest file to objects, document by document."""

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping

import msgspec
import yaml

from clustermesh.sources import objects
from clustermesh.sources.objects import CLUSTER_SCOPED, GROUPS, KubernetesObject, ObjectKind, Ref

SEPARATOR = re.compile(rb"^---(?=[ \t\r\n]|$)", re.MULTILINE)
STEP = re.compile(r"[^.\[\]]+")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
KINDS = {kind.value: kind for kind in ObjectKind}


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: times, ``12:30``, ``1:2:3:4:5:6:7:8`` and ``=`` are text."""


_TEXT = frozenset({"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"})
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(
        r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$"
    ),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
"""As in YAML 1.1, without the numbers of base 60."""
Loader.yaml_implicit_resolvers = {
    first: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in rules if tag not in _TEXT]
    for first, rules in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class Problem(msgspec.Struct, frozen=True):
    """A document (or an item of a list in it) that cannot be used.

    ``ref`` is what it would have been, when that much can be told.
    """

    where: str
    reason: str
    ref: Ref | None = None


class Parsed(msgspec.Struct, frozen=True):
    """A file's objects, each with its place (``document 2``), and what cannot be used."""

    objects: Mapping[Ref, tuple[KubernetesObject, str]] = {}
    problems: tuple[Problem, ...] = ()


class _Refused(Exception):
    def __init__(self, reason: str, ref: Ref | None = None) -> None:
        super().__init__(reason)
        self.ref = ref


def parse(data: bytes) -> Parsed:
    """Everything in a file. Kinds that are none of ours are passed over; nothing is raised."""
    found: dict[Ref, tuple[KubernetesObject, str]] = {}
    problems: list[Problem] = []
    for where, document in _documents(data):
        try:
            items = list(_items(where, _loaded(document)))
        except _Refused as refusal:
            problems.append(Problem(where, str(refusal)))
            continue
        for place, item in items:
            try:
                object_ = _object(item)
            except _Refused as refusal:
                problems.append(Problem(place, str(refusal), refusal.ref))
                continue
            if object_ is None:
                continue
            ref = objects.ref(object_)
            if ref in found:
                reason = f"{ref} is also in {found[ref][1]}, which is used"
                problems.append(Problem(place, reason, ref))
            else:
                found[ref] = (object_, place)
    return Parsed(found, tuple(problems))


def _documents(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Each document, padded so that the parser counts the file's lines.

    Cut apart first: a syntax error in one must not hide those that follow.
    """
    starts = [0, *(match.start() for match in SEPARATOR.finditer(data))]
    number = 0
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        document = data[start:end]
        body = document[3:] if start or document.startswith(b"---") else document
        if not start and not any(_meaningful(line) for line in body.splitlines()):
            continue
        number += 1
        yield f"document {number}", b"\n" * data.count(b"\n", 0, start) + body


def _meaningful(line: bytes) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith((b"#", b"%"))


def _loaded(document: bytes) -> object:
    """JSON is read as such where it is: YAML knows no surrogate pairs, and takes much longer."""
    if document.lstrip().startswith(b"{"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(document)
    try:
        return yaml.load(document, Loader)  # noqa: S506 - a safe loader with fewer resolvers
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise _Refused(f"{line}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise _Refused(f"not YAML: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError) as error:
        raise _Refused(f"not YAML: {error}") from None


def _items(where: str, document: object) -> Iterator[tuple[str, object]]:
    """The objects in a document: itself, or the items of a list."""
    if document is None:
        return
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(document, dict) and isinstance(kind, str) and kind.endswith("List"):
        items = document.get("items") or []
        if not isinstance(items, list):
            raise _Refused("items: expected a list")
        version = document.get("apiVersion")
        for index, item in enumerate(items):
            yield f"{where} items[{index}]", _typed(item, kind.removesuffix("List"), version)
        return
    yield where, document


def _typed(item: object, kind: str, version: object) -> object:
    """kubectl's typed lists leave kind and apiVersion out of their items."""
    if not kind or not isinstance(item, dict) or "kind" in item:
        return item
    return {"kind": kind, "apiVersion": version, **item}


def _object(item: object) -> KubernetesObject | None:
    if not isinstance(item, dict):
        raise _Refused(f"expected an object, found {type(item).__name__}")
    kind = _kind(item)
    if kind is None:
        return None
    ref = _ref(kind, item)
    meta = {**item["metadata"], "name": ref.name}
    if ref.namespace:
        meta["namespace"] = ref.namespace
    try:
        return objects.convert(kind, {**item, "metadata": meta})
    except msgspec.ValidationError as error:
        raise _Refused(_with_path(str(error), item), ref) from None
    except RecursionError:
        raise _Refused("nested too deeply", ref) from None


def _kind(item: dict[object, object]) -> ObjectKind | None:
    name, version = item.get("kind"), item.get("apiVersion")
    if not isinstance(name, str):
        raise _Refused("kind: missing, expected a Kubernetes kind")
    if not isinstance(version, str):
        raise _Refused("apiVersion: missing, expected text such as v1")
    kind = KINDS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.85)
        if near and near[0].lower() in (name.lower(), name.lower().rstrip("s")):
            raise _Refused(f"kind: {name!r} is unknown; did you mean {near[0]}?")
        return None
    group = version.rpartition("/")[0]
    return kind if group == GROUPS[kind] else None


def _ref(kind: ObjectKind, item: dict[object, object]) -> Ref:
    meta = item.get("metadata")
    if not isinstance(meta, dict):
        raise _Refused("metadata: missing")
    name = _name("metadata.name", meta.get("name"))
    if kind in CLUSTER_SCOPED:
        return Ref(kind, "", name)
    return Ref(kind, _name("metadata.namespace", meta.get("namespace") or "default"), name)


def _name(field: str, value: object) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        shown = "missing" if value is None else repr(value)
        raise _Refused(f"{field}: {shown}, expected text of a-z, 0-9, - and .")
    return value


def _with_path(message: str, item: object) -> str:
    """``spec.ports[0].port: expected `int`, got `str``` from msgspec's way of saying it."""
    reason, at, rest = message.partition(" - at `")
    if not at:
        return message
    *of, path = rest.rstrip("`").split("` in `")  # "key` in `$.metadata.labels"
    place = path.removeprefix("$").removeprefix(".") or "document"
    if place.endswith("[...]") and "expected `str`" in reason.lower():
        place = _wrong_entry(place.removesuffix("[...]"), item)
    place = " of ".join([*of, place])
    return f"{place}: {reason[:1].lower()}{reason[1:]}"


def _wrong_entry(place: str, item: object) -> str:
    """The map's entry that is no text: msgspec does not say which one it was."""
    for step in STEP.findall(place):
        if isinstance(item, dict):
            item = item.get(step)
        elif isinstance(item, list):
            item = item[int(step)]
    entries = item.items() if isinstance(item, dict) else ()
    wrong = (key for key, value in entries if not isinstance(value, str | None))
    return f"{place}.{next(wrong, '...')}"
