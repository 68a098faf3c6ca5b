"""Everything in one process: Postgres, broker, twin, API and the three daemons' loops.

Promise: after `start` jobs are taken and run; `stop` ends the work in hand and leaves nothing of ours
running but the machines, which call the same address again and are taken back at the next start,
unless they are to be powered off. If something can not start, what was started is stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from atemporal.cloud import Cloud
from atemporal.daemon import Daemon, Loop
from atemporal.identity.signer import CERTIFICATE
from atemporal.local.home import Home
from atemporal.local.postgres import EmbeddedPostgres
from atemporal.migrations import upgrade
from atemporal.settings import PREFIX, Settings, load
from atemporal.store.database import Database
from atemporal.telemetry import tell_unreadable
from atemporal.twin.containers.engine import PROCESS, Engine
from atemporal.twin.server import Twin
from services.api.server import ApiServer
from services.launcher.__main__ import loops as launcher_loops
from services.reaper.__main__ import loops as reaper_loops
from services.scheduler.__main__ import loops as scheduler_loops

# What would ask too much of a busy region costs nothing on one's own machine.
_BRISK = {
    "sweep_interval_s": 2.0,
    "stale_after_s": 5.0,
    "cloud_grace_s": 10.0,
    "stop_within_s": 10.0,
}
_CONNECTIONS = 20
_DEFAULT_PORT = 8080
# A daemon or the CLI elsewhere on this machine needs these to work on the same installation.
_SHARED = (
    *("deployment", "database_url", "broker_url", "callback_url", "callback_keys", "api_url"),
    *("region", "ec2_endpoint_url", "identity_certificates"),
)
SHARED_VARIABLES = tuple(f"{PREFIX}{name.upper()}" for name in _SHARED)
NO_ENGINE = (
    "without docker or podman here, the commands of jobs run as processes of this machine: what was not "
    "tried is the image, its architecture, the ports, and what docker makes of user, workdir, memory, "
    "volumes, GPUs and network"
)
"""What a job that succeeds does not prove where there is no container engine."""

_WILDCARDS = ("0.0.0.0", "::")
_SERVERS = ("database_url", "broker_url", "ec2_endpoint_url")
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


class Stack:
    """All of it. What the environment sets wins over local mode's own settings."""

    def __init__(
        self,
        home: Home,
        *,
        port: int | None = None,
        engine: Engine,
        durable: bool = True,
    ) -> None:
        """Prepare; nothing is started yet.

        `port` is the API's, else the one it had; `engine` runs the containers of our own machines;
        `durable` is whether Postgres waits for the disk.
        """
        self._home = home
        self._port = port
        self._engine = engine
        self._durable = durable
        self._postgres: EmbeddedPostgres | None = None
        self._twin: Twin | None = None
        self._database: Database | None = None
        self._api: ApiServer | None = None
        self._daemon: Daemon | None = None
        self._chosen: set[str] = set()
        self.settings: Settings = load()
        self.env: Path | None = None

    @property
    def database(self) -> Database:
        """The database, once started."""
        assert self._database is not None
        return self._database

    @property
    def api_url(self) -> str:
        """Where the API is, once started."""
        assert self._api is not None
        return self._api.url

    @property
    def runs_on(self) -> str:
        """What the jobs run on, for a reader."""
        if self._twin is None:
            return f"instances of {self.settings.ec2_endpoint_url}"
        return self._engine.says

    @property
    def servers(self) -> dict[str, str]:
        """The servers that are not ours, once started: variable and URL, password and all."""
        found = {name: getattr(self.settings, name) for name in _SERVERS if name in self._chosen}
        return {f"{PREFIX}{name.upper()}": _plain(value) for name, value in found.items()}

    def start(self) -> None:
        """Start everything; return when jobs are taken.

        Once the API answers, the `env` file is there.

        Raises:
            AtemporalError: something can not start; the message says what and why.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self, *, power_off: bool = False) -> list[str]:
        """Stop everything; return the names of loops that had to be cut off.

        Machines live on, unless they are to be powered off.
        """
        cut: list[str] = []
        if self._daemon is not None:
            self._daemon.stop.set()
            cut = self._daemon.join()
        if self._twin is not None:
            self._twin.stop(power_off=power_off)
        if self._api is not None and self._api.url and not self._api.stop():
            cut.append("api")
        if self._database is not None:
            self._database.dispose()
        if self._postgres is not None:
            self._postgres.stop()
        return cut

    def kill(self) -> None:
        """Leave no Postgres behind; the caller ends this process at once."""
        if self._postgres is not None:
            self._postgres.kill()

    def environment(self) -> tuple[dict[str, str], dict[str, str]]:
        """The variables by which other processes find this installation.

        The second are stand-ins, for those who have none of their own.
        """
        variables: dict[str, str] = {}
        for name in _SHARED:
            text = _plain(getattr(self.settings, name))
            # A broker in memory is in nobody else's memory.
            if text and not text.startswith("memory:"):
                variables[f"{PREFIX}{name.upper()}"] = text
        return variables, _CREDENTIALS if self._twin is not None else {}

    def _start(self) -> None:
        given = self._chosen = self._given()
        own: dict[str, Any] = {
            "broker_url": "memory://",
            "callback_keys": self._home.callback_keys,
        }
        own |= _BRISK
        if self._port is not None:
            own["api_port"] = self._home.keep_port("api", self._port)
            given = given - {"api_port"}
        elif "api_port" not in given:
            own["api_port"] = self._home.port("api", default=_DEFAULT_PORT)
        api_port = own.get("api_port", self.settings.api_port)
        if self._engine.kind == PROCESS and "ec2_endpoint_url" not in given:
            own["api_notice"] = NO_ENGINE
        own["callback_url"] = f"http://127.0.0.1:{api_port}"
        # Whatever API a shell speaks to, this file is about this one.
        host = self.settings.api_host
        own["api_url"] = f"http://{'127.0.0.1' if host in _WILDCARDS else host}:{api_port}"
        given = given - {"api_url"}
        if "database_url" not in given:
            own["database_url"] = self._start_postgres()
        if "ec2_endpoint_url" not in given:
            own["ec2_endpoint_url"] = self._start_twin()
            own["identity_certificates"] = str(self._home.directory / "twin" / CERTIFICATE)
        self.settings = load(**{name: own[name] for name in own.keys() - given})
        url = self.settings.database_url.get_secret_value()
        self._database = Database(
            url,
            application="atemporal local",
            pool_size=_CONNECTIONS,
            on_unreadable=tell_unreadable,
        )
        self._database.ping()
        upgrade(url)
        self._api = ApiServer(self.settings, self._database)
        self.env = self._home.write_env(*self.environment())
        self._api.start()
        loops: list[Loop] = []
        for build in (scheduler_loops, launcher_loops, reaper_loops):
            loops += build(self.settings, self._database)
        self._daemon = Daemon("local", loops, stop_within_s=self.settings.stop_within_s)
        self._daemon.start()

    def _given(self) -> set[str]:
        """The settings that the environment makes, but for what it has from our own `env` file."""
        given = set()
        for name in self.settings.model_fields_set:
            variable = f"{PREFIX}{name.upper()}"
            if not self._home.wrote(variable, os.environ.get(variable)):
                given.add(name)
        return given

    def _start_postgres(self) -> str:
        self._postgres = EmbeddedPostgres(
            self._home.directory / "postgres",
            password=self._home.database_password,
            durable=self._durable,
        )
        self._postgres.stop_leftover()
        return self._postgres.start(self._home.port("postgres"))

    def _start_twin(self) -> str:
        self._twin = Twin(
            self._home.directory / "twin",
            port=self._home.port("twin"),
            engine=self._engine.kind,
            region=self.settings.region,
        )
        self._twin.start()
        _aim_at_loopback()
        return self._twin.url


def take_down(home: Home, engine: Engine) -> int:
    """End the machines of an installation that is not up, and a Postgres that was left.

    Returns how many machines there were.
    """
    ended = 0
    folder = home.directory / "twin"
    if folder.exists():
        twin = Twin(folder, port=home.port("twin"), engine=engine.kind, region=load().region)
        twin.start()
        try:
            _aim_at_loopback()
            with Cloud(load(ec2_endpoint_url=twin.url)) as cloud:
                ended = sum(not one.gone for one in cloud.all())
        finally:
            twin.stop(power_off=True)
    if (home.directory / "postgres").exists():
        EmbeddedPostgres(
            home.directory / "postgres", password=home.database_password
        ).stop_leftover()
    return ended


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _aim_at_loopback() -> None:
    """Let this process's AWS calls, which all go to the twin, need no account and no proxy."""
    for name, value in _CREDENTIALS.items():
        os.environ.setdefault(name, value)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        os.environ.pop(name, None)
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
