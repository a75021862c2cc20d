"""A kubelet's HTTPS endpoint: for the API server it starts programs in containers, and gives logs.

``python -m tests.support.kubelet.endpoint ADDRESS CONTAINERS CERTIFICATE KEY``; ``CONTAINERS`` is a
JSON file, read at every request: NAMESPACE/POD/CONTAINER to process id, user, environment and log.
"""

import json
import ssl
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.kube import execs

PORT = 10250


def main(address: str, containers: str, certificate: str, key: str) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    def of(request: web.Request) -> dict[str, Any]:
        read: dict[str, dict[str, Any]] = json.loads(Path(containers).read_text())
        found = read.get(request.match_info["container"])
        if found is None:
            raise web.HTTPNotFound(text="container not found")
        return found

    async def log(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(of(request)["log"])

    async def run(request: web.Request) -> web.StreamResponse:
        found = of(request)
        user = (f"--setuid={found['user']}", f"--setgid={found['user']}")
        inside = (f"--target={found['pid']}", "--mount", "--root", "--wd", *user)
        env = ("env", "-i", *(f"{name}={value}" for name, value in found["env"].items()))
        return await execs.serve(request, lambda command: ("nsenter", *inside, *env, *command))

    app = web.Application()
    app.router.add_get("/containerLogs/{container:.+}", log)
    app.router.add_get("/exec/{container:.+}", run)
    web.run_app(app, host=address, port=PORT, ssl_context=tls, print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
