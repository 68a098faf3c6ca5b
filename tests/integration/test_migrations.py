"""The migrations build exactly the tables the code is written against."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, create_engine, insert, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from atemporal import migrations
from atemporal.errors import Unavailable
from atemporal.store.database import Database
from atemporal.store.installation import identity
from atemporal.tables import installation, metadata
from tests.servers.postgres import Postgres


def test_two_processes_upgrade_at_once_and_the_result_is_the_tables(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    upgrade = [sys.executable, "-c", f"from atemporal import migrations as m; m.upgrade({url!r})"]
    both = [subprocess.Popen(upgrade) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        built = set(connection.scalars(text(_CHECKS)))
    engine.dispose()
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert built == declared


def _identity(url: str) -> UUID:
    database = Database(url)
    try:
        with database.begin() as tx:
            return identity(tx)
    finally:
        database.dispose()


def test_each_database_is_one_installation_for_ever(postgres_server: Postgres) -> None:
    url, other = postgres_server.create_database(), postgres_server.create_database()
    migrations.upgrade(url, "0004")
    with pytest.raises(Unavailable, match="db upgrade"):
        _identity(url)
    migrations.upgrade(url)
    first = _identity(url)
    migrations.upgrade(url)
    migrations.upgrade(other)
    assert _identity(url) == first != _identity(other)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    for second in ({}, {"single": False}):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(insert(installation).values(**second))
    with engine.begin() as connection:
        connection.execute(installation.delete())
    engine.dispose()
    with pytest.raises(Unavailable, match="atemporal:installation"):
        _identity(url)


def test_tables_that_are_made_without_the_migrations_have_the_row_too(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    metadata.create_all(engine)
    engine.dispose()
    assert _identity(url).version == 4


_CHECKS = """
    SELECT conname FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
    WHERE contype = 'c' AND nspname = 'public'
"""
