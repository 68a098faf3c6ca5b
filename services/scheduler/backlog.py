"""What is scheduled, by priority, and from where on it has to be looked for.

Promise: of all that is due, as far as this process has seen it, the highest priority is claimed first,
and of that the job that has waited longest. Whatever is scheduled is seen: at once when its time comes
after the positions, else at the next look from the beginning.
Mechanism: a position is kept for each priority and advances with what is claimed, so that rows claimed
before are not passed again while an old snapshot keeps them in the index. A look from the beginning
comes after a notification, after any failure, and once per interval anyhow: it finds what became due
behind a position (a transaction that committed late, a job that another scheduler gave back), and new
priorities.
Failure: where many dead rows make that look slow, it comes more seldom, so that it takes at most a
twentieth of the time; what a notification asks for meanwhile is looked for as soon as that is over.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from atemporal.store import due
from atemporal.store.due import Claimed, Level, Position
from atemporal.store.rows import Transaction

SHARE = 0.05


class Backlog:
    """The scheduled jobs as one scheduler sees them; used by one thread."""

    def __init__(self, *, look_every_s: float, clock: Callable[[], float]) -> None:
        """Know nothing yet. `clock` gives seconds."""
        self._look_every_s = look_every_s
        self._clock = clock
        self._positions: dict[int, Position] = {}
        self._known = False
        self._notified = False
        # When a look from the beginning is wanted, and when it is allowed.
        self._wanted_at = self._allowed_at = 0.0

    def forget(self) -> None:
        """Look from the beginning next time: what was claimed may be scheduled still."""
        self._known = False

    def notified(self) -> None:
        """Something was scheduled that is due soon, maybe behind a position."""
        self._notified = True

    def look_in_s(self) -> float:
        """Seconds until a look that a notification still waits for is allowed; without one infinite."""
        return max(0.0, self._allowed_at - self._clock()) if self._notified else inf

    def survey(self, tx: Transaction) -> list[Level]:
        """Find the first job of each priority, the highest first."""
        now = self._clock()
        wanted = self._notified or now >= self._wanted_at
        if self._known and not (wanted and now >= self._allowed_at):
            levels = due.survey_from(tx, self._positions)
        else:
            levels = due.survey(tx)
            after = self._clock()
            self._allowed_at = after + (after - now) / SHARE
            self._wanted_at = after + self._look_every_s
            self._known, self._notified = True, False
            self._positions.clear()
        self._positions.update({level.priority: level.position for level in levels})
        return levels

    def claim(
        self, tx: Transaction, levels: list[Level], *, actor: str, limit: int, ahead_s: float
    ) -> list[Claimed]:
        """Claim up to `limit` jobs that are due, or will be within `ahead_s` seconds."""
        claimed: list[Claimed] = []
        for level in levels:
            if len(claimed) < limit and level.wait_s <= ahead_s:
                claim = due.claim(
                    tx,
                    level.priority,
                    actor=actor,
                    limit=limit - len(claimed),
                    position=level.position,
                    ahead_s=ahead_s,
                )
                # What was locked and not moved is due still, and lies before the last one's place.
                passed = [job for job in claim.jobs if job.due_at <= level.now]
                if passed and claim.locked == len(claim.jobs):
                    self._positions[level.priority] = passed[-1].position
                claimed += claim.jobs
        return claimed
