"""A registry that wants less: first it only says when to come back, then that it has no such image."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class LimitedRegistry:
    """For `limit_s` after the first question for an image each is answered with how long it wants."""

    limit_s: int
    address: str = ""
    pulls: list[float] = field(default_factory=list)
    """When docker began to ask, by the monotonic clock."""

    def answer(self, path: str) -> tuple[HTTPStatus, str, str]:
        """The status, the code and the text for a path."""
        if path == "/v2/":
            self.pulls.append(time.monotonic())
            return HTTPStatus.OK, "", ""
        if time.monotonic() < self.pulls[0] + self.limit_s:
            text = f"retry-after: {self.limit_s}s, allowed: 1/minute"
            return HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS", text
        return HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"


@contextmanager
def open_limited_registry(limit_s: int) -> Iterator[LimitedRegistry]:
    """Serve one on the loopback address."""
    registry = LimitedRegistry(limit_s)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, code, text = registry.answer(self.path)
            errors = {"errors": [{"code": code, "message": text}]} if code else {}
            body = json.dumps(errors).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """What is asked is counted, not written."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
