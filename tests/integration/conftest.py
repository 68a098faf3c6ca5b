"""What several tests share: the reaper's world on an empty cloud, what fires schedules, own output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text

from atemporal.store import schedules
from atemporal.store.database import Database
from services.scheduler.recurring import RecurringLoop
from tests.integration.reaping import World
from tests.integration.recurring import Clock, a_loop


@pytest.fixture(scope="module")
def clients(database: Database) -> Iterator[World]:
    """The clients, which take long to make."""
    made = World(database)
    yield made
    made.close()


@pytest.fixture
def world(clients: World, tmp_path: Path) -> Iterator[World]:
    """A deployment with its cloud and its reaper."""
    clients.open(tmp_path / "twin")
    yield clients
    clients.shut()


@pytest.fixture(scope="module")
def own_output() -> Iterator[None]:
    """What the served API logs is no output of the command's: they are two processes for real."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    yield
    structlog.configure(**before)


@pytest.fixture
def no_schedules(database: Database) -> Iterator[None]:
    """Leave no schedule and no job behind."""
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE schedules, fires, jobs, attempts, events"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that changes of schedules are told, and `loop`."""
    clock = Clock()
    monkeypatch.setattr(schedules, "_now", clock)
    return clock


@pytest.fixture
def loop(database: Database, clock: Clock) -> Iterator[RecurringLoop]:
    """A scheduler's loop."""
    made = a_loop(database, clock)
    yield made
    made.reset()
