"""A table full of scheduled jobs, made fast: the state in which everything is measured.

Promise: `ensure` leaves at least so many jobs scheduled for another day; `add_due` adds jobs that become
due together, their ids spread among the others'. Rows are copies of one that the product itself wrote,
so they are what its release writes; what is measured never takes this way in.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import psycopg2

from atemporal import migrations
from atemporal.model import parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database

_SPEC = {
    "image": "registry.example.com/reports/nightly:1.4.2",
    "command": ["python", "-m", "nightly", "--day", "2030-01-01"],
    "env": {"CUSTOMER": "mi6", "OUTPUT": "s3://reports/nightly", "LEVEL": "info"},
    "labels": {"team": "reports", "kind": "nightly"},
    "time": "2031-01-01T00:00:00Z",
}
_SAMPLE = "the row that the others copy"
# As the product makes them: the time first. Spread over the last weeks, as the others are.
_ID = """(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 1
         - (random() * 2000000000)::bigint), 12, '0') || '7' || substr(r, 1, 3) || '8'
         || substr(r, 4, 15))::uuid"""
_SPREAD = "now() + interval '30 days' + random() * interval '300 days'"


def connect(database_url: str) -> Any:
    """A plain connection that commits each statement."""
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    return connection


def ensure(database_url: str, future: int) -> None:
    """Make the tables, and jobs of another day until there are `future` of them; then vacuum."""
    migrations.upgrade(database_url)
    with closing(connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM jobs WHERE key = %s", (_SAMPLE,))
        if cursor.fetchone() is None:
            _write_sample(database_url)
        # What earlier runs claimed, or left due because they failed, is none of this one's.
        cursor.execute("TRUNCATE events")
        cursor.execute(
            "DELETE FROM jobs WHERE state = 'queued'"
            " OR state = 'scheduled' AND due_at < now() + interval '1 day'"
        )
        cursor.execute(
            "SELECT count(*) FROM jobs WHERE state = 'scheduled' AND due_at > now() + interval '1d'"
        )
        missing = future - cursor.fetchone()[0]
        if missing > 0:
            cursor.execute(_copies(cursor, _SPREAD), (missing,))
        settle(cursor)


def add_due(cursor: Any, number: int, due_at: datetime, every: timedelta = timedelta()) -> None:
    """Add so many jobs, due from one instant on, all at once or one `every` so often on average."""
    # Not in step with any poll.
    at = cursor.mogrify("%s + (i - random()) * %s", (due_at, every)).decode()
    cursor.execute(_copies(cursor, at), (number,))


def settle(cursor: Any) -> None:
    """Let what earlier work left behind be done now and not during a measurement."""
    cursor.execute("VACUUM (ANALYZE) jobs")
    cursor.execute("VACUUM (ANALYZE) events")
    cursor.execute("CHECKPOINT")


def clock(cursor: Any) -> datetime:
    """The database's time."""
    cursor.execute("SELECT clock_timestamp()")
    now: datetime = cursor.fetchone()[0]
    return now


def _write_sample(database_url: str) -> None:
    database = Database(database_url)
    with database.begin() as tx:
        jobs.submit(tx, [parse_spec({**_SPEC, "key": _SAMPLE})], actor="benchmark")
    database.dispose()


def _copies(cursor: Any, at: str) -> str:
    """The statement that copies the sample; `at` is the SQL of the time, one for each row."""
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs'"
        " AND table_schema = 'public' AND is_generated = 'NEVER' ORDER BY ordinal_position"
    )
    columns = [name for (name,) in cursor.fetchall()]
    values = {name: f"sample.{name}" for name in columns}
    values |= {"id": _ID, "key": "NULL", "run_at": "at", "due_at": "at"}
    # NULL means: as due, which is what the benchmark decides.
    if "dispatch_at" in values:
        values["dispatch_at"] = "NULL"
    return (
        f"INSERT INTO jobs ({', '.join(columns)}) SELECT {', '.join(values[c] for c in columns)}"
        f" FROM jobs AS sample, (SELECT md5(i::text || random()) AS r, {at} AS at"
        " FROM generate_series(1, %s) AS i) AS rows"
        f" WHERE sample.key = '{_SAMPLE}'"
    )
