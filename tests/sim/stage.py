"""The places where the product's processes meet the simulated world.

Promise: the daemons are wired by their own `__main__.loops` and the API is its own routes; only what
they reach outside with is replaced: the broker's link, boto3's client, randomness of ids, and the
threads that launch side by side (one after the other here). User-data is left unrendered but for the
manifest, which is all a simulated machine reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from inspect import signature
from typing import Any
from uuid import UUID

import pytest
import structlog

import atemporal.broker.envelope
import atemporal.cloud.ec2
import atemporal.store.dead_letters
import atemporal.store.jobs
import atemporal.userdata
import services.api.publisher
import services.launcher.__main__
import services.reaper.__main__
import services.scheduler.__main__
from atemporal.errors import AtemporalError, Refused, TooEarly, Unavailable
from atemporal.model import Attempt, AttemptRef
from atemporal.settings import Settings
from atemporal.states import Reason
from atemporal.store import attempts, untagged
from atemporal.store.untagged import Untagged
from cloud_config.flatcar import FLATCAR
from services.api import callbacks, jobs, machines, schedules
from services.api.auth import Authorizer
from services.launcher.launcher import Launcher
from services.scheduler.due import DueLoop
from tests.sim.broker import Link
from tests.sim.ec2 import CERTIFICATES, IMAGE, ZONES, Client
from tests.sim.tasks import current

SETTINGS = Settings(
    deployment="sim",
    callback_url="http://api.sim",
    callback_keys="k1:0123456789abcdef0123456789abcdef",
    image_id=IMAGE,
    subnets=tuple(ZONES),
    identity_certificates=CERTIFICATES,
)
DAEMONS: dict[str, Callable[..., list[Any]]] = {
    "scheduler": services.scheduler.__main__.loops,
    "launcher": services.launcher.__main__.loops,
    "reaper": services.reaper.__main__.loops,
}


class _Inline:
    """An executor that does at once what it is given."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever asks the future
            future.set_exception(error)
        return future

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


class _Of:
    """What the process of the current task has under a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        task = current()
        assert task is not None
        return getattr(getattr(task.owner, self._name), name)


class Api:
    """The API's calls, by method and path, as the routes would call them."""

    def __init__(self) -> None:
        """Build the routes; database and wakes are those of the process that serves a call."""
        database: Any = _Of("database")
        publisher: Any = _Of("publisher")
        authorizer = Authorizer(SETTINGS, database)
        routers = (
            jobs.router(SETTINGS, database, authorizer, publisher),
            callbacks.router(SETTINGS, database, publisher),
            machines.router(SETTINGS, database),
            schedules.router(SETTINGS, database, authorizer, publisher),
        )
        self._calls: dict[tuple[str, str], Callable[..., Any]] = {
            (method, route.path): route.endpoint  # type: ignore[attr-defined]
            for router in routers
            for route in router.routes
            for method in route.methods  # type: ignore[attr-defined]
        }

    def call(self, method: str, path: str, **given: Any) -> tuple[int, Any]:
        """Serve one call; returns its status and what the route returned."""
        try:
            result = self._calls[method, path](**given)
        except TooEarly:
            return HTTPStatus.TOO_EARLY, None
        except Unavailable:
            return HTTPStatus.SERVICE_UNAVAILABLE, None
        except Refused as error:
            return HTTPStatus.CONFLICT, error
        return HTTPStatus.NO_CONTENT, result


# Where the store leaves the order of rows to Postgres, it depends on where old rows lay.
_UNORDERED: tuple[tuple[Any, str], ...] = (
    (atemporal.store.jobs, "overlooked"),
    (attempts, "lease_unlaunched"),
    (attempts, "with_specs"),
    (attempts, "still_open"),
    (untagged, "find"),
)


