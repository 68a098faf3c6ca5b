"""The API as a running server: a socket, uvicorn in a thread, the publisher beside it.

Promise: once `start` returns, `url` takes connections; `stop` lets the requests in hand end and
publishes what waits, within `stop_within_s` seconds. Several can live in one process.
"""

from __future__ import annotations

import socket
import threading
from time import monotonic

import uvicorn

from atemporal.broker import Link
from atemporal.errors import Refused
from atemporal.settings import Settings
from atemporal.store.database import Database
from atemporal.telemetry import logger
from services.api.app import build
from services.api.publisher import Publisher

# Longer than a load balancer keeps an idle connection (60 s): it must be the one to close it.
_KEEP_ALIVE_S = 75
_FLUSH_S = 2.0


class ApiServer:
    """One listening API."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Build the application; nothing listens yet.

        Raises:
            Invalid: the settings have no callback key.
        """
        link = Link(
            settings.broker_url.get_secret_value(),
            name="atemporal api",
            declare=settings.broker_declare,
        )
        self._address = (settings.api_host, settings.api_port)
        self._stop_within_s = settings.stop_within_s
        self._publisher = Publisher(link)
        self._server = uvicorn.Server(
            uvicorn.Config(
                build(settings, database, self._publisher),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, int(settings.stop_within_s * 0.7)),
            )
        )
        self._thread = threading.Thread(target=self._serve, name="api", daemon=True)
        self._socket: socket.socket | None = None
        self._log = logger("api")
        self.url = ""

    def start(self) -> None:
        """Listen and serve.

        Raises:
            Refused: the address can not be listened on.
        """
        host, port = self._address
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            raise Refused(f"can not listen on {host} port {port}: {error}") from error
        # Its connections inherit it. asyncio sets it only where a socket names its protocol, and without
        # it a response in two pieces waits for the client's delayed ACK, 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shown = f"[{host}]" if family is socket.AF_INET6 else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._publisher.start()
        self._thread.start()
        self._log.info("listening", url=self.url)

    def stop(self) -> bool:
        """End; return whether all work in hand was done in time."""
        if self._socket is None:
            return True
        deadline = monotonic() + self._stop_within_s
        self._server.should_exit = True
        self._thread.join(self._stop_within_s * 0.8)
        # What is not published now the reaper's sweep finds: not worth a failure or a long wait.
        self._publisher.stop(min(_FLUSH_S, max(0.1, deadline - monotonic())))
        return not self._thread.is_alive()

    def _serve(self) -> None:
        assert self._socket is not None
        self._server.run(sockets=[self._socket])
