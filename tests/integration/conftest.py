"""What integration tests share: a migrated database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atemporal import migrations
from atemporal.store.database import Database


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    """This module's database, with all tables."""
    migrations.upgrade(database_url)
    database = Database(database_url)
    yield database
    database.dispose()
