"""A kubelet's HTTPS endpoint: programs are started in its containers for the API server.

``python -m tests.support.kubelet.endpoint ADDRESS CONTAINERS CERTIFICATE KEY``; ``CONTAINERS`` is a
JSON file, read at every request: NAMESPACE/POD/CONTAINER to process id, user and environment.
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

    def told() -> dict[str, Any]:
        read: dict[str, Any] = json.loads(Path(containers).read_text())
        return read

    async def run(request: web.Request) -> web.StreamResponse:
        found = told().get(request.match_info["container"])
        if found is None:
            raise web.HTTPNotFound(text="container not found")
        user = (f"--setuid={found['user']}", f"--setgid={found['user']}")
        inside = (f"--target={found['pid']}", "--mount", "--root", "--wd", *user)
        env = ("env", "-i", *(f"{name}={value}" for name, value in found["env"].items()))
        return await execs.serve(request, lambda command: ("nsenter", *inside, *env, *command))

    app = web.Application()
    app.router.add_get("/exec/{container:.+}", run)
    web.run_app(app, host=address, port=PORT, ssl_context=tls, print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
