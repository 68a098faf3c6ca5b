"""What end-to-end tests share: the whole system over a twin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.system import SERVICES, System, TwinProcess


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinProcess]:
    """A twin for this module."""
    twin = TwinProcess(tmp_path_factory.mktemp("twin"))
    yield twin
    twin.close()


@pytest.fixture(scope="module")
def services(
    tmp_path_factory: pytest.TempPathFactory,
    database_url: str,
    broker_url: str,
    twin: TwinProcess,
) -> Iterator[System]:
    """All services of this module, as its last test left them."""
    directory = tmp_path_factory.mktemp("services")
    system = System(
        directory,
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=twin.url,
        certificates=twin.certificates,
    )
    yield system
    system.close()


@pytest.fixture
def system(services: System) -> System:
    """All services, running and ready, whatever a test did to them."""
    services.revive(*SERVICES)
    return services
