"""The same questions for any API server, and its answers without what is different every time.

``python -m tests.support.kube.dialogue`` writes the answers of a real kube-apiserver down
(tests/support/kube/README.md says how to name one); the test API server has to give the same.
"""

import asyncio
import json
import re
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import aiohttp

from clustermesh.places.connection import REVIEW, REVIEWS
from tests.support.kube import manifests as make
from tests.support.kube.kubeserver import ADMIN_TOKEN, READER_TOKEN, Kube, running
from tests.support.kube.real import real_kube

Answer = dict[str, Any]
GOLDEN = Path(__file__).parents[2] / "golden/kube-apiserver.json"
SPACE = "/api/v1/namespaces/default"
SERVICES = f"{SPACE}/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
EXPORTS = "/apis/multicluster.x-k8s.io/v1alpha1/namespaces/default/serviceexports"
MERGE = "application/merge-patch+json"
FLEETING = {"resourceVersion", "uid", "creationTimestamp", "managedFields", "continue", "renewTime"}
WORDED = {
    *("json parse error", "cannot be handled as", "unrecognized"),
    *("unable to parse", "known field selector", "continue key"),
}
"""Refusals that each server, and each release, puts in words of its own."""


def lease(name: str, **spec: object) -> make.Manifest:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": spec,
    }


class Dialogue:
    """Asks, and notes what is answered. Use as ``async with``."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._tls = ssl.create_default_context(cadata=kube.server.authority.pem)
        self.answers: dict[str, Answer] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(
        self,
        name: str,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = ADMIN_TOKEN,
        content: str = "application/json",
    ) -> Answer:
        """The body of the answer, all of it."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.request(
            method,
            self._kube.server.url + path,
            data=data,
            headers=headers | ({"Content-Type": content} if data is not None else {}),
            ssl=self._tls,
        ) as response:
            text = await response.text()
        assert name not in self.answers
        self.answers[name] = {"code": response.status, "says": said(text)}
        return json.loads(text) if text.startswith("{") and "\n{" not in text else {}


def said(text: str) -> object:
    """What of an answer stays the same: lists and watches are told by names."""
    if not text.startswith("{"):
        return text
    lines = [json.loads(line) for line in text.strip().split("\n")] if text.strip() else []
    if lines and "object" in lines[0]:
        return [[each["type"], _named(each["object"])] for each in lines]
    return _named(lines[0])


def _named(found: Answer) -> object:
    if found["kind"] == "Status":
        return _status(found)
    if "items" in found:
        rest = found["metadata"].get("remainingItemCount")
        names = [f"{each.get('kind', '')} {each['metadata']['name']}" for each in found["items"]]
        return {"kind": found["kind"], "names": names, "remaining": rest}
    return _lasting(found)


def _status(found: Answer) -> Answer:
    found = _lasting(found)
    found.pop("metadata", None)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d+\b", "N", found.pop("message", ""))
    if not any(word in text for word in WORDED):
        found["message"] = text.partition(" to display ")[0]
    return {key: value for key, value in found.items() if value}


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in sorted(value.items()) if k not in FLEETING}
    if isinstance(value, list):
        return [_lasting(each) for each in value]
    return value


async def talk(kube: Kube) -> dict[str, Answer]:
    """Everything that is asked."""
    async with Dialogue(kube) as with_:
        await _who(with_)
        await _nothing(with_)
        await _writing(with_)
        await _refused(with_)
        version, page = await _lists(with_)
        await _watches(with_, version)
        await _deleting(with_)
        await kube.admin.apply(make.SERVICE_EXPORTS)
        await _custom(with_)
        await kube.admin.apply(make.pod("p", "10.1.0.9"))
        await _programs(with_)
        await kube.server.lose_history()
    async with Dialogue(kube) as after:
        await after.ask("a page of lost history", "GET", f"{SERVICES}?limit=2&continue={page}")
        await after.ask("a watch from lost history", "GET", _watch(version))
        return with_.answers | after.answers


async def _who(with_: Dialogue) -> None:
    await with_.ask("nobody", "GET", SERVICES, token="")
    await with_.ask("a wrong token", "GET", SERVICES, token="wrong")  # noqa: S106
    for name, method, path in (
        ("may not list anywhere", "GET", "/api/v1/services"),
        ("may not list here", "GET", SERVICES),
        ("may not watch", "GET", "/api/v1/services?watch=true"),
        ("may not list a group's", "GET", "/apis/discovery.k8s.io/v1/endpointslices"),
        ("may not get", "GET", f"{SERVICES}/x"),
        ("may not delete", "DELETE", f"{SERVICES}/x"),
    ):
        await with_.ask(name, method, path, token=READER_TOKEN)
    body, path = make.service("a"), f"{SERVICES}/a/status"
    await with_.ask("may not create", "POST", SERVICES, body, token=READER_TOKEN)
    await with_.ask("may not patch", "PATCH", path, {}, token=READER_TOKEN, content=MERGE)


