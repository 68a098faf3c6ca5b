"""The audit's loop: what `atemporal audit` shows, as gauges, again and again.

Promise: it changes nothing; drift is in a gauge and in the log within some minutes.
"""

from __future__ import annotations

from collections import Counter

from atemporal.fleet.plan import Limits
from atemporal.fleet.reconciliation import Status, reconcile
from atemporal.metrics import gauge
from atemporal.store.database import Database
from atemporal.store.invariants import INVARIANTS, violations
from services.reaper.one_sweeper import OneSweeper
from services.reaper.reaper import Reaper

RECONCILIATION_ROWS = gauge(
    "atemporal_reconciliation_rows",
    "Rows of the last reconciliation, instances and attempts, by their status.",
    status=Status,
)
WORST_LEAK = gauge(
    "atemporal_reconciliation_worst_leak_seconds",
    "The longest leak of the last reconciliation: how long an instance outlived its attempt.",
)
VIOLATIONS = gauge(
    "atemporal_record_violations",
    "Violations that the last audit found: rows of the records that break an invariant.",
    invariant=[invariant.name for invariant in INVARIANTS],
)

# It reads whole tables: one audit for so many sweeps of the instances.
EVERY = 30
_LINES = 20


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
    ) -> None:
        """Take the steps; the first audit is at once."""
        self._reaper = reaper
        self._database = database
        self._limits = limits
        self._interval_s = interval_s
        self._sweeper = OneSweeper(
            database, "reaper audit", interval_s=interval_s * every, holder=holder
        )
        self._every = every
        self._ticks = 0

    def tick(self) -> float:
        """Audit, if it is time and no other reaper does."""
        tick, self._ticks = self._ticks, self._ticks + 1
        if tick % self._every == 0:
            with self._sweeper.mine() as mine:
                if mine:
                    self._reconcile()
                    # After it: it reads the whole history, and one day may take too long.
                    self._check_invariants()
        return self._interval_s

    def reset(self) -> None:
        """Let another reaper try: nothing of its own is open between ticks."""
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

    def _check_invariants(self) -> None:
        with self._database.begin() as tx:
            broken = violations(tx)
        counts = Counter(one.invariant.name for one in broken)
        for invariant in INVARIANTS:
            VIOLATIONS.labels(invariant.name).set(counts[invariant.name])
        for one in broken[:_LINES]:
            self._reaper.log.error("a promise of the tables is broken", promise=str(one))
