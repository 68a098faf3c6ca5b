"""What chaos tests share: systems, each with a twin of its own, services forked in no time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from tests.chaos.matrix import SERVICES, Matrix
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

BOOT_S = 0.5
# A case waits more than it computes.
SIDE_BY_SIDE = 2


@pytest.fixture(scope="module")
def matrices(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: Postgres,
    rabbitmq_server: RabbitMQ,
) -> Iterator[list[Matrix]]:
    """Whole systems that share nothing but their servers; all services started and ready."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                _system(
                    tmp_path_factory.mktemp("matrix"),
                    postgres_server.create_database(),
                    rabbitmq_server.create_vhost(),
                )
            )
            for _ in range(SIDE_BY_SIDE)
        ]


@contextmanager
def _system(directory: Path, database_url: str, broker_url: str) -> Iterator[Matrix]:
    # Machines boot no faster than a launcher writes them down.
    twin = Twin(directory / "twin", engine="process", pace=Pace(0, BOOT_S, 0, 10))
    twin.start()
    matrix = Matrix(
        directory,
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=twin.url,
        certificates=twin.identity_certificates,
        ATEMPORAL_POLL_INTERVAL_S="0.1",
        ATEMPORAL_SWEEP_INTERVAL_S="0.2",
        ATEMPORAL_STALE_AFTER_S="0.7",
    )
    matrix.ec2_url, matrix.broker_url = twin.url, broker_url
    try:
        matrix.start(*SERVICES)
        yield matrix
    finally:
        matrix.close()
        twin.stop(power_off=True)