async def _nothing(with_: Dialogue) -> None:
    for name, path in (
        ("no object", f"{SERVICES}/none"),
        ("no kind", "/api/v1/nothings"),
        ("no group", "/apis/none.io"),
        ("no group's version", "/apis/none.io/v1"),
        ("no group's kind", "/apis/none.io/v1/x"),
        ("no version", "/apis/discovery.k8s.io/v9/endpointslices"),
        ("no kind of a group", "/apis/discovery.k8s.io/v1/nothings"),
    ):
        await with_.ask(name, "GET", path)
    path = SERVICES.replace("default", "nowhere")
    await with_.ask("no namespace", "POST", path, make.service("a"))
    await with_.ask("nothing to patch", "PATCH", f"{SERVICES}/none", {}, content=MERGE)
    await with_.ask("nothing to delete", "DELETE", f"{SERVICES}/none")


async def _writing(with_: Dialogue) -> None:
    made = await with_.ask("a service", "POST", SERVICES, make.service("a", "10.96.7.1"))
    await with_.ask("the service again", "POST", SERVICES, make.service("a"))
    same = await with_.ask("the service as it is", "PUT", f"{SERVICES}/a", made)
    versions = {each["metadata"]["resourceVersion"] for each in (made, same)}
    assert len(versions) == 1, "what changes nothing has no version of its own"
    old = {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}
    await with_.ask("an old service", "PUT", f"{SERVICES}/a", old)
    old = {"metadata": {"resourceVersion": "1", "labels": {"a": "b"}}}
    await with_.ask("a patch for an old one", "PATCH", f"{SERVICES}/a", old, content=MERGE)
    label = {"metadata": {"labels": {"x": "y"}}}
    await with_.ask("a patch", "PATCH", f"{SERVICES}/a", label, content=MERGE)
    await with_.ask("a slice", "POST", SLICES, make.endpoint_slice("a-1", "a", "10.1.0.1"))
    mapped = make.endpoint_slice("a-2", "a", "::ffff:10.1.0.1")
    await with_.ask("a slice of a mapped address", "POST", SLICES, mapped)
    await with_.ask("a namespace", "POST", "/api/v1/namespaces", make.namespace("n1", zone="a"))
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 15}
    await with_.ask("a lease", "POST", LEASES, lease("l", **spec))
    await with_.ask("a lease of no version", "PUT", f"{LEASES}/l", lease("l", **spec))
    await with_.ask("another name", "PUT", f"{SERVICES}/b", make.service("a"))


async def _refused(with_: Dialogue) -> None:
    elsewhere = make.service("z")
    elsewhere["metadata"]["namespace"] = "other"
    await with_.ask("another namespace", "POST", SERVICES, elsewhere)
    for port in (99_999, "eighty"):
        bad = make.service("bad")
        bad["spec"]["ports"][0]["port"] = port
        await with_.ask(f"port {port}", "POST", SERVICES, bad)
    await with_.ask("no JSON", "POST", SERVICES, b"{nonsense")
    await with_.ask("plain text", "POST", SERVICES, b"x", content="text/plain")
    await with_.ask("a patch of no kind", "PATCH", f"{SERVICES}/a", {})
    await with_.ask("a pod among services", "POST", SERVICES, {"kind": "Pod", "apiVersion": "v1"})
    bad = {**make.endpoint_slice("b", "a", "10.1.0.1"), "addressType": "IPv7"}
    await with_.ask("no address type", "POST", SLICES, bad)
    await with_.ask("no address", "POST", SLICES, make.endpoint_slice("b", "a", "none"))
    await with_.ask("no duration", "POST", LEASES, lease("m", leaseDurationSeconds=0))
    await with_.ask("no time", "POST", LEASES, lease("m", renewTime="2026-01-01"))


