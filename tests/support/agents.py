"""Agents and apiservers that say what a test wants, over HTTP on unix sockets."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

Answers = dict[str, Any]
"""Path (without the query) to a value, or to a function of the whole path and the body. Bytes go
as they are, everything else as JSON; ``Said`` with a status of its own."""


class Said(NamedTuple):
    """An answer with a status."""

    status: int
    value: Any


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no failure of the test."""


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            value = answers.get(self.path.partition("?")[0])
            if isinstance(value, Callable):
                value = value(self.path, body)
            code, value = value if isinstance(value, Said) else (200, value)
            if value is None:
                code, value = 404, {"error": "not found"}
            data = value if isinstance(value, bytes) else msgspec.json.encode(value)
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Silent."""

        def address_string(self) -> str:
            return "unix"

    return Handler


@contextmanager
def agent(path: Path, answers: Answers) -> Iterator[str]:
    """Answers on a unix socket; what ``answers`` holds may change meanwhile. The URL."""
    with _Server(str(path), _handler(answers)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"unix:{path}"
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)
