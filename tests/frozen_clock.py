"""The clock by which tokens refill and leases end, in a test's own hands.

Postgres looks for a function along the search path, and the schema `frozen`, which comes first there,
has a `clock_timestamp()` that reads a table. `now()` stays the real one.
"""

from __future__ import annotations

from sqlalchemy import text

from atemporal.store.database import Database

_FREEZE = """
    CREATE SCHEMA IF NOT EXISTS frozen;
    CREATE TABLE IF NOT EXISTS frozen.clock (at timestamptz NOT NULL);
    DELETE FROM frozen.clock;
    INSERT INTO frozen.clock VALUES (now());
    CREATE OR REPLACE FUNCTION frozen.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT at FROM frozen.clock';
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = frozen, public, pg_catalog',
                       current_database());
    END $$
"""


def freeze(database: Database) -> None:
    """Stop the clock of this database, for all sessions that begin from here on."""
    with database.begin() as tx:
        tx.execute(text(_FREEZE.replace(":", "\\:")))
    database.dispose()


def advance(database: Database, seconds: float) -> None:
    """Let so much time pass."""
    with database.begin() as tx:
        tx.execute(
            text("UPDATE frozen.clock SET at = at + make_interval(secs => :s)"), {"s": seconds}
        )
