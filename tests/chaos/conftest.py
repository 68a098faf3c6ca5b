"""What chaos tests share: a twin and the system over it, services forked in no time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from tests.chaos.matrix import SERVICES, Matrix

BOOT_S = 0.5


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """A twin for this module, whose machines boot no faster than a launcher writes them down."""
    twin = Twin(tmp_path_factory.mktemp("twin"), engine="process", pace=Pace(0, BOOT_S, 0, 10))
    twin.start()
    yield twin
    twin.stop(power_off=True)


@pytest.fixture(scope="module")
def matrix(
    tmp_path_factory: pytest.TempPathFactory,
    database_url: str,
    broker_url: str,
    twin: Twin,
) -> Iterator[Matrix]:
    """All services, started and ready."""
    matrix = Matrix(
        tmp_path_factory.mktemp("matrix"),
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=twin.url,
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
