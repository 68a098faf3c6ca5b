"""How fast, how soon and how steadily do due jobs become messages?

Measured: the scheduler's own due loop, as a process, on a table with 1,000,000 jobs of another day. Jobs
are put there before their time, all due at one instant T, so the loop is at rest until then.
The clock runs from T to the commit of the last claim, as Postgres itself noted it
(`track_commit_timestamp`); a commit follows the broker's confirms.
Not cheated: fsync and synchronous commits are on, the queue is a durable quorum queue, each message is
persistent and confirmed. Afterwards the queue must hold exactly one message for each job.
Latency: 200 jobs, one every 100 ms or so, and a reader in another process on the same clock.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import psycopg2

from atemporal.broker import declare
from atemporal.messages import LAUNCH
from benchmarks import backlog
from benchmarks.child import Child
from benchmarks.reader import amqp_connection
from benchmarks.wiring import Figures

FUTURE = 1_000_000
_REHEARSED = 1_000
_LEFT = "SELECT EXISTS (SELECT FROM jobs WHERE state = 'scheduled' AND due_at <= %s)"
_DUE_BETWEEN = "SELECT id::text, due_at FROM jobs WHERE due_at BETWEEN %s AND %s"
_LAST_COMMIT = "SELECT max(pg_xact_commit_timestamp(xmin)), count(*) FROM jobs WHERE due_at = %s"


def environment(database_url: str, broker_url: str) -> Mapping[str, str]:
    """What a process of the product is told."""
    urls = {"ATEMPORAL_DATABASE_URL": database_url, "ATEMPORAL_BROKER_URL": broker_url}
    return os.environ | urls


def depth(connection: Any) -> int:
    """How many messages the queue of due jobs holds."""
    found = connection.channel().queue_declare(LAUNCH, passive=True)
    return int(found.message_count)


def throughput(
    database_url: str,
    broker_url: str,
    due: int = 20_000,
    future: int = FUTURE,
    replicas: int = 1,
    limit_s: float = 120,
) -> Figures:
    """Due jobs a second, from the instant they are due to the commit after their confirms."""
    backlog.ensure(database_url, future)
    declare(broker_url)
    return {"future_rows": future} | _drain(database_url, broker_url, due, replicas, limit_s)


def whole_daemon(
    database_url: str, broker_url: str, due: int = 20_000, future: int = FUTURE
) -> Figures:
    """The same by all of the daemon's loops in one process: it relays the events of the claims too."""
    backlog.ensure(database_url, future)
    declare(broker_url)
    return _drain(database_url, broker_url, due, 1, 120, loops="all")


def old_snapshot(
    database_url: str, broker_url: str, due: int = 60_000, future: int = FUTURE
) -> Figures:
    """What is kept of the throughput while a transaction is open that began before."""
    backlog.ensure(database_url, future)
    declare(broker_url)
    without = _drain(database_url, broker_url, due, 1, 240)["jobs_per_s"]
    with closing(psycopg2.connect(database_url)) as old:
        old.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with old.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM jobs WHERE false")
        # The first half's messages stay in the queue.
        kept = _drain(database_url, broker_url, due, 1, 240, before=due)["jobs_per_s"]
    return {"kept": kept / without, "jobs_per_s": kept, "without_jobs_per_s": without}


