"""What a request asks for, refused where a real API server would refuse it."""

import json
from typing import Any

from aiohttp import web

from tests.support.kube import refusals
from tests.support.kube.catalog import Kind
from tests.support.kube.selectors import field_names, labels_match
from tests.support.kube.store import View

Manifest = dict[str, Any]
FIELDS = {
    "pods": {"status.phase", "spec.nodeName", "spec.restartPolicy", "status.podIP"},
    "nodes": {"spec.unschedulable"},
    "namespaces": {"status.phase"},
}
"""Fields that a selector may name, besides name and namespace."""


async def body_of(request: web.Request) -> Manifest:
    """The JSON of the body, an empty object when there is none."""
    if not request.can_read_body:
        return {}
    if request.content_type not in {"application/json", "application/merge-patch+json"}:
        raise refusals.unknown_format()
    try:
        found = await request.json()
    except json.JSONDecodeError as error:
        raise refusals.bad(f"json parse error: {error}") from error
    if not isinstance(found, dict):
        raise refusals.bad("json parse error: no object")
    return found


def check(kind: Kind, version: str, space: str, name: str, manifest: Manifest) -> None:
    """The object is what the path names."""
    told = (manifest.get("kind", kind.name), manifest.get("apiVersion"))
    if told[0] != kind.name or told[1] not in {None, kind.api_version(version)}:
        raise refusals.bad(f"{told[0]} in version {told[1]} cannot be handled as a {kind.name}")
    meta = manifest.get("metadata", {})
    if meta.get("namespace", space) != space:
        raise refusals.bad(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if name and meta.get("name", name) != name:
        text = (
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
        raise refusals.bad(text)


def view_of(request: web.Request, kind: Kind, space: str) -> View:
    """Which objects it is about."""
    labels = request.query.get("labelSelector", "")
    fields = request.query.get("fieldSelector", "")
    try:
        labels_match(labels, {})
        named = field_names(fields)
    except ValueError as error:
        raise refusals.bad(f"unable to parse requirement: {error}") from error
    for field in named - FIELDS.get(kind.title, set()) - {"metadata.name", "metadata.namespace"}:
        raise refusals.bad(f'"{field}" is not a known field selector')
    return View(kind, space, labels, fields)


def page_of(request: web.Request, revision: int) -> tuple[int, str]:
    """How many objects, and after which page; ``revision`` is the store's."""
    query = request.query
    limit, asked, token = (query.get(each, "") for each in ("limit", "resourceVersion", "continue"))
    if limit and not limit.isdecimal():
        raise refusals.bad(f'strconv.ParseInt: parsing "{limit}": invalid syntax')
    if token and asked:
        raise refusals.bad("specifying resource version is not allowed when using continue")
    if asked.isdecimal() and int(asked) > revision:
        raise refusals.too_large(int(asked), revision)
    return int(limit or 0), token
