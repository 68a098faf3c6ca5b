"""A daemon's own HTTP port: `/healthz`, `/readyz`, `/metrics`.

Promise: `/healthz` answers 503 once a loop has not ended a tick for five minutes, so that whoever
watches restarts a stuck daemon; `/readyz` answers 503 while a loop's last tick failed, for example
because the database or the broker is away, and says why. Who is silent is cut off after ten seconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Protocol

from atemporal.errors import Refused
from atemporal.metrics import exposition

# Longer than the longest tick there may be: a launcher's 32 calls, 8 side by side, each waiting for an
# EC2 that does not answer, or an SDK's four tries one after the other.
STUCK_AFTER_S = 300.0


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Ticking(Protocol):
    """What is reported of a loop."""

    @property
    def loop(self) -> _Named:
        """The loop itself."""

    @property
    def last_tick_at(self) -> float:
        """When its last tick ended, on the monotonic clock."""

    @property
    def healthy(self) -> bool:
        """Whether its last tick went well."""

    @property
    def error(self) -> str:
        """Why its last tick failed; empty where it did not."""


class HealthServer:
    """The server, from `with` to the end of its block."""

    def __init__(self, runners: Sequence[Ticking], host: str, port: int) -> None:
        """Bind the address; port 0 takes a free one.

        Raises:
            Refused: it can not be listened on.
        """
        handler = type("Handler", (_Handler,), {"runners": runners})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise Refused(
                f"can not listen on {host} port {port}: {error}; each daemon of a machine needs an "
                "ATEMPORAL_HEALTH_PORT of its own"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="health"
        )
        bound_host, bound_port = self._server.server_address[:2]
        self.url = f"http://{bound_host!s}:{bound_port}"

    def __enter__(self) -> HealthServer:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    runners: Sequence[Ticking] = ()
    # Who connects and says nothing holds a thread no longer.
    timeout = 10.0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._respond(HTTPStatus.OK, *exposition())
        elif self.path in ("/healthz", "/readyz"):
            now = monotonic()
            ages = {runner.loop.name: now - runner.last_tick_at for runner in self.runners}
            well = {runner.loop.name: runner.healthy for runner in self.runners}
            fine = (
                all(age < STUCK_AFTER_S for age in ages.values())
                if self.path == "/healthz"
                else all(well.values())
            )
            loops: dict[str, dict[str, Any]] = {
                name: {"last_tick_age_s": round(age, 3), "last_tick_ok": well[name]}
                for name, age in ages.items()
            }
            for runner in self.runners:
                if runner.error:
                    loops[runner.loop.name]["error"] = runner.error
            status = HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
            self._respond(status, json.dumps({"ok": fine, "loops": loops}).encode())
        else:
            self._respond(HTTPStatus.NOT_FOUND, b'{"error": "try /healthz, /readyz, /metrics"}')

    def _respond(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep probes out of the log."""
