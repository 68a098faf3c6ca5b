"""What tests of upgrades share: the release before, a twin, and processes of both releases on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import TwinProcess
from tests.upgrade.before import Before, unpack


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """The release before, unpacked once a session."""
    return unpack(tmp_path_factory.mktemp("before"))


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[TwinProcess]:
    """A twin of the test's own."""
    twin = TwinProcess(tmp_path)
    yield twin
    twin.close()
