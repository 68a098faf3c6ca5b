"""The loop that ends jobs which have not begun by their start deadline.

Promise: such a job ends within moments of its deadline, for that reason, and its instance goes. What
time it is, the database says.
Mechanism: a batch is locked and ended in one transaction; others pass over it. The reaper is notified
after the commit. The loop sleeps until the next deadline, and looks once per poll interval anyhow.
Failure: without any scheduler nothing is ended in time, and still nothing is started: the claim refuses.
Without the broker the reaper's sweep ends the instances.
"""

from __future__ import annotations

from atemporal.broker import Link, Outgoing
from atemporal.errors import Unavailable, Unknown
from atemporal.messages import JobCancel
from atemporal.metrics import counter, series
from atemporal.metrics.endings import ENDED
from atemporal.metrics.fires import FIRES
from atemporal.recurrence import FireReason
from atemporal.states import Reason
from atemporal.store import start_deadlines
from atemporal.store.database import Database
from atemporal.telemetry import log_context, logger

NOT_STARTED = counter(
    "atemporal_start_deadlines_missed_total",
    "Jobs that ended without a start because their start deadline had passed.",
)
series(ENDED, reason=[Reason.START_DEADLINE])

ACTOR = "scheduler"
BATCH = 100


class StartDeadlineLoop:
    """Ends what may not start any more."""

    name = "start-deadlines"

    def __init__(self, database: Database, link: Link, *, interval_s: float) -> None:
        """Take the connections; none is open yet."""
        self._database = database
        self._link = link
        self._interval_s = interval_s
        self._log = logger(self.name)

    def tick(self) -> float:
        """End one batch; return the seconds until there may be more."""
        with self._database.begin() as tx:
            expired = start_deadlines.expire(tx, limit=BATCH, actor=ACTOR)
            next_in_s = start_deadlines.next_in_s(tx)
        NOT_STARTED.inc(len(expired.jobs))
        late = FireReason.START_DEADLINE
        FIRES.labels(late.outcome, late).inc(expired.fires)
        for ref in expired.jobs:
            self._log.warning("not started by its start deadline", **log_context(ref))
        if expired.ended:
            ENDED.labels(Reason.START_DEADLINE).inc(len(expired.ended))
            try:
                self._link.publish([Outgoing.of(JobCancel.of(ref)) for ref in expired.ended])
            except (Unavailable, Unknown) as error:
                self._link.close()
                self._log.warning("the reaper's sweep will end instances", error=str(error))
        if len(expired.jobs) >= BATCH:
            return 0.0
        # What is due and was not given to us is locked: let that commit.
        wait_s = self._interval_s if next_in_s is None else max(next_in_s, self._interval_s / 10)
        return min(self._interval_s, wait_s)

    def reset(self) -> None:
        """Drop the connection."""
        self._link.close()
