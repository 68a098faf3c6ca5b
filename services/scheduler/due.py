"""The loop that hands due jobs to the broker.

Promise: a due job is handed to the broker as soon as it is due and never before, the highest priority
first over all that is due.
Mechanism: due jobs are claimed in batches, published with confirms, and only then committed: a crash
in between leaves them scheduled, and the message it may have sent finds nothing to do. While the
broker confirms one batch the database claims the next. With nothing due the loop sleeps until just
before the next due time, or until a NOTIFY, and looks once per poll interval anyhow; or once in the
time within which a submit notifies, where that is shorter: what is due later notifies nobody. Where
concurrency limits are set a batch is committed before the next one is claimed, because that has to count
it. A freed slot and a changed limit notify like a submit.
Failure: without the broker nothing is claimed. When anything fails, both batches on their way are
scheduled again, and the next tick looks from the beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from time import monotonic

from atemporal.broker import Link
from atemporal.metrics import Aggregate, counter, gauge
from atemporal.store.database import Database, NotificationListener
from atemporal.store.due import AHEAD_S, Level
from atemporal.store.jobs import NOTIFY_WITHIN_S
from atemporal.store.rows import Transaction
from services.scheduler.backlog import Backlog, Given
from services.scheduler.batch import Batch

PUBLISHED = counter(
    "atemporal_due_jobs_published_total", "Due jobs that were published and claimed."
)
OLDEST_DUE = gauge(
    "atemporal_oldest_due_seconds",
    "How long the oldest job has been due without being claimed.",
    aggregate=Aggregate.MAX,
)

ACTOR = "scheduler"
# A batch's rows are locked until it is confirmed, and a cancel waits: as many as go in this time.
SMALLEST, BATCH, LARGEST = 250, 1000, 2000
BATCH_S = (0.3, 1.0)
# So often a loop that is never idle shows that it lives, and heeds a stop.
LONGEST_TICK_S = 2.0
_LOCKED_S = 0.05
_IN_FLIGHT = 2


class DueLoop:
    """Claims what is due and emits it."""

    name = "due"

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        poll_interval_s: float,
        ahead_s: float = AHEAD_S,
        clock: Callable[[], float] = monotonic,
        instance_type: str = "",
    ) -> None:
        """Take the connections; none is open yet. Jobs are claimed up to `ahead_s` before their time.

        `instance_type` is the type of jobs that name none.
        """
        self._database = database
        self._link = link
        self._poll_interval_s = min(poll_interval_s, NOTIFY_WITHIN_S)
        self._ahead_s = ahead_s
        self._clock = clock
        self._backlog = Backlog(
            look_every_s=self._poll_interval_s, clock=clock, instance_type=instance_type
        )
        self._limit = BATCH
        self._listener: NotificationListener | None = None

    def tick(self) -> float:
        """Emit what is due; when nothing is, sleep until something may be."""
        # Listening begins before looking: what is submitted in between is not missed.
        if self._listener is None:
            self._listener = self._database.listen()
            self._backlog.forget()
        # Before the broker is asked for: while it is away, this is what grows.
        with self._database.begin() as tx:
            levels = self._survey(tx)
        looked_at = self._clock()
        self._link.connect()
        next_in = min((level.wait_s for level in levels), default=inf)
        sleep = looked_at + next_in - self._ahead_s - self._clock()
        if sleep <= 0 or self._backlog.somebody_waits:
            nothing = self._dispatch(levels, self._listener)
            if nothing is None:
                return 0.0
            if nothing.full:
                # It is no scheduler that keeps back what is due.
                OLDEST_DUE.set(0)
                sleep = inf
            elif nothing.busy:
                self._backlog.notified()
                sleep = _LOCKED_S
            elif sleep <= 0:
                # What is due and was not given to us is locked by another scheduler: let it commit.
                sleep = _LOCKED_S
        self._link.heartbeat()
        longest = min(self._poll_interval_s, self._backlog.look_in_s())
        self._hear(self._listener, min(sleep, longest))
        return 0.0

    def reset(self) -> None:
        """Drop both connections."""
        self._link.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _dispatch(self, levels: list[Level], listener: NotificationListener) -> Given | None:
        """Claim and publish batch after batch until nothing more is due; None if anything was done.

        Else what the claim gave, which was nothing.
        """
        done, until = 0, self._clock() + LONGEST_TICK_S
        in_flight: deque[Batch] = deque()
        seen: list[Level] | None = levels
        # Nobody waits for the next due time while more is due than one batch holds.
        ahead_s = self._ahead_s
        try:
            while True:
                batch = Batch(
                    self._database, self._link, self._claim(seen, ahead_s), clock=self._clock
                )
                in_flight.append(batch)
                batch.publish(ahead=ahead_s > 0)
                full = batch.given.more and self._clock() < until
                most = _IN_FLIGHT if full and not batch.given.limited else 1
                while len(in_flight) >= most:
                    done += self._commit(in_flight.popleft())
                if not full:
                    return None if done or batch.given.more else batch.given
                seen, ahead_s = None, 0.0
                self._hear(listener, 0.0)
        except BaseException as error:
            self._backlog.forget()
            # A rollback can fail as well, and keeps no other from its own.
            with ExitStack() as batches:
                for batch in in_flight:
                    batches.callback(batch.abandon, error)
                raise

    def _claim(self, seen: list[Level] | None, ahead_s: float) -> Callable[[Transaction], Given]:
        def claim(tx: Transaction) -> Given:
            levels = self._survey(tx) if seen is None else seen
            return self._backlog.claim(tx, levels, actor=ACTOR, limit=self._limit, ahead_s=ahead_s)

        return claim

    def _commit(self, batch: Batch) -> int:
        batch.commit()
        PUBLISHED.inc(len(batch))
        if len(batch) >= self._limit:
            took = self._clock() - batch.begun_at
            if took < BATCH_S[0]:
                self._limit = min(self._limit * 2, LARGEST)
            elif took > BATCH_S[1]:
                self._limit = max(self._limit // 2, SMALLEST)
        return len(batch)

    def _survey(self, tx: Transaction) -> list[Level]:
        levels = self._backlog.survey(tx)
        OLDEST_DUE.set(max((0.0, *(-level.wait_s for level in levels))))
        return levels

    def _hear(self, listener: NotificationListener, timeout_s: float) -> None:
        if listener.wait(timeout_s):
            self._backlog.notified()
