"""The loop that ends jobs which have cost more than they may.

Promise: such a job ends within half a minute of passing its bound, for that reason, and its instance
goes. What time it is, the database says.
Mechanism: the bounded jobs that are under way are looked at in the order of their ids, a page in each
transaction, all of them in each tick. The reaper is notified after the commit.
Failure: without any scheduler nothing is ended by its cost, but by the machine's own deadline. Without
the broker the reaper's sweep ends the instances.
"""

from __future__ import annotations

from uuid import UUID

from atemporal.broker import Link, Outgoing
from atemporal.errors import Unavailable, Unknown
from atemporal.messages import JobCancel
from atemporal.metrics import series
from atemporal.metrics.endings import ENDED
from atemporal.states import Reason
from atemporal.store import cost_limits
from atemporal.store.cost_limits import Passed
from atemporal.store.database import Database
from atemporal.telemetry import log_context, logger

series(ENDED, reason=[Reason.MAX_COST])

ACTOR = "scheduler"
PAGE = 500
INTERVAL_S = 10.0


class CostLimitLoop:
    """Ends what has become too expensive."""

    name = "cost-limits"

    def __init__(self, database: Database, link: Link, *, page: int = PAGE) -> None:
        """Take the connections; none is open yet. `page` is how many jobs are looked at together."""
        self._database = database
        self._link = link
        self._page = page
        self._log = logger(self.name)

    def tick(self) -> float:
        """Look at each job that has a bound and is under way."""
        after: UUID | None = cost_limits.BEGIN
        while after is not None:
            with self._database.begin() as tx:
                passed = cost_limits.end_passed(tx, actor=ACTOR, after=after, limit=self._page)
            self._tell(passed)
            after = passed.after
        return INTERVAL_S

    def reset(self) -> None:
        """Drop the connection."""
        self._link.close()

    def _tell(self, passed: Passed) -> None:
        for ref in passed.jobs:
            self._log.warning("it has cost more than it may", **log_context(ref))
        if not passed.ended:
            return
        ENDED.labels(Reason.MAX_COST).inc(len(passed.ended))
        try:
            self._link.publish([Outgoing.of(JobCancel.of(ref)) for ref in passed.ended])
        except (Unavailable, Unknown) as error:
            self._link.close()
            self._log.warning("the reaper's sweep will end instances", error=str(error))
