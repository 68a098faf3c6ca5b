"""The twin as a server: EC2's API, the machines' metadata and its own endpoint on one loopback port.

Promise: `Twin(directory).start()` serves real SDKs (signatures are not verified) until `stop()`. A
twin that starts on the directory of one that was killed goes on where that one was, on the same
port if it is free, because running machines know their metadata service by it. One twin a
directory.
"""

from __future__ import annotations

import fcntl
import http.server
import logging
import re
import selectors
import socket
import socketserver
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from atemporal.errors import Conflict, Invalid, Unavailable
from atemporal.identity.signer import CERTIFICATE, IdentitySigner
from atemporal.twin import jsonfile
from atemporal.twin.containers.engine import detect
from atemporal.twin.ec2 import limits, wire
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.api import ACTIONS
from atemporal.twin.ec2.interceptor import Interceptor, Severed
from atemporal.twin.faults import admin
from atemporal.twin.faults.active_rules import ActiveRules
from atemporal.twin.faults.admin import Admin
from atemporal.twin.faults.plan import FaultPlan
from atemporal.twin.host.host import Host
from atemporal.twin.host.metadata import Metadata
from atemporal.twin.host.pace import Pace
from atemporal.twin.state import State

BODY_LIMIT = 4 << 20
_METADATA = re.compile(r"/imds/(i-[0-9a-f]+)(/[^?]*)")
_log = logging.getLogger(__name__)


class Twin:
    """A local EC2 endpoint with its machines.

    `engine` is auto, docker, podman or process; `pace` says how long launches and ends take.
    `clock` gives seconds since the epoch; a terminated instance is forgotten by it. `limits` is aws
    for EC2's limits of calls, or none. The random numbers of `faults` follow from `seed`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        engine: str = "auto",
        region: str = "us-east-1",
        pace: Pace = Pace(),  # noqa: B008 - it is frozen
        clock: Callable[[], float] = time.time,
        limits: str = "none",
        seed: int | None = None,
    ) -> None:
        self._directory = directory.resolve()
        self._address = (host, port)
        self._engine_choice = engine
        self._region = region
        self._pace = pace
        self._clock = clock
        self._limits = limits
        self._seed = seed
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """The endpoint for `endpoint_url`, once started."""
        return self._now.url

    @property
    def identity_certificates(self) -> Path:
        """The PEM file with the certificate of its instance identity documents, once started."""
        return self._directory / CERTIFICATE

    @property
    def engine(self) -> str:
        """The kind of engine that jobs run on: docker, podman or process."""
        return self._now.host.engine.kind

    @property
    def faults(self) -> ActiveRules:
        """The fault rules; they can be changed at any time."""
        return self._now.faults

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The log of the last calls, oldest first; see `interceptor.Call`."""
        return self._now.interceptor.recent()

    @property
    def _now(self) -> _Running:
        if self._running is None:
            raise Conflict("the twin is not running; start() it first")
        return self._running

    def start(self) -> Twin:
        """Serve, and take back the machines of an earlier twin on this directory.

        Raises:
            Conflict: another twin serves this directory.
            Invalid: there is no such engine, or no such limits.
            Unavailable: the engine does not work, or the port is taken.
        """
        if self._running is None:
            self._running = _Running(
                self._directory,
                self._address,
                self._engine_choice,
                self._region,
                self._pace,
                self._clock,
                self._limits,
                self._seed,
            )
        return self

    def stop(self, *, power_off: bool = False) -> None:
        """Stop serving. Machines go on, unless they are to be powered off: then all are gone."""
        running, self._running = self._running, None
        if running is not None:
            running.stop(power_off=power_off)

    def __enter__(self) -> Twin:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(power_off=True)


