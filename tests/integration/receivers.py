"""A receiver of webhooks: an HTTP server on loopback that answers as asked, and remembers what came."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier


@dataclass(frozen=True)
class Got:
    """One request; the headers' names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def event(self) -> dict[str, Any]:
        """What was sent."""
        read: dict[str, Any] = json.loads(self.body)
        return read


@dataclass
class Target:
    """What a receiver answers, and what it got."""

    url: str
    answer: Callable[[int], int | tuple[int, Mapping[str, str], bytes]] = lambda _n: 204
    """The status of the n-th request, from 0 on, or the status, headers and body."""
    got: list[Got] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The events that were accepted, in the order in which they came."""
        with self.lock:
            return [one.event for one in self.got if 200 <= one.status < 300]

    def verify(self, secret: str) -> None:
        """Each request is of who knows the secret, as the specification's own library says."""
        with self.lock:
            for one in self.got:
                Verifier(secret).verify(one.body, dict(one.headers))


@contextmanager
def receiving(port: int = 0) -> Iterator[Target]:
    """Receive on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if len(body) < int(self.headers.get("Content-Length") or 0):
                # Who sent it died over it.
                return
            with target.lock:
                number = len(target.got)
                # Its place is kept while the answer takes its time.
                target.got.append(Got(self.path, self._names(), body, 0))
            given = target.answer(number)
            status, headers, text = given if isinstance(given, tuple) else (given, {}, b"")
            with target.lock:
                target.got[number] = Got(self.path, self._names(), body, status)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                # Who sent it has given up.
                self.close_connection = True

        def _names(self) -> dict[str, str]:
            return {name.lower(): value for name, value in self.headers.items()}

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 100

        def process_request(self, request: Any, client_address: Any) -> None:
            connections.append(request)
            super().process_request(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Whoever hangs up has died, or is meant to."""

    connections: list[socket.socket] = []
    with Server(("127.0.0.1", port), Handler) as server:
        target = Target(f"http://127.0.0.1:{server.server_port}/hook?k=v")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield target
        finally:
            server.shutdown()
            thread.join()
            # One that is away keeps no connection alive.
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