def _ordered(query: Callable[..., Any]) -> Callable[..., Any]:
    def ref(row: Any) -> AttemptRef | str:
        if isinstance(row, Untagged):
            # In the order of the launches.
            return row.instance_id
        first: AttemptRef | Attempt = row if isinstance(row, (AttemptRef, Attempt)) else row[0]
        return first.ref if isinstance(first, Attempt) else first

    return lambda *given, **how: sorted(query(*given, **how), key=ref)


@contextmanager
def installed(stage: Any) -> Iterator[None]:
    """Make the product's processes live in `stage.world`, whichever that is at the time."""
    end = attempts.end

    def watched_end(tx: Any, ref: Any, reason: Reason, **more: Any) -> bool:
        stage.schedule.oracle.end(tx, ref, reason)
        return end(tx, ref, reason, **more)

    def link(_url: str, *, name: str, declare: bool = True) -> Link:
        made: Link = stage.schedule.link()
        return made

    def client(*_: Any, **__: Any) -> Client:
        return Client(stage.schedule.region)

    build: Any = Launcher

    def launcher(*given: Any) -> Any:
        # Whatever of these it lets itself be given.
        offered = {
            "clock": lambda: stage.schedule.world.now.timestamp(),
            "rng": lambda: stage.schedule.world.rng.random(),
            # The clock stands still while a tick runs, so what is not there now is not there soon.
            "pause": lambda _: None,
        }
        taken = signature(build).parameters.keys() & offered.keys()
        return build(*given, **{name: offered[name] for name in taken})

    def due_loop(*given: Any, **more: Any) -> DueLoop:
        # Nothing waits here for a time to come: the clock stands still while a tick runs.
        clock = lambda: stage.schedule.world.now.timestamp()  # noqa: E731
        return DueLoop(*given, **more, ahead_s=0.0, clock=clock)

    def jitter(least: float, most: float) -> float:
        chosen: float = stage.schedule.world.rng.uniform(least, most)
        return chosen

    def new_id() -> UUID:
        made: UUID = stage.schedule.world.uuid7()
        return made

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    with pytest.MonkeyPatch.context() as patch:
        for name in DAEMONS:
            patch.setattr(f"services.{name}.__main__.Link", link)
        patch.setattr(atemporal.cloud.ec2, "ec2_client", client)
        for module in [
            m for name, m in sys.modules.items() if name.startswith("services.launcher.")
        ]:
            if hasattr(module, "ThreadPoolExecutor"):
                patch.setattr(module, "ThreadPoolExecutor", _Inline)
        patch.setattr("services.launcher.__main__.Launcher", launcher)
        patch.setattr("services.scheduler.__main__.DueLoop", due_loop)
        patch.setattr(services.api.publisher, "_IDLE_S", 0.0)
        # Read for each plan: how old they are is told by a real clock. A few machines are enough.
        patch.setattr("services.scheduler.lead.FRESH_S", 0.0)
        patch.setattr("atemporal.lead.LEAST", 2)
        patch.setattr(atemporal.broker.envelope, "uuid4", new_id)
        patch.setattr(atemporal.store.jobs._ids, "new", new_id)
        patch.setattr(atemporal.store.dead_letters._ids, "new", new_id)
        patch.setattr("services.launcher.launcher.uuid4", new_id)
        patch.setattr(attempts, "end", watched_end)
        patch.setattr("atemporal.store.retries.random.uniform", jitter)
        for owner, name in _UNORDERED:
            patch.setattr(owner, name, _ordered(getattr(owner, name)))
        plain = {"flatcar": replace(FLATCAR, render=_unadorned)}
        patch.setattr(atemporal.userdata, "OS_FAMILIES", plain)
        yield
    structlog.configure(**before)


def _unadorned(manifest: bytes, *, gzipped: bool = False) -> bytes:
    return b"#cloud-config\n" + manifest


def is_ours(error: Exception) -> bool:
    """Whether a tick may fail so: a failure that was foreseen, and no rule of the tables broken."""
    return isinstance(error, AtemporalError) and "the database refuses" not in str(error)
