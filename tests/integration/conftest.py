"""What several tests share: the reaper's world on an empty cloud, and a command's own output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from atemporal.store.database import Database
from tests.integration.reaping import World


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
