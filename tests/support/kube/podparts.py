"""What the test API server answers below a pod: its log, its ports, its programs."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from tests.support.kube import execs
from tests.support.kube.refusals import Refused
from tests.support.kube.store import Manifest

PARTS = frozenset({"exec", "log"})


@dataclass
class PodParts:
    """By ``pod/container``, or ``pod:port``."""

    ports: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is answered to GET by way of ``pods/NAME/proxy``, by path."""
    logs: dict[str, str] = field(default_factory=dict)
    programs: dict[str, execs.Program] = field(default_factory=dict)
    """What stands here for the programs of a container."""
    protocols: tuple[str, ...] = execs.PROTOCOLS

    def proxied(self, pod: str, path: str) -> web.Response:
        value = self.ports.get(pod, {}).get(path)
        if value is None:
            raise Refused(503, "ServiceUnavailable", f"error trying to reach service: {pod}")
        return web.Response(body=msgspec.json.encode(value), content_type="application/json")

    async def answer(self, request: web.Request, pod: Manifest, part: str) -> web.StreamResponse:
        """Of a container that the query names."""
        name, container = pod["metadata"]["name"], request.query.get("container", "")
        if part == "log":
            return web.Response(text=self.logs.get(f"{name}/{container}", ""))
        if container not in {it["name"] for it in pod["spec"]["containers"]}:
            why = f"container {container} is not valid for pod {name}"
            raise Refused(400, "BadRequest", why)
        if not pod["spec"].get("nodeName"):
            raise Refused(400, "BadRequest", f"pod {name} does not have a host assigned")
        if not execs.upgrades(request):
            raise Refused(400, "BadRequest", "Upgrade request required")
        program = self.programs.get(f"{name}/{container}")
        if program is None:
            why = f'unable to upgrade connection: container not found ("{container}")'
            if "v5.channel.k8s.io" in self.protocols:
                return await execs.refuse(request, why, self.protocols)
            raise Refused(500, "InternalError", why)
        return await execs.serve(request, program, self.protocols)
