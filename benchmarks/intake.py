"""How many `job.submit` messages a second become jobs?

Messages like those of other systems, each with a key, an environment and labels, wait in the durable
queue before the scheduler's submit loop is started, as a process. The clock runs from the commit of
its first batch to the commit of its last, as Postgres noted them: neither start-up nor an idle wait
counts. Not cheated: each batch is an fsynced commit, and acknowledged after it. Each message must have
become one job in the end.
"""

from __future__ import annotations

import time
from contextlib import closing

from atemporal import migrations
from atemporal.broker import Link, Outgoing, declare
from atemporal.messages import JobSubmit
from benchmarks import backlog
from benchmarks.child import Child
from benchmarks.dispatch import environment
from benchmarks.wiring import Figures

_BATCH = 500
_KEYS = "key LIKE %s"
_COMMITS = f"""
SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at, count(*)
FROM jobs WHERE {_KEYS} GROUP BY at ORDER BY at
"""


def messages(
    database_url: str, broker_url: str, many: int = 10_000, limit_s: float = 240
) -> Figures:
    """Jobs a second out of messages that wait already."""
    migrations.upgrade(database_url)
    declare(broker_url)
    run = f"benchmark-{time.time_ns()}-"
    _publish(broker_url, run, many)
    env = environment(database_url, broker_url)
    with (
        closing(backlog.connect(database_url)) as connection,
        connection.cursor() as cursor,
        Child("benchmarks.scheduler_loop", "submit", env=env) as loop,
    ):
        deadline, made = time.monotonic() + limit_s, 0
        while made < many:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{made} of {many} messages in {limit_s:.0f} s")
            time.sleep(0.1)
            cursor.execute(f"SELECT count(*) FROM jobs WHERE {_KEYS}", (f"{run}%",))
            (made,) = cursor.fetchone()
        used = sum(one["cpu_s"] for one in loop.stop())
        cursor.execute(_COMMITS, (f"{run}%",))
        commits = cursor.fetchall()
    (first, in_first), (last, _) = commits[0], commits[-1]
    return {
        "messages": many,
        "jobs_per_s": (many - in_first) / (last - first),
        "cpu_us_per_job": 1e6 * used / many,
        "batches": len(commits),
    }


def _publish(broker_url: str, run: str, many: int) -> None:
    link = Link(broker_url, name="benchmark submitter")
    bodies = (_message(f"{run}{number}") for number in range(many))
    batch: list[Outgoing] = []
    for message in bodies:
        batch.append(message)
        if len(batch) == _BATCH:
            link.publish(batch)
            batch = []
    link.publish(batch)
    link.close()


def _message(key: str) -> Outgoing:
    job = {
        "key": key,
        "image": "registry.example.com/reports/nightly:1.4.2",
        "command": ["python", "-m", "nightly"],
        "env": {"CUSTOMER": "mi6", "OUTPUT": "s3://reports/nightly"},
        "labels": {"team": "reports"},
        "time": "2031-01-01T00:00:00Z",
    }
    return Outgoing.of(JobSubmit(job=job))
