"""What the tests of the simulation share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import Postgres
from tests.sim.simulation import Simulation, simulation


@pytest.fixture(scope="module")
def simulated(postgres_server: Postgres) -> Iterator[Simulation]:
    with simulation(postgres_server.create_database()) as made:
        yield made
