"""The loop that decides when the launches of future jobs begin.

Promise: a job is launched as long before its time as recent machines of its kind took, by the estimate
of that time and not of its submit.
Mechanism: each such job has a time at which its plan is due: first the longest lead ahead of its time,
then shortly before its launch. Plans that are due are made in batches, each batch in one transaction;
what has come to be ready meanwhile is read at most once in `FRESH_S`.
Failure: what is not planned keeps the lead that it has, at first the default one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from atemporal.lead import Estimates, Kind, Plan, Recent, plan
from atemporal.metrics import counter, histogram
from atemporal.settings import Settings
from atemporal.store import leads
from atemporal.store.database import Database
from atemporal.store.leads import Planned, Unplanned

PLANS = counter(
    "atemporal_leads_planned_total",
    "Leads that were decided, once or more for each job that is due later.",
)
LEAD = histogram(
    "atemporal_lead_seconds",
    "The leads that were decided: how long before its time the launch of a job begins.",
    buckets=(1.0, 15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 450.0, 600.0),
)

BATCH = 500
FRESH_S = 10.0


class LeadLoop:
    """Plans the launches of jobs that are due later."""

    name = "lead"

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the connections; none is open yet. `clock` gives seconds."""
        self._database = database
        self._instance_type = settings.instance_type
        self._limit_s = float(min(settings.lead_limit_s, settings.hold_limit_s))
        self._interval_s = settings.poll_interval_s
        self._clock = clock
        self._recent = Recent()
        self._estimates = Estimates()
        self._stale_at = clock()

    def tick(self) -> float:
        """Make one batch of plans; return the seconds until there may be more to make."""
        with self._database.begin() as tx:
            due = leads.unplanned(tx, limit=BATCH)
            if due:
                if self._clock() >= self._stale_at:
                    self._recent.add(leads.samples(tx, since=self._recent.until))
                    self._estimates = Estimates(self._recent.all())
                    self._stale_at = self._clock() + FRESH_S
                plans = [self._plan(one) for one in due]
                leads.write(tx, plans)
        if due:
            PLANS.inc(len(due))
            for one in plans:
                LEAD.observe(one.plan.ahead_s)
        return 0.0 if len(due) == BATCH else self._interval_s

    def reset(self) -> None:
        """There is nothing to drop."""

    def _plan(self, job: Unplanned) -> Planned:
        first, *_ = (*job.instance_types, self._instance_type)
        capacity_type = "on-demand" if job.capacity_type == "on-demand" else "spot"
        lead_s = self._estimates.lead_s(Kind.of(job.image, first, capacity_type))
        if job.ahead_s is not None:
            return Planned(job.job_id, lead_s, Plan(job.ahead_s, None))
        wanted_s = min(lead_s, self._limit_s)
        return Planned(job.job_id, lead_s, plan(due_in_s=job.due_in_s, lead_s=wanted_s))
