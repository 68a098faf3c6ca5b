"""Everything in one process: Postgres, broker, twin, API and the three daemons' loops.

Promise: after `start` jobs are taken and run; `stop` ends the work in hand and leaves nothing of ours
running but the machines, which call the same address again and are taken back at the next start,
unless they are to be powered off. If something fails to start, what was started is stopped.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pydantic import SecretStr

from atemporal.daemon import Daemon
from atemporal.errors import Unavailable
from atemporal.health import HealthServer
from atemporal.local.home import Home
from atemporal.local.postgres import EmbeddedPostgres
from atemporal.migrations import upgrade
from atemporal.settings import PREFIX, Settings, load
from atemporal.store.database import Database
from atemporal.telemetry import logger
from atemporal.twin.engine import Engine, detect
from atemporal.twin.server import Twin
from services.api.server import ApiServer
from services.launcher.__main__ import loops as launcher_loops
from services.reaper.__main__ import loops as reaper_loops
from services.scheduler.__main__ import loops as scheduler_loops

# One machine, one reader: what costs a busy region too many calls is free here.
_BRISK = {"sweep_interval_s": 2.0, "stale_after_s": 5.0, "cloud_grace_s": 10.0, "stop_within_s": 10.0}
_STAND_IN_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Stack:
    """All of it; the settings in the environment win over those of local mode."""

    def __init__(
        self,
        home: Home,
        *,
        port: int | None = None,
        engine: Engine | None = None,
        durable: bool = True,
    ) -> None:
        """Take the home; nothing is started yet.

        `port` is the API's; `engine` the container engine, else what this machine has.
        """
        self._home = home
        self._port = port
        self._durable = durable
        self._given = load().model_fields_set
        self._engine = engine
        self._postgres: EmbeddedPostgres | None = None
        self._open = ExitStack()
        self.settings = load()
        self.api_url = ""

    @property
    def runs_on(self) -> str:
        """Where jobs run, for a reader."""
        if self._engine is None:
            return f"instances of {self.settings.ec2_endpoint_url}"
        return self._engine.says

    def start(self) -> None:
        """Start everything; return when jobs are taken.

        Raises:
            Unavailable, Refused: something can not start; the message says what and why.
        """
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise

    def stop(self, *, power_off: bool = False) -> list[str]:
        """Stop everything, the newest first; return the names of loops that had to be cut off."""
        self._power_off = power_off
        self._cut: list[str] = []
        self._open.close()
        return self._cut
