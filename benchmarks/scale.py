"""What does each question cost when the tables are large?

A million jobs of another day, and a million or ten million that have finished. Every question that a
person or a daemon asks again and again is asked many times, in turns, by the product's own functions in
transactions of their own: the time of the whole transaction, as its caller sees it. The rows are made
with INSERT ... SELECT as copies of one that the product wrote; a finished job has its attempt, and ten
events or, where it says thin, two. All is read before the first question: what is asked every minute
is in memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from sqlalchemy import Connection

from atemporal import migrations
from atemporal.fleet.reconciliation import SHOWN_FOR_S
from atemporal.states import JobState, Outcome
from atemporal.store import (
    attempts,
    boot_times,
    counts,
    due,
    events,
    invariants,
    jobs,
    launches,
    leads,
    listing,
    reconciliation,
    retention,
)
from atemporal.store.database import Database
from benchmarks import backlog
from benchmarks.wiring import Figures
from tests import crowd

_PAGE = 100
_BATCH = 500
_DAY_S = 86_400.0
_ACTOR = "benchmark"

Ask = Callable[[Connection], object]


def questions(
    database_url: str,
    future: int = 1_000_000,
    finished: int = 1_000_000,
    thin: bool = False,
    rounds: int = 40,
) -> Figures:
    """p50 and p95 of each question, in milliseconds; and how large the tables are."""
    took_s = _fill(database_url, future, finished, thin=thin)
    database = Database(database_url)
    with database.begin() as tx:
        asked = _questions(tx)
    times: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(rounds + 1):
        for name, ask in asked.items():
            began = time.perf_counter()
            with database.begin() as tx:
                ask(tx)
            # The first round reads what is to be in memory.
            if number:
                times[name].append(1000 * (time.perf_counter() - began))
    deleting = _deleting(database)
    database.dispose()
    found: Figures = {name: _quantiles(measured) for name, measured in times.items()}
    worst = max(found, key=lambda name: found[name]["p95_ms"])
    return {
        "worst_p95_ms": found[worst]["p95_ms"],
        "worst": worst,
        **found,
        **deleting,
        **_sizes(database_url),
        "filled_s": took_s,
    }


def _fill(database_url: str, future: int, finished: int, *, thin: bool) -> float:
    """Make the rows, unless there are any; return how many seconds it took."""
    migrations.upgrade(database_url)
    with closing(backlog.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM jobs)")
        if cursor.fetchone()[0]:
            return 0.0
    began = time.perf_counter()
    crowd.fill(database_url, future=future, finished=finished, thin=thin)
    return time.perf_counter() - began


def _questions(tx: Connection) -> dict[str, Ask]:
    """By name: what people ask, then what daemons do."""
    # A scheduler that has just begun reads them all, once.
    read = leads.samples(tx)
    latest = read[-_BATCH].at if len(read) > _BATCH else 0.0
    newest = listing.page(tx, states=[JobState.FINISHED], limit=1, newest_first=True).jobs[0].id
    middle = listing.page(tx, states=[JobState.SCHEDULED], limit=1).jobs[0].id

    def audit(tx: Connection) -> None:
        invariants.violations(tx, invariants.moved(tx).jobs)

    def reconcile(tx: Connection) -> None:
        reconciliation.page(
            tx, instance_ids=[], refs=[], within_s=SHOWN_FOR_S, settled_for_s=_DAY_S
        )

    return {
        "list newest": _list(newest_first=True),
        "list oldest": _list(),
        "list scheduled": _list(states=[JobState.SCHEDULED], newest_first=True),
        "list running": _list(states=[JobState.RUNNING], newest_first=True),
        "list finished": _list(states=[JobState.FINISHED], newest_first=True),
        "list failed and lost": _list(outcomes=[Outcome.FAILED, Outcome.LOST], newest_first=True),
        "list of a label all have": _list(labels={"team": "reports"}, newest_first=True),
        "list of a label of a thousandth": _list(labels={"part": "7"}, newest_first=True),
        "list of a label nobody has": _list(labels={"team": "none"}, newest_first=True),
        "list failed of a label": _list(outcomes=[Outcome.FAILED], labels={"part": "17"}),
        "list after": _list(after=middle),
        "list after, newest first": _list(after=newest, newest_first=True),
        "show by the end of an id": lambda tx: jobs.get(tx, jobs.resolve(tx, str(newest)[-12:])),
        "history of a job": lambda tx: events.of_job(tx, newest),
        "due: find the priorities": due.survey,
        "due: claim, none due": lambda tx: due.claim(tx, 0, actor=_ACTOR, limit=_BATCH),
        "due: overlooked": lambda tx: jobs.overlooked(tx, stale_s=60, limit=_BATCH),
        "due: how many wait": counts.oldest_waiting,
        "leads: what is to be planned": lambda tx: leads.unplanned(tx, limit=_BATCH),
        "leads: launches since the last look": lambda tx: leads.samples(tx, since=latest),
        "relay: what is new": lambda tx: events.unrelayed(tx, _BATCH),
        "launcher: what is unlaunched": lambda tx: launches.unlaunched(tx, stale_s=60),
        "launcher: how many boot": launches.booting,
        "launcher: none booted": lambda tx: launches.never_booted(tx, machines=5, within_s=3600),
        "launcher: shortages": lambda tx: launches.shortages(tx, within_s=3600),
        "launcher: spot interruptions": lambda tx: launches.spot_interruptions(tx, within_s=3600),
        "reaper: what is open": attempts.still_open,
        "reaper: boot times": boot_times.lately,
        "reaper: queued for too long": lambda tx: jobs.expire_queued(
            tx, deadline_s=3600, actor=_ACTOR
        ),
        "audit: the records beside EC2": reconcile,
        "audit: the promises of the latest 1,000 events": audit,
        "retention: nothing to delete": lambda tx: retention.delete_finished(
            tx, keep_s=36_500 * _DAY_S, limit=_BATCH
        ),
    }


def _list(**given: Any) -> Ask:
    return lambda tx: listing.page(tx, limit=_PAGE, **given)


def _deleting(database: Database) -> Figures:
    """What a batch of the retention takes: 500 jobs with all that is of them."""
    took = []
    for _ in range(20):
        began = time.perf_counter()
        with database.begin() as tx:
            deleted = retention.delete_finished(tx, keep_s=_DAY_S, limit=_BATCH)
        took.append(1000 * (time.perf_counter() - began))
        assert deleted == _BATCH
    return {"retention: delete 500": _quantiles(took)}


def _sizes(database_url: str) -> Figures:
    with closing(backlog.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, reltuples::bigint, pg_total_relation_size(oid) / 1000000 FROM pg_class"
            " WHERE relname IN ('jobs', 'attempts', 'events')"
        )
        return {name: {"rows": rows, "mb": mb} for name, rows, mb in cursor.fetchall()}


def _quantiles(times: list[float]) -> dict[str, float]:
    return {
        "p50_ms": statistics.median(times),
        "p95_ms": statistics.quantiles(times, n=20, method="inclusive")[-1],
    }
