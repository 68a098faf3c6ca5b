"""What end-to-end tests share: the whole system over a twin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import SERVICES, System, TwinProcess


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinProcess]:
    """A twin for this module."""
    twin = TwinProcess(tmp_path_factory.mktemp("twin"))
    yield twin
    twin.close()


@pytest.fixture
def system(
    tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess
) -> Iterator[System]:
    """All services, started and ready."""
    system = System(tmp_path, database_url=database_url, broker_url=broker_url, ec2_url=twin.url)
    try:
        system.start(*SERVICES)
        yield system
    finally:
        system.close()
