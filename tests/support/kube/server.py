"""A test API server: the real HTTP protocol over the store, with faults on request."""

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.kube import refusals
from tests.support.kube import store as stores
from tests.support.kube.admission import Admission
from tests.support.kube.answers import done, event, open_, send, status, status_body
from tests.support.kube.catalog import BUILT_IN, CRDS, Catalog, Kind, of_crd
from tests.support.kube.faults import Fault, Faults
from tests.support.kube.listening import Listening
from tests.support.kube.podparts import PARTS, PodParts
from tests.support.kube.questions import body_of, check, page_of, view_of
from tests.support.kube.rbac import ADMIN, User, allowed
from tests.support.kube.refusals import Refused
from tests.support.kube.store import Manifest, Store, View

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
TYPE = {"kind", "apiVersion"}
INITIAL_END = "k8s.io/initial-events-end"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Target:
    """What a path names."""

    kind: Kind
    version: str
    namespace: str = ""
    name: str = ""
    part: str = ""


@dataclass
class Options:
    """What differs between API servers."""

    watch_list: bool = True
    bookmark_every: float = 60.0
    gone_as_status: bool = False
    """410 as the answer to a watch, instead of an ERROR event inside it."""
    accepts: bool = True
    """False: 503 to everything, as while starting."""


@dataclass
class TestApi:
    """Serves until stopped; what it knows survives a stop."""

    __test__ = False

    tls: ssl.SSLContext | None = None
    users: dict[str, User] = field(default_factory=lambda: {"admin-token": ADMIN})
    """By bearer token; client certificates name their users themselves."""
    store: Store = field(default_factory=Store)
    catalog: Catalog = field(default_factory=Catalog)
    faults: Faults = field(default_factory=Faults)
    options: Options = field(default_factory=Options)
    requests: list[str] = field(default_factory=list)
    used: set[tuple[str, str, str]] = field(default_factory=set)
    """Who did what to which resource: user, verb, ``plural.group`` or ``plural.group/part``."""
    pods: PodParts = field(default_factory=PodParts)
    port: int = 0
    _runner: web.AppRunner | None = None
    listening: Listening | None = None
    _open: set[asyncio.Transport] = field(default_factory=set)

    @property
    def _admission(self) -> Admission:
        return Admission(lambda: iter(self.store.objects.get("services", {}).values()))

    async def start(self) -> None:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        self.listening = Listening("127.0.0.1", self.port)
        await web.SockSite(self._runner, self.listening, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Tear every connection down, as a killed process does."""
        self.cut()
        if self._runner is not None and self.listening is not None:
            self.listening.hang_up()
            await self._runner.cleanup()
            await self.listening.hung_up()
            self._runner = self.listening = None

    def cut(self) -> None:
        """Tear every connection down and go on."""
        for transport in list(self._open):
            transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        stores.DRY_RUN.set(request.query.get("dryRun") == "All")
        transport = request.transport
        if transport is None:
            raise web.HTTPServiceUnavailable
        self._open.add(transport)
        self.requests.append(f"{request.method} {request.path_qs}")
        try:
            return await self._answer(request)
        except Refused as refused:
            return status(refused)
        except ConnectionError:
            return web.Response()
        finally:
            self._open.discard(transport)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not self.options.accepts:
            raise Refused(503, "ServiceUnavailable", "apiserver is starting")
        fault = self.faults.strike(f"{request.method} {request.path_qs}")
        if fault is not None and fault.cut_after < 0:
            return await self._fail(fault)
        user = self._user(request)
        if request.path in {"/readyz", "/livez"}:
            return web.Response(text="ok")
        if request.path == REVIEWS:
            return await self._review(user, request)
        pod, proxied, path = request.path.partition("/proxy/")
        if proxied:
            return self.pods.proxied(pod.rpartition("/")[2], f"/{path}")
        target = self._target(request.path)
        if not isinstance(target, Target):
            return web.json_response(target)
        self._authorize(user, request, target)
        if target.part in PARTS:
            found = self.store.get(target.kind, (target.namespace, target.name))
            return await self.pods.answer(request, found, target.part)
        return await self._serve(request, target, fault)

    async def _review(self, user: User, request: web.Request) -> web.Response:
        """Whether the user may do something."""
        asked = (review := await body_of(request))["spec"]["resourceAttributes"]
        (kind,) = (it for it in self.catalog if it.plural == asked["resource"])
        what = (asked.get(key, "") for key in ("subresource", "name", "namespace"))
        may = allowed(self.store, user, asked["verb"], kind, *what)
        return web.json_response({**review, "status": {"allowed": may}}, status=201)

    async def _fail(self, fault: Fault) -> web.StreamResponse:
        if fault.stall:
            await asyncio.sleep(3600)
        if fault.body:
            return web.Response(body=fault.body, content_type="application/json")
        headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
        refused = Refused(fault.status, "InternalError", "a fault of the test")
        return status(refused, headers)

    def _user(self, request: web.Request) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token in self.users:
            return self.users[token]
        certificate = request.get_extra_info("peercert")
        if certificate and not token:
            names: dict[str, list[str]] = {}
            for ((key, value),) in certificate["subject"]:
                names.setdefault(key, []).append(value)
            groups = frozenset(names.get("organizationName", []))
            return User(names["commonName"][0], groups)
        raise Refused(401, "Unauthorized", "Unauthorized")

    def _target(self, path: str) -> Target | Manifest:
        match path.strip("/").split("/"):
            case ["api", version, *rest]:
                group = ""
            case ["apis"]:
                return self._groups()
            case ["apis", group]:
                return self._group(group)
            case ["apis", group, version, *rest]:
                pass
            case _:
                raise refusals.nothing()
        if not rest:
            return self._resources(group, version)
        return self._named(group, version, rest)

    def _named(self, group: str, version: str, rest: list[str]) -> Target:
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in {"status", "finalize"}:
            namespace, rest = rest[1], rest[2:]
        kind = self.catalog.find(group, version, rest[0])
        if kind is None:
            self._group(group)
            raise refusals.nothing()
        name, part = [*rest[1:], "", ""][:2]
        return Target(kind, version, namespace, name, part)

    def _groups(self) -> Manifest:
        groups = sorted({kind.group for kind in self.catalog if kind.group})
        return {"kind": "APIGroupList", "groups": [self._group(each) for each in groups]}

    def _group(self, group: str) -> Manifest:
        versions = [v for kind in self.catalog if kind.group == group for v in kind.versions]
        if not versions:
            raise web.HTTPNotFound(text="404 page not found\n")
        listed = [{"groupVersion": f"{group}/{v}", "version": v} for v in dict.fromkeys(versions)]
        return {"name": group, "versions": listed, "preferredVersion": listed[0]}

    def _resources(self, group: str, version: str) -> Manifest:
        kinds = [k for k in self.catalog if k.group == group and version in k.versions]
        if not kinds:
            self._group(group)
            raise refusals.nothing()
        return {
            "kind": "APIResourceList",
            "groupVersion": kinds[0].api_version(version),
            "resources": [
                {"name": each.plural, "kind": each.name, "namespaced": each.namespaced}
                for each in kinds
            ],
        }

    def _authorize(self, user: User, request: web.Request, target: Target) -> None:
        verb = VERBS.get(request.method, "get" if target.name else "list")
        if "watch" in request.query:
            verb = "watch"
        what = (target.kind, target.part, target.name, target.namespace)
        if allowed(self.store, user, verb, *what):
            part = f"/{target.part}" if target.part else ""
            self.used.add((user.name, verb, target.kind.title + part))
            return
        raise refusals.forbidden(user.name, verb, *what)

    async def _serve(
        self, request: web.Request, target: Target, fault: Fault | None
    ) -> web.StreamResponse:
        name = (target.namespace, target.name)
        match request.method:
            case "GET" if target.name:
                body = self.store.get(target.kind, name)
            case "GET" if request.query.get("watch") in {"true", "1"}:
                return await self._watch(request, target, fault)
            case "GET":
                return await self._list(request, target, fault)
            case "POST":
                body = await self._create(target, await body_of(request))
            case "PUT":
                body = await self._replace(target, await body_of(request))
            case "PATCH":
                body = await self._patch(request, target)
            case "DELETE":
                asked = await body_of(request)
                return web.json_response(
                    await self._delete(target, asked.get("preconditions") or {})
                )
            case _:
                raise Refused(405, "MethodNotAllowed", "the server does not allow this method")
        code = 201 if request.method == "POST" else 200
        return web.json_response(_typed(target, body), status=code)

    async def _create(self, target: Target, manifest: Manifest) -> Manifest:
        kind = target.kind
        if kind.namespaced:
            self.store.get(self.catalog.namespaces, ("", target.namespace))
        check(kind, target.version, target.namespace, "", manifest)
        if kind.has_status:
            manifest = {key: value for key, value in manifest.items() if key != "status"}
        name = (target.namespace, manifest["metadata"]["name"])
        made = await self.store.create(kind, name, self._admission.admit(kind, manifest, None))
        if kind.title == CRDS.title:
            self.catalog.add(of_crd(made))
            made = {**made, "status": {"conditions": [{"type": "Established", "status": "True"}]}}
        return made

    async def _delete(self, target: Target, preconditions: dict[str, str]) -> Manifest:
        gone = await self.store.delete(target.kind, (target.namespace, target.name), preconditions)
        if target.kind.title == CRDS.title:
            kind = of_crd(gone)
            for name in list(self.store.objects.get(kind.title, {})):
                await self.store.delete(kind, name, {})
            self.catalog.remove(kind)
        if target.kind.title in {"pods", CRDS.title}:  # these may take a while to go
            return _typed(target, gone)
        return done(target.kind, gone)

    async def _patch(self, request: web.Request, target: Target) -> Manifest:
        if "merge-patch" not in request.content_type:
            raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type")
        name = (target.namespace, target.name)
        patched = stores.merge(self.store.get(target.kind, name), await body_of(request))
        return await self._replace(target, patched)

    async def _replace(self, target: Target, manifest: Manifest) -> Manifest:
        name = (target.namespace, target.name)
        check(target.kind, target.version, *name, manifest)
        if not target.part:
            manifest = self._admission.admit(
                target.kind, manifest, self.store.get(target.kind, name)
            )
        return await self.store.replace(target.kind, name, manifest, part=target.part)

    async def _list(
        self, request: web.Request, target: Target, fault: Fault | None
    ) -> web.StreamResponse:
        view = view_of(request, target.kind, target.namespace)
        limit, after = page_of(request, self.store.revision)
        items, revision, token, more = self.store.page(view, limit, after)
        meta: dict[str, Any] = {"resourceVersion": str(revision)}
        if token:
            meta["continue"] = token
        if token and not (view.labels or view.fields):
            meta["remainingItemCount"] = more
        if target.kind in BUILT_IN:
            items = [{k: v for k, v in each.items() if k not in TYPE} for each in items]
        body = json.dumps(
            {
                "kind": f"{target.kind.name}List",
                "apiVersion": target.kind.api_version(target.version),
                "metadata": meta,
                "items": items,
            }
        ).encode()
        response = await open_(request, fault, length=len(body))
        await send(request, response, body, fault)
        return response

    async def _watch(
        self, request: web.Request, target: Target, fault: Fault | None
    ) -> web.StreamResponse:
        query, view = request.query, view_of(request, target.kind, target.namespace)
        wants_all = query.get("sendInitialEvents") == "true"
        if query.get("resourceVersionMatch") and not (wants_all and self.options.watch_list):
            raise refusals.no_streams()
        asked = query.get("resourceVersion", "")
        if asked and not asked.isdecimal():
            raise Refused(
                400, "BadRequest", f'strconv.ParseUint: parsing "{asked}": invalid syntax'
            )
        lost = asked not in {"", "0"} and int(asked) < self.store.oldest
        expired = Refused(
            410, "Expired", f"too old resource version: {asked} ({self.store.oldest})"
        )
        if lost and self.options.gone_as_status:
            raise expired
        response = await open_(request, fault)
        if lost:
            await event(request, response, fault, "ERROR", status_body(expired))
            return response
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(query.get("timeoutSeconds", "3600"))):
                await self._tell(request, response, target, view, asked, fault)
        return response

    async def _tell(
        self,
        request: web.Request,
        response: web.StreamResponse,
        target: Target,
        view: View,
        asked: str,
        fault: Fault | None,
    ) -> None:
        query, revision = request.query, int(asked or 0)

        async def tell(type_: str, body: Manifest) -> None:
            await event(request, response, fault, type_, _typed(target, body))

        if revision == 0:
            revision = self.store.revision
            for object_ in self.store.all(view):
                await tell("ADDED", object_)
            if query.get("sendInitialEvents") == "true":
                await tell("BOOKMARK", _bookmark(revision, {INITIAL_END: "true"}))
        while True:
            steps, revision = self.store.since(view, revision), max(revision, self.store.revision)
            for type_, object_ in steps:
                await tell(type_, object_)
            quiet = not await self._more(revision) and self.store.revision >= revision
            if quiet and query.get("allowWatchBookmarks") == "true":
                await tell("BOOKMARK", _bookmark(self.store.revision, {}))

    async def _more(self, revision: int) -> bool:
        """Wait for anything later; False when a bookmark is due."""
        try:
            async with asyncio.timeout(self.options.bookmark_every), self.store.changed:
                await self.store.changed.wait_for(lambda: self.store.revision > revision)
        except TimeoutError:
            return False
        return True


def _typed(target: Target, body: Manifest) -> Manifest:
    kind = {"kind": target.kind.name, "apiVersion": target.kind.api_version(target.version)}
    return {**kind, **body}


def _bookmark(revision: int, annotations: dict[str, str]) -> Manifest:
    meta: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    return {"metadata": meta, "spec": {}}
