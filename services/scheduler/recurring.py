"""The loop that makes the jobs of recurring schedules.

Promise: each fire of a schedule is decided once, however many schedulers there are, and its job is there
ahead of its time (`atemporal.recurrence` says how it is decided). What time it is, the database says: a
host whose clock is wrong changes nothing.
Mechanism: the schedules that it is time for are locked in small batches, each batch in one transaction
with its jobs; others pass over them. When the loop starts, and once an hour, it looks for schedules
whose next fire was computed by other zone rules, and computes it anew.
Failure: what is not done is done by the next tick, or by another scheduler. Without the broker an
earlier job that was cancelled is found by the reaper's sweep. A schedule that this process can not read
is put off for a minute, in which another scheduler may have it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from time import monotonic

from atemporal.broker import Link, Outgoing
from atemporal.calendar import rules_version
from atemporal.errors import Unavailable, Unknown
from atemporal.messages import JobCancel
from atemporal.metrics import counter, series
from atemporal.metrics.endings import ENDED
from atemporal.metrics.fires import count_fire
from atemporal.states import Reason
from atemporal.store import fires
from atemporal.store.database import Database, server_time
from atemporal.store.fires import Done
from atemporal.store.rows import Transaction
from atemporal.telemetry import logger

PROBLEMS = counter(
    "atemporal_schedule_problems_total",
    "Looks at a recurring schedule that can not be fired; `atemporal schedule show` says why.",
)
series(ENDED, reason=[Reason.CANCELLED])

ACTOR = "scheduler"
BATCH = 25
RULES_AGAIN_S = 3600.0
_LOCKED_S = 0.05


class RecurringLoop:
    """Decides what becomes of the fires of schedules."""

    name = "recurring"

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        interval_s: float,
        clock: Callable[[], float] = monotonic,
        time_of: Callable[[Transaction], datetime] = server_time,
        rules: Callable[[], str] = rules_version,
    ) -> None:
        """Take the connections; none is open yet.

        `clock` gives seconds, `time_of` the time that decides, `rules` the version of the zone rules.
        """
        self._database = database
        self._link = link
        self._interval_s = interval_s
        self._clock = clock
        self._time_of = time_of
        self._rules = rules
        self._rules_at = clock()
        self._log = logger(self.name)

    def tick(self) -> float:
        """Look at one batch of schedules; return the seconds until there may be more."""
        with self._database.begin() as tx:
            now = self._time_of(tx)
            rules = self._rules()
            stale = self._clock() >= self._rules_at
            rows = (
                fires.of_other_rules(tx, rules, now, limit=BATCH)
                if stale
                else fires.due(tx, now, limit=BATCH)
            )
            done = fires.decide_due(tx, rows, now, rules=rules, actor=ACTOR)
            following = fires.next_look(tx)
        if stale and done.schedules < BATCH:
            self._rules_at = self._clock() + RULES_AGAIN_S
        self._tell(done)
        if stale or (done.schedules and following is not None and following <= now):
            return 0.0
        wait_s = (following - now).total_seconds() if following else self._interval_s
        # What is due and was not given to us is locked by another scheduler: let it commit.
        return min(self._interval_s, max(wait_s, _LOCKED_S))

    def reset(self) -> None:
        """Drop the connection."""
        self._link.close()

    def _tell(self, done: Done) -> None:
        for name, fire in done.fires:
            count_fire(fire)
            if fire.reason:
                self._log.warning(
                    "fire not run",
                    schedule=name,
                    time=fire.time.isoformat(),
                    count=fire.count,
                    outcome=fire.outcome.value,
                    reason=fire.reason.value,
                )
        for name, why in done.problems:
            PROBLEMS.inc()
            self._log.error("schedule can not be fired", schedule=name, error=why)
        if not done.ended:
            return
        ENDED.labels(Reason.CANCELLED).inc(len(done.ended))
        try:
            self._link.publish([Outgoing.of(JobCancel.of(ref)) for ref in done.ended])
        except (Unavailable, Unknown) as error:
            self._link.close()
            self._log.warning("the reaper's sweep will end instances", error=str(error))
