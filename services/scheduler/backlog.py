"""What is scheduled, by priority, and from where on it has to be looked for.

Promise: of all that is due, as far as this process has seen it, the highest priority is claimed first,
and of that the job that has waited longest. Whatever is scheduled is seen: at once when its time comes
after the positions, else at the next look from the beginning.
Mechanism: a position is kept for each priority and advances with what is claimed, so that rows claimed
before are not passed again while an old snapshot keeps them in the index. Where there is a concurrency
limit, or somebody still waits for one, the claim is the one that keeps them. A look from the beginning
comes after a notification, after any failure, and once per interval anyhow: it finds what became due
behind a position (a transaction that committed late, a job that another scheduler gave back), and new
priorities.
Failure: where many dead rows make that look slow, it comes more seldom, so that it takes at most a
twentieth of the time; what a notification asks for meanwhile is looked for as soon as that is over.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from atemporal.store import concurrency_limits, due, limited_claims
from atemporal.store.due import Claimed, Level, Position
from atemporal.store.rows import Transaction

SHARE = 0.05


class Given(NamedTuple):
    """The jobs that were claimed, in order.

    `more` says that there may be more to claim at once. `limited`: the claim counted, so no other can
    until it is committed. `full`: nobody may start before a slot is free, a limit is changed or a pause
    is over. `busy`: somebody else counts, or changes one of these, just now.
    """

    jobs: list[Claimed]
    more: bool = False
    limited: bool = False
    full: bool = False
    busy: bool = False


class Backlog:
    """The scheduled jobs as one scheduler sees them; used by one thread."""

    def __init__(
        self, *, look_every_s: float, clock: Callable[[], float], instance_type: str = ""
    ) -> None:
        """Know nothing yet. `clock` gives seconds; jobs that name no type have `instance_type`."""
        self._look_every_s = look_every_s
        self._instance_type = instance_type
        self._clock = clock
        self._positions: dict[int, Position] = {}
        self._known = False
        self._notified = False
        # When a look from the beginning is wanted, and when it is allowed.
        self._wanted_at = self._allowed_at = 0.0
        self.somebody_waits = False
        """Whether this look, from the beginning, found somebody who waits for a limit."""

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
        self.somebody_waits = False
        if self._known and not (wanted and now >= self._allowed_at):
            levels = due.survey_from(tx, self._positions)
        else:
            levels = due.survey(tx)
            after = self._clock()
            self._allowed_at = after + (after - now) / SHARE
            self._wanted_at = after + self._look_every_s
            self._known, self._notified = True, False
            self.somebody_waits = concurrency_limits.anybody_waits(tx)
            self._positions.clear()
        self._positions.update({level.priority: level.position for level in levels})
        return levels

    def claim(
        self, tx: Transaction, levels: list[Level], *, actor: str, limit: int, ahead_s: float
    ) -> Given:
        """Claim up to `limit` jobs that are due, or will be within `ahead_s` seconds."""
        in_force = concurrency_limits.in_force(tx)
        if in_force is None:
            return Given([], busy=True)
        if in_force.paused:
            return Given([], full=True)
        if in_force.limited:
            if not concurrency_limits.count_alone(tx):
                return Given([], busy=True)
            claim = limited_claims.claim(
                tx,
                in_force.rules,
                levels,
                actor=actor,
                limit=limit,
                ahead_s=ahead_s,
                instance_type=self._instance_type,
            )
            return Given(claim.jobs, claim.more, limited=True, full=claim.full)
        claimed: list[Claimed] = []
        for level in levels:
            if len(claimed) < limit and level.wait_s <= ahead_s:
                claimed += self._claim_of(
                    tx, level, actor=actor, limit=limit - len(claimed), ahead_s=ahead_s
                )
        return Given(claimed, more=len(claimed) >= limit)

    def _claim_of(
        self, tx: Transaction, level: Level, *, actor: str, limit: int, ahead_s: float
    ) -> list[Claimed]:
        claim = due.claim(
            tx,
            level.priority,
            actor=actor,
            limit=limit,
            position=level.position,
            ahead_s=ahead_s,
        )
        # What was locked and not moved is due still, and lies before the last one's place.
        passed = [job for job in claim.jobs if job.due_at <= level.now]
        if passed and claim.locked == len(claim.jobs):
            self._positions[level.priority] = passed[-1].position
        return claim.jobs