class _Running:
    """All that a twin has while it serves."""

    def __init__(
        self,
        directory: Path,
        address: tuple[str, int],
        engine: str,
        region: str,
        pace: Pace,
        clock: Callable[[], float],
        limited: str,
        seed: int | None,
    ) -> None:
        if limited not in limits.CHOICES:
            raise Invalid({"limits": f"{limited!r} is none of {', '.join(limits.CHOICES)}"})
        # User-data hold secrets.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        chosen = detect(engine)
        self._lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise Conflict(
                f"another twin serves {directory}; stop it, or use another directory"
            ) from None
        try:
            self._server = _listen(address, directory / "endpoint.json")
        except Unavailable:
            self._lock.close()
            raise
        name, port = self._server.server_address[:2]
        self.url = f"http://{name!s}:{port}"
        state = State(directory, clock)
        self.faults = ActiveRules(
            directory, seed, ACTIONS, lambda rule, number: self.host.inject(rule, number)
        )
        plan = FaultPlan(state, self.faults, clock)
        self.host = Host(state, plan, chosen, pace, clock, lambda one: f"{self.url}/imds/{one}")
        account = Account(state, self.host, plan, region, clock)
        buckets = limits.Limits(clock) if limited == "aws" else None
        self.interceptor = Interceptor(account, self.faults, buckets)
        self._server.interceptor = self.interceptor
        self._server.admin = Admin(self.faults, self.interceptor.recent)
        self._server.metadata = Metadata(state, plan, IdentitySigner(directory))
        self.host.resume()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def stop(self, *, power_off: bool) -> None:
        # Machines that end need their metadata service and the API no longer than to their end.
        if power_off:
            self.host.close(power_off=True)
        self._server.shutdown()
        self._thread.join()
        self._server.close_all()
        self.host.close(power_off=False)
        self._lock.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    interceptor: Interceptor
    admin: Admin
    metadata: Metadata

    def __init__(self, address: tuple[str, int]) -> None:
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The base class asks the resolver for the host's full name, which can take seconds.
        self.allow_reuse_address = True
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        """Close the listener and every connection that a client keeps open."""
        self.server_close()
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # its client has closed it already

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            _log.exception("a request failed")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        """EC2's API, and what the twin has beside it."""
        body = self._body()
        if body is None:
            return
        if self.path.startswith(admin.PREFIX):
            self._handle_admin("POST", body)
            return
        request_id = str(uuid.uuid4())
        try:
            parameters = wire.parse(body.decode(errors="replace"))
            action = parameters.pop("Action", "")
            parameters.pop("Version", None)
            response = self.server.interceptor.handle(action, parameters)
            status, document = 200, wire.render(action, request_id, response)
        except Severed as severed:
            # A client that hangs up first is not waited for: the connection is readable then.
            with selectors.DefaultSelector() as selector:
                selector.register(self.connection, selectors.EVENT_READ)
                selector.select(severed.held_s)
            self.close_connection = True
            return
        except wire.ApiError as error:
            status, document = error.status, wire.render_error(error, request_id)
        except Exception:  # noqa: BLE001 - a client must get a response; the log has it all
            _log.exception("the twin failed at a request")
            failure = wire.ApiError("InternalError", "An internal error has occurred", 500)
            status, document = 500, wire.render_error(failure, request_id)
        self._reply(status, document, "text/xml;charset=UTF-8")

    def do_GET(self) -> None:
        """The metadata service, and what the twin has beside EC2."""
        if self.path.startswith(admin.PREFIX):
            self._handle_admin("GET", b"")
            return
        self._handle_metadata("GET")

    def do_PUT(self) -> None:
        """The metadata service's tokens."""
        self._handle_metadata("PUT")

    def do_DELETE(self) -> None:
        """Only what the twin has beside EC2."""
        self._handle_admin("DELETE", b"")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Requests are not logged: their parameters hold user-data."""

    def _body(self) -> bytes | None:
        """The request's body; None: it was too long and has been refused."""
        length = self.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) <= BODY_LIMIT:
            return self.rfile.read(int(length))
        self.close_connection = True
        self._reply(413, b"", "text/plain")
        return None

    def _handle_admin(self, method: str, body: bytes) -> None:
        status, document = self.server.admin.handle(method, self.path, body)
        self._reply(status, document, "application/json")

    def _handle_metadata(self, method: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        match = _METADATA.fullmatch(self.path)
        if match is None:
            self._reply(404, b"", "text/plain")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, body = self.server.metadata.handle(method, match[1], match[2], headers)
        self._reply(status, body, "text/plain")

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _listen(address: tuple[str, int], remembered: Path) -> _Server:
    """Listen; without a port to use it is the one that was used before, if it is free."""
    host, port = address
    before = jsonfile.read(remembered) or {}
    ports = [port] if port else [before.get("port", 0), 0]
    for possible in ports:
        try:
            server = _Server((host, possible))
        except OSError as error:
            failure = error
            continue
        jsonfile.replace(remembered, {"port": server.server_address[1]})
        return server
    raise Unavailable(f"can not listen on {host}:{port}: {failure}; choose another port")
