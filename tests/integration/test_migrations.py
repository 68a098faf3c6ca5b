"""The migrations build exactly the tables the code is written against."""

from __future__ import annotations

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, create_engine, text
from sqlalchemy.engine import make_url

from atemporal.tables import metadata
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


_CHECKS = """
    SELECT conname FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
    WHERE contype = 'c' AND nspname = 'public'
"""
