"""What tests of the reaper and its like share: their world, on an empty cloud for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
