"""A load balancer before the API's replicas: each connection goes to the next one that answers.

Promise: clients have one address, whichever replicas there are; a replica that ended is passed over.
Failure: while there is none, the connection is closed without an answer, and the client tries again.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import socketserver
import threading
from collections.abc import Sequence

_PIECE = 65_536


class Balancer:
    """Listens on a port of its own, until it is closed."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Pass connections on to who listens on `ports` of the loopback address, by turns."""
        self._ports = tuple(ports)
        self._next = itertools.count()
        balancer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                balancer._pass_on(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _pass_on(self, client: socket.socket) -> None:
        backend = self._connect()
        if backend is None:
            return
        with backend:
            answers = threading.Thread(target=_pump, args=(backend, client), daemon=True)
            answers.start()
            _pump(client, backend)
            answers.join()

    def _connect(self) -> socket.socket | None:
        first = next(self._next)
        for place in range(len(self._ports)):
            port = self._ports[(first + place) % len(self._ports)]
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                connection.settimeout(None)
                return connection
        return None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    # Whoever ends first ends both ways: HTTP has no half of a connection.
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
