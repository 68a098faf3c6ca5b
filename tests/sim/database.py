"""The real store on a real Postgres whose `now()` is the simulated clock.

Promise: the statements are the product's own, unchanged. Postgres looks for a function along the
search path, and the schema `sim`, which comes first there, has a `now()` and a `clock_timestamp()`
that read the simulated clock from a table. A commit can be refused, or done without an answer. Locks
are waited for only briefly: whoever holds one may be stopped, and nobody else would run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text

from atemporal.errors import Unreadable
from atemporal.store.database import Database, NotificationListener
from atemporal.tables import metadata
from tests.sim.tasks import current
from tests.sim.world import BEGINNING, World, unavailable

_OPTIONS = (
    "-c timezone=UTC -c search_path=sim,public,pg_catalog -c synchronous_commit=off -c jit=off"
)
_CLOCK = """
    CREATE SCHEMA sim;
    CREATE TABLE sim.clock (at timestamptz NOT NULL);
    INSERT INTO sim.clock VALUES ('{beginning}');
    CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT at FROM sim.clock';
    CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT at FROM sim.clock';
"""
INSTALLATION = "01900000-0000-4000-8000-000000000001"
_RECORDS = """
    SELECT coalesce(bool_or(state <> 'finished'), false) AS unfinished,
           coalesce(bool_or(state = 'scheduled' AND coalesce(dispatch_at, due_at) <= now()),
                    false) AS due,
           coalesce(bool_or(state = 'scheduled' AND plan_at <= now()), false) AS unplanned,
           coalesce(bool_or(state = 'queued'), false) OR EXISTS (
               SELECT 1 FROM attempts WHERE state = 'launching' AND instance_id IS NULL
           ) OR EXISTS (SELECT 1 FROM launch_groups WHERE settled_at IS NULL) AS unlaunched,
           min(least(coalesce(dispatch_at, due_at), plan_at))
               FILTER (WHERE state = 'scheduled') AS next_due,
           coalesce(bool_or(start_by < now() AND state IN ('scheduled', 'queued', 'warming')),
                    false) AS late,
           min(start_by) FILTER (WHERE state IN ('scheduled', 'queued', 'warming')) AS next_late,
           EXISTS (SELECT 1 FROM attempts WHERE state <> 'closed') AS open,
           EXISTS (SELECT 1 FROM events WHERE NOT relayed) AS unrelayed,
           EXISTS (SELECT 1 FROM attempts WHERE group_id IS NOT NULL AND instance_id IS NOT NULL
                   AND tagged_at IS NULL AND state <> 'closed') AS untagged,
           EXISTS (SELECT 1 FROM schedules WHERE paused_at IS NULL AND look_at <= now()) AS fires,
           (SELECT min(look_at) FROM schedules WHERE paused_at IS NULL) AS next_look,
           (SELECT max(id) FROM events) AS seen
    FROM jobs
"""


class Ground:
    """The database that all worlds stand on, one after the other."""

    def __init__(self, url: str) -> None:
        """Make schema, clock and tables in an empty database."""
        url = url.replace("postgresql://", "postgresql+psycopg2://", 1)
        options = {"options": f"{_OPTIONS} -c lock_timeout=25"}
        self.engine: Engine = create_engine(
            url, pool_size=30, max_overflow=50, pool_timeout=10, connect_args=options
        )
        with self.engine.begin() as tx:
            tx.execute(text(_CLOCK.format(beginning=BEGINNING.isoformat())))
            metadata.create_all(tx)
            tx.execute(text(f"UPDATE installation SET id = '{INSTALLATION}'"))
            for table in metadata.tables:
                tx.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        self.changed = True
        self.locks: set[str] = set()
        self._records: Any = None
        self._worlds = 0
        self._own = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.execute(f"PREPARE records AS {_RECORDS}")

    def clear(self) -> None:
        """Begin a new world."""
        # Truncating is slow, deleting leaves dead rows that slow everything else.
        if self._worlds % 25 == 0:
            self.execute("TRUNCATE jobs, attempts, launch_groups, events, schedules, fires")
        self._worlds += 1
        self.execute("DELETE FROM attempts; DELETE FROM launch_groups; DELETE FROM events")
        self.execute("DELETE FROM schedules; DELETE FROM jobs; DELETE FROM dead_letters")
        self.execute("DELETE FROM rate_limits; DELETE FROM sweep_leases")
        self.execute("DELETE FROM concurrency_limits; DELETE FROM slots")
        self.execute("ALTER SEQUENCE events_id_seq RESTART")
        self.set_clock(BEGINNING)

    def records(self) -> Any:
        """What is committed, in a few numbers; asked again only when it may have changed."""
        if self.changed:
            self.changed = False
            (self._records,) = self.rows("EXECUTE records")
        return self._records

    def set_clock(self, now: datetime) -> None:
        """Let time pass."""
        self.execute("UPDATE sim.clock SET at = :at", at=now)
        self.changed = True

    def execute(self, statement: str, **values: Any) -> None:
        """Run a statement outside all processes."""
        self._own.execute(text(statement), values)

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Look at what is committed, from outside all processes."""
        return list(self._own.execute(text(query), values))

    def close(self) -> None:
        """Give all connections back."""
        self._own.close()
        self.engine.dispose()


class SimDatabase(Database):
    """One process's pool."""

    def __init__(self, world: World, ground: Ground) -> None:
        """Share the ground's connections."""
        self._engine = ground.engine
        self._ground = ground
        self._world = world
        self._on_unreadable = _never

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction; the process can be stopped around it and before its commit."""
        world, task = self._world, current()
        world.point("before a transaction")
        if task is not None:
            task.open_transactions += 1
        try:
            with super().begin() as tx:
                yield tx
                world.point("before a commit")
                if world.happens("commit refused"):
                    raise unavailable("Postgres went away before the commit")
        finally:
            if task is not None:
                task.open_transactions -= 1
        self._ground.changed = True
        world.point("after a commit")
        if world.happens("commit unanswered"):
            raise unavailable("Postgres went away after the commit")

    @contextmanager
    def each(self) -> Iterator[Connection]:
        """Statements that are committed one by one; the process can be stopped around them."""
        self._world.point("before a statement")
        with super().each() as connection:
            yield connection
        self._world.point("after a statement")

    @contextmanager
    def only_one(self, name: str) -> Iterator[bool]:
        """The advisory lock, in memory: it too is free again when its process dies."""
        held = name not in self._ground.locks
        self._ground.locks.add(name)
        try:
            yield held
        finally:
            if held:
                self._ground.locks.discard(name)

    def listen(self) -> NotificationListener:
        """A listener that never waits: the scheduler's ticks come at random."""
        return _SilentListener()


def _never(error: Unreadable) -> None:
    raise error


class _SilentListener(NotificationListener):
    def __init__(self) -> None:
        pass

    def wait(self, timeout_s: float) -> bool:
        return False

    def close(self) -> None:
        pass
