"""The audit as gauges: the same comparison as `atemporal audit`, again and again.

Promise: it changes nothing; what does not balance is in a gauge and in the log within some minutes.
"""

from __future__ import annotations

from collections import Counter

from atemporal.audit import SHOWN_FOR_S, Settled, audit
from atemporal.store import installation, ledger
from atemporal.store.database import Database, server_time
from atemporal.store.invariants import INVARIANTS, violations
from atemporal.telemetry import INVARIANT_VIOLATIONS, RECONCILIATION_ROWS, WORST_LEAK
from services.reaper.judgement import Limits
from services.reaper.reaper import Reaper

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
    ) -> None:
        """Take the cloud and the books; the first audit is at once."""
        self._reaper = reaper
        self._database = database
        self._limits = limits
        self._interval_s = interval_s
        self._every = every
        self._ticks = 0

    def tick(self) -> float:
        """Audit, if it is time and no other reaper does."""
        tick, self._ticks = self._ticks, self._ticks + 1
        if tick % self._every == 0:
            with self._database.only_one("reaper audit") as mine:
                if mine:
                    self._balance()
                    # After it: it reads the whole history, and one day may take too long.
                    self._look_at_promises()
        return self._interval_s

    def reset(self) -> None:
        """Nothing of its own is open between turns."""

    def _balance(self) -> None:
        with self._database.begin() as tx:
            now = server_time(tx)
        listed = self._reaper.cloud.all()
        with self._database.begin() as tx:
            books = ledger.page(
                tx,
                instance_ids=[one.id for one in listed],
                refs={one.ref for one in listed if one.ref},
                within_s=SHOWN_FOR_S,
            )
            ours = installation.identity(tx)
        found = audit(
            listed,
            books.attempts,
            installation=ours,
            now=now,
            grace_s=self._limits.grace_s,
            overstay_s=self._limits.stop_s,
            settled=Settled(books.settled, books.settled_s),
        )
        for standing, count in found.counts.items():
            RECONCILIATION_ROWS.labels(standing).set(count)
        WORST_LEAK.set(found.worst_overstay_s)
        for row in found.faults[:_LINES]:
            self._reaper.log.error(
                "the books do not balance",
                standing=row.standing,
                why=row.why,
                instance=row.instance.id if row.instance else None,
                attempt=row.attempt.ref.id if row.attempt else None,
            )

    def _look_at_promises(self) -> None:
        with self._database.begin() as tx:
            broken = violations(tx)
        counts = Counter(one.invariant.name for one in broken)
        for invariant in INVARIANTS:
            INVARIANT_VIOLATIONS.labels(invariant.name).set(counts[invariant.name])
        for one in broken[:_LINES]:
            self._reaper.log.error("a promise of the tables is broken", promise=str(one))