async def _lists(with_: Dialogue) -> tuple[str, str]:
    """The version of a list, and how it goes on."""
    for number, name in enumerate("bcde", 2):
        service = make.service(name, f"10.96.7.{number}")
        await with_.ask(f"service {name}", "POST", SERVICES, service)
    first = await with_.ask("a page", "GET", f"{SERVICES}?limit=2&labelSelector=!component")
    token, version = (first["metadata"][each] for each in ("continue", "resourceVersion"))
    rest = f"{SERVICES}?limit=2&labelSelector=!component&continue={token}"
    second = await with_.ask("the next page", "GET", rest)
    assert second["metadata"]["resourceVersion"] == version
    await with_.ask("the next page again", "GET", rest)
    await with_.ask("a page of a version", "GET", f"{rest}&resourceVersion=5")
    for name, query in (
        ("no page", "limit=2&continue=nonsense"),
        ("no number", "limit=x"),
        ("labels of no sense", "labelSelector=a%3D%3D%3Db"),
        ("fields of no kind", "fieldSelector=spec.none%3Dx"),
        ("one by its name", "fieldSelector=metadata.name%3Da"),
        ("what is not known yet", "resourceVersion=999999999"),
    ):
        await with_.ask(name, "GET", f"{SERVICES}?{query}")
    return version, token


def _watch(version: str = "", **more: str) -> str:
    query = {"watch": "true", "timeoutSeconds": "1", **more}
    if version:
        query["resourceVersion"] = version
    return f"{SERVICES}?" + "&".join(f"{key}={value}" for key, value in query.items())


async def _watches(with_: Dialogue, version: str) -> None:
    one = {"fieldSelector": "metadata.name%3Da"}
    bookmarks = {"allowWatchBookmarks": "true"}
    async with asyncio.TaskGroup() as tasks:
        for name, path in (
            ("a watch of nothing new", _watch(version)),
            ("a watch of what exists", _watch(**one)),
            ("a watch from version 0", _watch("0", **one)),
            ("a watch from a version to come", _watch("999999999", **bookmarks)),
        ):
            tasks.create_task(with_.ask(name, "GET", path))
    stream = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    await with_.ask("a stream of what exists", "GET", _watch(**stream, **bookmarks))
    for number, label in enumerate(("y", "y", None)):
        patch = {"metadata": {"labels": {"in": label}}, "spec": {"sessionAffinity": "None"}}
        patch["metadata"]["annotations"] = {"n": str(number)}
        name = f"label {number}"
        await with_.ask(name, "PATCH", f"{SERVICES}/b", patch, content=MERGE)
    await with_.ask("a watch of a label", "GET", _watch(version, labelSelector="in%3Dy"))


async def _deleting(with_: Dialogue) -> None:
    for what in ("uid", "resourceVersion"):
        body = {"preconditions": {what: "1"}}
        await with_.ask(f"a deletion for another {what}", "DELETE", f"{SERVICES}/d", body)
    await with_.ask("a deletion", "DELETE", f"{SERVICES}/d")
    await with_.ask("a deletion in a group", "DELETE", f"{SLICES}/a-1")


async def _custom(with_: Dialogue) -> None:
    await with_.ask("a custom object", "POST", EXPORTS, make.service_export("a"))
    await with_.ask("one of no version", "PUT", f"{EXPORTS}/a", make.service_export("a"))
    await with_.ask("a list of custom objects", "GET", EXPORTS)
    await with_.ask("a custom deletion", "DELETE", f"{EXPORTS}/a")


async def _programs(with_: Dialogue) -> None:
    """Rights to run them in pods, and who is refused before a kubelet is asked."""
    for name, token in (("may", ADMIN_TOKEN), ("may not", READER_TOKEN)):
        what = {"verb": "get", "resource": "pods", "subresource": "exec", "namespace": "default"}
        body = {"apiVersion": REVIEWS, "kind": REVIEW, "spec": {"resourceAttributes": what}}
        path = f"/apis/{REVIEWS}/{REVIEW.lower()}s?dryRun=All"
        answer = await with_.ask(f"whether one {name}", "POST", path, body, token=token)
        with_.answers[f"whether one {name}"]["says"] = answer["status"]["allowed"]
    command = "command=true&stdin=true&stdout=true&stderr=true"
    for name, path, token in (
        ("a program in no pod", f"q/exec?container=main&{command}", ADMIN_TOKEN),
        ("a program in no container", f"p/exec?container=none&{command}", ADMIN_TOKEN),
        ("a program on no node", f"p/exec?container=main&{command}", ADMIN_TOKEN),
        ("a program without the right", f"p/exec?container=main&{command}", READER_TOKEN),
    ):
        await with_.ask(name, "GET", f"{SPACE}/pods/{path}", token=token)


async def _record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running(real_kube, Path(folder)) as kube:
            answers = await talk(kube)
            version = (await kube.admin.call("GET", "/version"))["goVersion"]
    GOLDEN.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{len(answers)} answers of a server built with {version}\n")


if __name__ == "__main__":
    asyncio.run(_record())