def latency(
    database_url: str, broker_url: str, jobs: int = 200, over_s: float = 20, future: int = FUTURE
) -> Figures:
    """Milliseconds from a job's time until its message is in the hands of another process."""
    backlog.ensure(database_url, future)
    declare(broker_url)
    env = environment(database_url, broker_url)
    with (
        closing(backlog.connect(database_url)) as connection,
        connection.cursor() as cursor,
        Child("benchmarks.reader", broker_url, str(jobs), "amqp", env=env) as reader,
        Child("benchmarks.scheduler_loop", "due", env=env) as loop,
    ):
        start = backlog.clock(cursor) + timedelta(seconds=3)
        backlog.add_due(cursor, jobs, start, every=timedelta(seconds=over_s / jobs))
        backlog.settle(cursor)
        left = (start - backlog.clock(cursor)).total_seconds()
        if left < 0:
            raise RuntimeError("the preparation took longer than the time left for it")
        time.sleep(left + over_s)
        (arrived,) = reader.stop()
        loop.stop()
        end = start + timedelta(seconds=over_s)
        cursor.execute(_DUE_BETWEEN, (start, end))
        due_at: dict[str, datetime] = dict(cursor.fetchall())
    late = [1000 * (at - due_at[job].timestamp()) for job, at in arrived["arrived"].items()]
    return {"jobs": len(late), "early": sum(1 for one in late if one < 0)} | spread(late)


def spread(values: Sequence[float]) -> Figures:
    """The least, the median, the 99th percentile and the most, in milliseconds."""
    ranked = sorted(values)
    place = min(len(ranked) - 1, round(0.99 * len(ranked)))
    return {
        "least_ms": ranked[0],
        "p50_ms": statistics.median(ranked),
        "p99_ms": ranked[place],
        "most_ms": ranked[-1],
    }


def _drain(
    database_url: str,
    broker_url: str,
    due: int,
    replicas: int,
    limit_s: float,
    *,
    before: int = 0,
    loops: str = "due",
) -> Figures:
    """Let `replicas` loops claim `due` jobs of one instant; `before` messages are queued already."""
    env = environment(database_url, broker_url)
    with (
        closing(backlog.connect(database_url)) as connection,
        connection.cursor() as cursor,
        closing(amqp_connection(broker_url)) as broker,
        Child("benchmarks.scheduler_loop", loops, env=env, count=replicas) as running,
    ):
        at = due_soon(cursor, due)
        deadline = time.monotonic() + limit_s
        while depth(broker) < before + due:
            _check(deadline, depth(broker) - before, due, limit_s)
            time.sleep(0.02)
        cursor.execute(_LEFT, (at,))
        while cursor.fetchone()[0]:
            _check(deadline, due, due, limit_s)
            time.sleep(0.02)
            cursor.execute(_LEFT, (at,))
        cursor.execute(_LAST_COMMIT, (at,))
        committed, claimed = cursor.fetchone()
        used = sum(one["cpu_s"] for one in running.stop())
        queued = depth(broker) - before
    if claimed != due or queued != due:
        raise RuntimeError(f"{due} jobs were due, {claimed} claimed and {queued} messages queued")
    seconds = (committed - at).total_seconds()
    return {
        "jobs": due,
        "replicas": replicas,
        "jobs_per_s": due / seconds,
        "seconds": seconds,
        "cpu_us_per_job": 1e6 * used / due,
    }


def due_soon(cursor: Any, number: int) -> datetime:
    """Add jobs that are due together in a few seconds, settle, and return at that instant.

    Raises:
        RuntimeError: the machine became too busy to prepare them in time.
    """
    # A rehearsal with a few jobs of another day says how long it takes here and now.
    began = time.monotonic()
    another_day = backlog.clock(cursor) + timedelta(days=30)
    backlog.add_due(cursor, _REHEARSED, another_day, every=timedelta(seconds=1))
    rehearsed = time.monotonic() - began
    backlog.settle(cursor)
    settled = time.monotonic() - began - rehearsed
    expected = rehearsed * number / _REHEARSED + settled
    at = backlog.clock(cursor) + timedelta(seconds=2 + 2 * expected)
    backlog.add_due(cursor, number, at)
    backlog.settle(cursor)
    left = (at - backlog.clock(cursor)).total_seconds()
    if left < 0:
        raise RuntimeError(f"{number} jobs were due {-left:.1f} s before all was prepared")
    time.sleep(left)
    return at


def _check(deadline: float, done: int, due: int, limit_s: float) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"{done} of {due} jobs in {limit_s:.0f} s")
