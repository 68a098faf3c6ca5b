"""APScheduler 3: the SQLAlchemy job store and a pool of ten threads."""

from __future__ import annotations

import pickle
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from benchmarks.peer_runs.drain import Drain, Request, request

_SAMPLE = "sample"
_lock = threading.Lock()
_drains: list[Drain] = []


def handle() -> None:
    """What each job does: it is counted."""
    with _lock:
        _drains[0].one()


def _main(asked: Request) -> None:
    scheduler = BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(asked.url)},
        executors={"default": ThreadPoolExecutor(10)},
        # However late: all that is due is to run.
        job_defaults={"misfire_grace_time": None},
        timezone=UTC,
    )
    scheduler.start(paused=True)
    scheduler.add_job(
        f"{__name__}:handle",
        "date",
        run_date=datetime.now(UTC) + timedelta(days=30),
        id=_SAMPLE,
        replace_existing=True,
    )
    _fill(asked)
    drain = Drain(asked)
    _drains.append(drain)
    drain.begin()
    scheduler.resume()
    while not drain.over:
        time.sleep(0.02)
    drain.report()


def _fill(asked: Request) -> None:
    with closing(psycopg2.connect(asked.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DELETE FROM apscheduler_jobs WHERE id LIKE 'due-%'")
        cursor.execute("SELECT count(*) FROM apscheduler_jobs")
        cursor.execute(
            "INSERT INTO apscheduler_jobs SELECT 'future-' || i, next_run_time + random(), job_state"
            " FROM apscheduler_jobs, generate_series(%s, %s) AS i WHERE id = %s",
            (cursor.fetchone()[0], asked.future, _SAMPLE),
        )
        cursor.execute("SELECT job_state FROM apscheduler_jobs WHERE id = %s", (_SAMPLE,))
        state = pickle.loads(cursor.fetchone()[0])
        at = datetime.now(UTC) - timedelta(seconds=1)
        rows = [_row(state, f"due-{number}", at) for number in range(asked.due)]
        for first in range(0, len(rows), 500):
            some = rows[first : first + 500]
            values = b",".join(cursor.mogrify("(%s, %s, %s)", row) for row in some)
            cursor.execute(b"INSERT INTO apscheduler_jobs VALUES " + values)
        cursor.execute("VACUUM (ANALYZE) apscheduler_jobs")


def _row(state: dict[str, Any], name: str, at: datetime) -> tuple[str, float, bytes]:
    trigger = type(state["trigger"])(at)
    changed = {**state, "id": name, "trigger": trigger, "next_run_time": at}
    return name, at.timestamp(), pickle.dumps(changed, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _main(request())
