"""What is left in the tables of a day at one job a second?

Jobs go through their whole life by the store's own functions, a hundred to a transaction, as fast as
they go: submit, claim, attempt, instance, boot, the machine's claim, exit, close, and each event
relayed. A tenth of a day's 86,400 by default, all of them with FULL=1. Then the size of each table and
its indexes, and what a claim of 500 due jobs takes before and after. Autovacuum is on as in any
Postgres, and has minutes where it would have hours: a real day leaves no more.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any

from sqlalchemy import Connection

from atemporal.model import AttemptRef, ExitRecord, JobSpec, Launch, parse_spec
from atemporal.states import Reason
from atemporal.store import attempts, events, jobs, launches
from atemporal.store.database import Database
from benchmarks import backlog
from benchmarks.wiring import Figures
from tests.claims import claim_due

_BATCH = 100
_ACTOR = "benchmark"
_TABLES = ("jobs", "attempts", "events")
_LAUNCH = Launch(
    image_id="ami-0123456789abcdef0",
    instance_type="c5.large",
    subnet_id="subnet-0123456789abcdef0",
    security_group_ids=("sg-0123456789abcdef0",),
    callback_base="https://atemporal.example.com",
    key_id="k1",
    deadline_s=4000,
)
_EXIT = ExitRecord(phase="run", exit_code=0, log_tail=b64encode(b"a line of what it wrote\n" * 40))


def day(database_url: str, lives: int = 8_640, future: int = 10_000) -> Figures:
    """Megabytes of each table and its indexes, and milliseconds of a claim before and after."""
    backlog.ensure(database_url, future)
    database = Database(database_url)
    spec = parse_spec({"image": "busybox:1.36", "command": ["true"], "env": {"NAME": "bond"}})
    with closing(backlog.connect(database_url)) as connection, connection.cursor() as cursor:
        before = _claim_ms(database, cursor)
        sizes_before = _sizes(cursor)
        began, numbers = time.perf_counter(), count()
        for _ in range(0, lives, _BATCH):
            _live(database, [spec] * min(_BATCH, lives), numbers)
        seconds = time.perf_counter() - began
        after = _claim_ms(database, cursor)
        sizes = _sizes(cursor)
        dead = _dead(cursor)
    database.dispose()
    return {
        "jobs": lives,
        "lives_per_s": lives / seconds,
        "claim_500_before_ms": before,
        "claim_500_after_ms": after,
        "added_mb": {name: sizes[name] - sizes_before[name] for name in sizes},
        "bytes_per_job": 1e6 * sum(sizes[n] - sizes_before[n] for n in sizes) / lives,
        "dead_rows": dead,
    }


def _live(database: Database, specs: Sequence[JobSpec], numbers: Any) -> None:
    """Take some jobs through their whole lives, all of them a step at a time."""
    with database.begin() as tx:
        jobs.submit(tx, specs, actor=_ACTOR)
    with database.begin() as tx:
        refs = claim_due(tx, len(specs), actor=_ACTOR)
    instances = {ref: f"i-{next(numbers):017x}" for ref in refs}

    def launch(tx: Connection, ref: AttemptRef) -> object:
        return launches.begin(tx, ref, _LAUNCH, actor=_ACTOR)

    def launched(tx: Connection, ref: AttemptRef) -> object:
        return attempts.launched(tx, ref, instances[ref], actor=_ACTOR)

    def boot(tx: Connection, ref: AttemptRef) -> object:
        return attempts.booted(tx, ref, actor=_ACTOR)

    def claim(tx: Connection, ref: AttemptRef) -> object:
        instance = instances[ref]
        return attempts.claim(tx, ref, claim_id="one", instance_id=instance, actor=_ACTOR)

    def end(tx: Connection, ref: AttemptRef) -> object:
        return attempts.end(tx, ref, Reason.COMPLETED, actor=_ACTOR, exit_record=_EXIT)

    def close(tx: Connection, ref: AttemptRef) -> object:
        return attempts.close(tx, ref, actor=_ACTOR)

    for step in (launch, launched, boot, claim, end, close):
        with database.begin() as tx:
            refused = [ref for ref in refs if not step(tx, ref)]
        if refused:
            raise RuntimeError(f"{step.__name__} was refused for {len(refused)} of {len(refs)}")
    with database.begin() as tx:
        events.mark_relayed(tx, [event.id for event in events.unrelayed(tx, 20 * len(refs))])


def _claim_ms(database: Database, cursor: Any) -> float:
    """How long the product takes to claim 500 due jobs; the claim is undone."""
    at = backlog.clock(cursor) - timedelta(seconds=1)
    backlog.add_due(cursor, 500, at)
    began = time.perf_counter()
    with database.begin() as tx:
        claim_due(tx, 500, actor=_ACTOR)
        passed = time.perf_counter() - began
        tx.rollback()
    cursor.execute("DELETE FROM jobs WHERE due_at = %s", (at,))
    return 1000 * passed


def _sizes(cursor: Any) -> dict[str, float]:
    """Megabytes of each table and of its indexes."""
    found: dict[str, float] = {}
    for table in _TABLES:
        cursor.execute("SELECT pg_table_size(%s), pg_indexes_size(%s)", (table, table))
        size, indexes = cursor.fetchone()
        found |= {table: size / 1e6, f"{table} indexes": indexes / 1e6}
    return found


def _dead(cursor: Any) -> dict[str, int]:
    """Rows that are dead and not yet vacuumed."""
    cursor.execute("SELECT relname, n_dead_tup FROM pg_stat_user_tables")
    return {name: dead for name, dead in cursor.fetchall() if name in _TABLES}
