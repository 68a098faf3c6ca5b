"""The loop that hands due jobs to the broker.

Promise: a due job is handed to the broker as soon as it is due and never before.
Mechanism: due jobs are claimed in batches, published with confirms, and only then committed: a crash
in between leaves them scheduled, and the message it may have sent finds nothing to do. Between
batches the loop sleeps until the next due time or a NOTIFY, and looks once per poll interval anyhow.
Failure: without the broker nothing is claimed.
"""

from __future__ import annotations

from atemporal.broker import Link, Outgoing
from atemporal.messages import JobDue
from atemporal.metrics import counter, gauge
from atemporal.store import jobs
from atemporal.store.database import Database, NotificationListener

PUBLISHED = counter(
    "atemporal_due_jobs_published_total", "Due jobs that were published and claimed."
)
OLDEST_DUE = gauge(
    "atemporal_oldest_due_seconds", "How long the oldest job has been due without being claimed."
)

ACTOR = "scheduler"
BATCH = 500
# What is due and was not given to us is locked by another scheduler: let it commit.
_LOCKED_S = 0.05


class DueLoop:
    """Claims what is due and emits it."""

    name = "due"

    def __init__(self, database: Database, link: Link, *, poll_interval_s: float) -> None:
        """Take the connections; none is open yet."""
        self._database = database
        self._link = link
        self._poll_interval_s = poll_interval_s
        self._listener: NotificationListener | None = None

    def tick(self) -> float:
        """Emit one batch; when there is no more, sleep until there may be."""
        # Listening begins before looking: what is submitted in between is not missed.
        if self._listener is None:
            self._listener = self._database.listen()
        # Before the broker is asked for: while it is away, this is what grows.
        before = self._next_due_in()
        self._link.connect()
        with self._database.begin() as tx:
            due = jobs.claim_due(tx, BATCH, actor=ACTOR)
            self._link.publish([Outgoing.of(JobDue.of(ref)) for ref in due])
        PUBLISHED.inc(len(due))
        if len(due) == BATCH:
            return 0.0
        next_in = self._next_due_in()
        sleep = self._poll_interval_s if next_in is None else next_in
        locked = not due and before is not None and before <= 0
        self._link.heartbeat()
        self._listener.wait(min(max(sleep, _LOCKED_S if locked else 0.0), self._poll_interval_s))
        return 0.0

    def _next_due_in(self) -> float | None:
        with self._database.begin() as tx:
            next_in = jobs.next_due_in(tx)
        OLDEST_DUE.set(max(0.0, -next_in) if next_in is not None else 0.0)
        return next_in

    def reset(self) -> None:
        """Drop both connections."""
        self._link.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
