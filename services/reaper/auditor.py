"""The audit's loop: what `atemporal audit` shows, as gauges, again and again.

Promise: it changes nothing; drift is in a gauge and in the log within some minutes. Of the records
every job is checked after each thing that happened to it; one that breaks a promise, until it keeps it.
Failure: what a hand does to a job to which nothing happens is not seen: `atemporal audit --history` is
for that. A reaper that starts begins with the newest events.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from atemporal.fleet.plan import Limits
from atemporal.fleet.reconciliation import Status, reconcile
from atemporal.metrics import Aggregate, clear, gauge
from atemporal.store.database import Database
from atemporal.store.invariants import INVARIANTS, RECENT, moved, violations
from services.reaper.one_sweeper import OneSweeper
from services.reaper.reaper import Reaper

RECONCILIATION_ROWS = gauge(
    "atemporal_reconciliation_rows",
    "Rows of the last reconciliation, instances and attempts, by their status.",
    aggregate=Aggregate.ONE,
    status=Status,
)
WORST_LEAK = gauge(
    "atemporal_reconciliation_worst_leak_seconds",
    "The longest leak of the last reconciliation: how long an instance outlived its attempt.",
    aggregate=Aggregate.ONE,
)
VIOLATIONS = gauge(
    "atemporal_record_violations",
    "Violations that the last audit found: rows of the records that break an invariant.",
    aggregate=Aggregate.ONE,
    invariant=[invariant.name for invariant in INVARIANTS],
)

# It lists all instances: one audit for so many sweeps of them.
EVERY = 30
_LINES = 20
# Between two looks at the history while there is more of it than one look takes.
PAUSE_S = 0.5
_REMEMBERED = 1000


class AuditLoop:
    """Audits, less often than the sweep looks for instances."""

    name = "audit"

    def __init__(
        self,
        reaper: Reaper,
        database: Database,
        *,
        limits: Limits,
        interval_s: float,
        every: int = EVERY,
        holder: str = "",
        events: int = RECENT,
    ) -> None:
        """Take the steps; the first audit is at once. So many events are looked at together."""
        self._reaper = reaper
        self._database = database
        self._limits = limits
        self._interval_s = interval_s
        self._sweeper = OneSweeper(
            database, "reaper audit", interval_s=interval_s * every, holder=holder
        )
        self._every = every
        self._ticks = 0
        self._events = events
        self._until: int | None = None
        self._is_behind = False
        self._broken: set[UUID] = set()

    def tick(self) -> float:
        """Audit, if it is time and no other reaper does."""
        is_time = self._ticks % self._every == 0
        if self._is_behind or is_time:
            with self._sweeper.mine() as mine:
                if mine and not self._is_behind:
                    self._reconcile()
                self._is_behind = mine and self._check_invariants()
                if not mine:
                    clear(RECONCILIATION_ROWS, WORST_LEAK, VIOLATIONS)
        if self._is_behind:
            return PAUSE_S
        self._ticks += 1
        return self._interval_s

    def reset(self) -> None:
        """Let another reaper try: nothing of its own is open between ticks."""
        self._is_behind = False
        self._sweeper.give_up()

    def _reconcile(self) -> None:
        found = reconcile(
            self._reaper.fleet.snapshot_with_history(),
            grace_s=self._limits.grace_s,
            stop_s=self._limits.stop_s,
        )
        for status, count in found.counts.items():
            RECONCILIATION_ROWS.labels(status).set(count)
        WORST_LEAK.set(found.worst_leak_s)
        for row in found.drift[:_LINES]:
            self._reaper.log.error(
                "drift: EC2 and the records differ",
                status=row.status,
                why=row.why,
                instance=row.instance.id if row.instance else None,
                attempt=row.attempt.ref.id if row.attempt else None,
            )

    def _check_invariants(self) -> bool:
        """Check the jobs to which something has happened; return whether there are more."""
        with self._database.begin() as tx:
            seen = moved(tx, after=self._until, limit=self._events)
            broken = violations(tx, seen.jobs | self._broken)
        self._until = seen.until
        self._broken = {one.job_id for one in broken[:_REMEMBERED]}
        counts = Counter(one.invariant.name for one in broken)
        for invariant in INVARIANTS:
            VIOLATIONS.labels(invariant.name).set(counts[invariant.name])
        for one in broken[:_LINES]:
            self._reaper.log.error("a promise of the tables is broken", promise=str(one))
        return seen.more
