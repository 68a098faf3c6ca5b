"""Run by alembic: connect, take turns, apply the steps in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from atemporal.tables import metadata

_TURN = 7_403_197_415_926_535


def run() -> None:
    """Apply the steps on the database named in the configuration."""
    url = make_url(context.config.attributes["url"]).set(drivername="postgresql+psycopg2")
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            context.configure(connection=connection, target_metadata=metadata)
            with context.begin_transaction():
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TURN})
                context.run_migrations()
    finally:
        engine.dispose()


run()
