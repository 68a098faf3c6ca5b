"""Run by alembic: connect, take turns, apply each step in a transaction of its own, then validate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from atemporal.migrations import TURN
from atemporal.tables import metadata

_NOT_VALID = """
    SELECT format('ALTER TABLE %s VALIDATE CONSTRAINT %I', c.conrelid::regclass, c.conname)
    FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
    WHERE NOT c.convalidated AND t.relnamespace = current_schema()::regnamespace
    ORDER BY c.oid
"""


def run() -> None:
    """Apply the steps on the database named in the configuration."""
    url = make_url(context.config.attributes["url"]).set(drivername="postgresql+psycopg2")
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            # The session's, because it has to outlast the steps' transactions; it ends with it.
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": TURN})
            wait_ms = int(context.config.attributes["lock_s"] * 1000)
            connection.execute(text(f"SET lock_timeout = {wait_ms}"))
            connection.commit()
            context.configure(
                connection=connection,
                target_metadata=metadata,
                transaction_per_migration=True,
                on_version_apply=_note,
            )
            with context.begin_transaction():
                context.run_migrations()
            connection.commit()
            _validate(connection)
    finally:
        engine.dispose()


def _note(
    ctx: MigrationContext,
    step: MigrationInfo,
    heads: Collection[Any],
    run_args: Mapping[str, Any],
) -> None:
    revision = step.up_revision
    assert isinstance(revision, Script)
    what = " ".join(revision.doc.split())
    context.config.attributes["applied"].append(f"{revision.revision} {what}")


def _validate(connection: Connection) -> None:
    statements = connection.scalars(text(_NOT_VALID)).all()
    for statement in statements:
        connection.execute(text(statement))
        connection.commit()
        context.config.attributes["valid"].append(statement)


run()
