"""Lists and watch events as the API server writes them, read into the objects that matter."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from clustermesh.sources import objects
from clustermesh.sources.kubernetes.failures import Status, Unreachable, translate
from clustermesh.sources.objects import CLUSTER_SCOPED, TYPES, KubernetesObject, ObjectKind, Ref

T = TypeVar("T")

INITIAL_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark after which a watch with initial events goes on as a plain watch."""


class Refusal(msgspec.Struct, frozen=True):
    """An object that cannot be read; ``ref`` None when not even its name can."""

    ref: Ref | None
    reason: str


class Listed(msgspec.Struct, frozen=True):
    """One page of a list. ``token`` empty: the last one."""

    version: str
    token: str
    objects: Sequence[KubernetesObject]
    refusals: Sequence[Refusal]


class Changed(msgspec.Struct, frozen=True, gc=False):
    """The object is now this."""

    object: KubernetesObject
    version: str


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """The object is gone, or no longer matches the selector."""

    ref: Ref
    version: str


class Unread(msgspec.Struct, frozen=True):
    """The object changed to something that cannot be read."""

    refusal: Refusal
    version: str


class Bookmark(msgspec.Struct, frozen=True):
    """Everything up to ``version`` has been told; ``initial_end``: so have all that exist."""

    version: str
    initial_end: bool


Happening = Changed | Deleted | Unread | Bookmark


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    token: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, Generic[T]):
    metadata: _ListMeta
    items: list[T] | None = None


class _Event(msgspec.Struct, Generic[T]):
    type: str
    object: T


class _NameMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Named(msgspec.Struct):
    metadata: _NameMeta


_names = msgspec.json.Decoder(_Named)
_statuses = msgspec.json.Decoder(Status)
_raw_pages = msgspec.json.Decoder(_Page[msgspec.Raw])
_raw_events = msgspec.json.Decoder(_Event[msgspec.Raw])


_page: Any = _Page  # the type argument is a value below
_event: Any = _Event
_pages: Mapping[ObjectKind, msgspec.json.Decoder[_Page[Any]]] = {
    kind: msgspec.json.Decoder(_page[type_]) for kind, type_ in TYPES.items()
}
_events: Mapping[ObjectKind, msgspec.json.Decoder[_Event[Any]]] = {
    kind: msgspec.json.Decoder(_event[type_]) for kind, type_ in TYPES.items()
}


def key(ref: Ref) -> str:
    """A short name that is unique within a kind: ``namespace/name``, or ``name``."""
    return f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name


def name_of(kind: ObjectKind, object_: KubernetesObject) -> str:
    """``key(ref(object_))``, without making a Ref per object."""
    meta = object_.metadata
    return meta.name if kind in CLUSTER_SCOPED else f"{meta.namespace}/{meta.name}"


def ref_of(kind: ObjectKind, name: str) -> Ref:
    """What ``key`` made short."""
    if kind in CLUSTER_SCOPED:
        return Ref(kind, "", name)
    namespace, _, bare = name.partition("/")
    return Ref(kind, namespace, bare)


def read_page(kind: ObjectKind, body: bytes) -> Listed:
    """One answer to a list request. Raises ``Unreachable`` when it is not a list at all."""
    try:
        page = _pages[kind].decode(body)
    except msgspec.MsgspecError:
        return _read_slowly(kind, body)
    named = [item for item in page.items or () if item.metadata.name]
    if len(named) != len(page.items or ()):
        return _read_slowly(kind, body)
    return Listed(page.metadata.resource_version, page.metadata.token, named, ())


def _read_slowly(kind: ObjectKind, body: bytes) -> Listed:
    try:
        page = _raw_pages.decode(body)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the API server answers something that is no list: {error}") from None
    found: list[KubernetesObject] = []
    refused: list[Refusal] = []
    for raw in page.items or ():
        match _object(kind, raw):
            case Refusal() as refusal:
                refused.append(refusal)
            case object_:
                found.append(object_)
    return Listed(page.metadata.resource_version, page.metadata.token, found, refused)


def read_events(kind: ObjectKind, lines: Iterable[bytes]) -> list[Happening]:
    """What lines of a watch tell. Raises the failure that an ERROR event means, and drops the rest.

    What comes before an ERROR in the same call is lost: give one read's lines at a time, and the
    next watch or list tells it again.
    """
    decoder = _events[kind]
    return [_read_event(kind, line, decoder) for line in lines]


def _read_event(
    kind: ObjectKind, line: bytes, decoder: msgspec.json.Decoder[_Event[Any]]
) -> Happening:
    try:
        event = decoder.decode(line)
    except msgspec.MsgspecError:
        return _read_event_slowly(kind, line)
    if event.type in {"ADDED", "MODIFIED"} and event.object.metadata.name:
        return Changed(event.object, event.object.metadata.resource_version)
    return _read_event_slowly(kind, line)


def _read_event_slowly(kind: ObjectKind, line: bytes) -> Happening:
    try:
        event = _raw_events.decode(line)
        if event.type == "ERROR":
            raise translate(_statuses.decode(event.object), code=500)
        meta = _names.decode(event.object).metadata
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the API server's watch sends what is no event: {error}") from None
    if event.type == "BOOKMARK":
        ended = (meta.annotations or {}).get(INITIAL_END) == "true"
        return Bookmark(meta.resource_version, ended)
    if event.type == "DELETED":
        return Deleted(_ref(kind, meta), meta.resource_version)
    match _object(kind, event.object):
        case Refusal() as refusal:
            return Unread(refusal, meta.resource_version)
        case object_:
            return Changed(object_, meta.resource_version)


def _object(kind: ObjectKind, raw: msgspec.Raw) -> KubernetesObject | Refusal:
    try:
        object_ = objects.decode(kind, bytes(raw))
    except msgspec.MsgspecError as error:
        return Refusal(_name_of(kind, raw), where_and_what(error))
    if not object_.metadata.name:
        return Refusal(None, "metadata.name: empty, expected a name")
    return object_


def _name_of(kind: ObjectKind, raw: msgspec.Raw) -> Ref | None:
    try:
        meta = _names.decode(raw).metadata
    except msgspec.MsgspecError:
        return None
    return _ref(kind, meta) if meta.name else None


def _ref(kind: ObjectKind, meta: _NameMeta) -> Ref:
    return Ref(kind, "" if kind in CLUSTER_SCOPED else meta.namespace, meta.name)


def where_and_what(error: Exception) -> str:
    """msgspec's message with the field first: ``spec.ports[0].port: expected `int`, got `str```."""
    message, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    return f"{field}: {message[:1].lower()}{message[1:]}" if field else message
