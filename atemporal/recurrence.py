"""What becomes of a recurring schedule's fires: the decision, without calendar, clock or database.

Promise: pure. Each fire is decided once, and ends as *ran*, *skipped* or *missed*, with the reason. One
decision is bounded, however long nobody decided: it looks at `PIECE` fires, makes `JOBS` jobs and lists
`LISTED` fires by themselves; what else was missed is one entry with a count. The rest comes next.

Mechanism: a job's time is when its container starts, so its job has to be there ahead of that: a fire
is decided `HORIZON_S` ahead of its time. That is longer than the longest lead, so its lead is still
learned, and a scheduler that is away for less than the difference still decides in time for it.

- A fire that nobody decided until `GRACE_S` after its time is *late*: the scheduler was away. The
  catch-up decides: none of the late ones is run, the latest one, or each; only those within the window.
  What is not run is missed.
- With the overlap `skip` a fire waits for the end of the earlier job, and is decided then: its job is
  made as soon as the earlier one has ended, or the fire is skipped when its time comes first. So nothing
  is skipped for a job that would have ended in between, and no machine is launched for nothing. With
  `cancel` the job is made ahead as usual, and the earlier one is cancelled at the fire's time
  (`atemporal.store.fires`).
- A fire that is older than the start deadline when it is decided is skipped. The job of any other has
  that deadline itself (`atemporal.store.start_deadlines`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias

from atemporal.lead import LIMIT_S

HORIZON_S: Final = LIMIT_S + 300.0
"""So long ahead of its time a fire's job is made, in seconds."""
GRACE_S: Final = 60.0
"""A fire that is decided later than this is late, in seconds."""
AGAIN_S: Final = 5.0
"""A fire that waits for an earlier job is looked at so often, in seconds."""
PIECE: Final = 500
"""The most fires that one decision looks at."""
JOBS: Final = 100
"""The most jobs that follow from one decision."""
LISTED: Final = 20
"""The most fires of one decision without a job that have an entry of their own."""

Next: TypeAlias = Callable[[datetime], datetime | None]
"""The first fire after an instant; None when there is none any more."""


class CatchUp(StrEnum):
    """Which of the late fires are run."""

    SKIP = "skip"
    ONE = "one"
    ALL = "all"


class Overlap(StrEnum):
    """What happens at a fire's time while an earlier job of the schedule has not finished."""

    ALLOW = "allow"
    SKIP = "skip"
    CANCEL = "cancel"


class FireOutcome(StrEnum):
    """What became of a fire."""

    RAN = "ran"
    SKIPPED = "skipped"
    MISSED = "missed"


class FireReason(StrEnum):
    """Why a fire was not run: skipped by a rule of its schedule, or missed by an absence of ours."""

    OVERLAP = "overlap"
    START_DEADLINE = "start_deadline"
    PAUSED = "paused"
    EDITED = "edited"
    KEY_TAKEN = "key_taken"
    CATCH_UP = "catch_up"
    WINDOW = "window"

    @property
    def outcome(self) -> FireOutcome:
        """What the fire ended as."""
        missed = (FireReason.CATCH_UP, FireReason.WINDOW)
        return FireOutcome.MISSED if self in missed else FireOutcome.SKIPPED


@dataclass(frozen=True)
class Rules:
    """What a schedule wants of its fires; seconds."""

    catch_up: CatchUp = CatchUp.SKIP
    window_s: int = 86_400
    overlap: Overlap = Overlap.ALLOW
    start_deadline_s: int | None = None


@dataclass(frozen=True)
class Fire:
    """What became of the fire at `time`, or of `count` fires from there to `until`.

    Without a reason it is run.
    """

    time: datetime
    reason: FireReason | None = None
    count: int = 1
    until: datetime | None = None

    @property
    def outcome(self) -> FireOutcome:
        """What it ended as."""
        return self.reason.outcome if self.reason else FireOutcome.RAN


@dataclass(frozen=True)
class Decision:
    """The fires that were decided, in order; the next one; and when to decide again.

    Both instants are None when the schedule has no fire any more.
    """

    fires: tuple[Fire, ...]
    next_fire_at: datetime | None
    look_at: datetime | None


def look_at(next_fire_at: datetime | None) -> datetime | None:
    """When a fire is to be decided."""
    return next_fire_at and next_fire_at - timedelta(seconds=HORIZON_S)


def decide(
    following: Next,
    next_fire_at: datetime | None,
    now: datetime,
    rules: Rules,
    *,
    alive: Collection[datetime] = (),
    made: Collection[datetime] = (),
) -> Decision:
    """Decide the fires from `next_fire_at` on that it is time for.

    `alive` are the fires whose jobs have not finished, `made` those that were decided before, which are
    passed over.
    """
    horizon, grace = now + timedelta(seconds=HORIZON_S), now - timedelta(seconds=GRACE_S)
    fires: list[Fire] = []
    earliest = min(alive, default=None)
    seen = jobs = 0
    at = next_fire_at
    while at is not None and at <= horizon and seen < PIECE and jobs < JOBS:
        after = following(at)
        seen += 1
        if at not in made:
            reason: FireReason | None = None
            if at < grace:
                latest = after is None or after >= grace
                reason = _of_late(now - at, rules, latest=latest)
            reason = reason or _of_wait(now - at, rules)
            lives = earliest is not None and earliest < at
            if reason is None and lives and rules.overlap is Overlap.SKIP:
                if at > now:
                    again = min(at, now + timedelta(seconds=AGAIN_S))
                    return Decision(_collapsed(fires), at, again)
                reason = FireReason.OVERLAP
            fires.append(Fire(at, reason))
            if reason is None:
                earliest = at if earliest is None else min(earliest, at)
                jobs += 1
        at = after
    # Of a piece that is not the last one nobody wants to read each.
    listed = 0 if at is not None and at < grace else LISTED
    return Decision(_collapsed(fires, listed=listed), at, look_at(at))


def passed_over(
    following: Next,
    next_fire_at: datetime | None,
    now: datetime,
    reason: FireReason,
    *,
    made: Collection[datetime] = (),
) -> tuple[Fire, ...]:
    """The fires up to now that nobody decided, and nobody will: not more than `PIECE` are counted."""
    fires: list[Fire] = []
    at = next_fire_at
    while at is not None and at <= now and len(fires) < PIECE:
        if at not in made:
            fires.append(Fire(at, reason))
        at = following(at)
    return _collapsed(fires)


def _of_late(age: timedelta, rules: Rules, *, latest: bool) -> FireReason | None:
    if rules.catch_up is CatchUp.SKIP or (rules.catch_up is CatchUp.ONE and not latest):
        return FireReason.CATCH_UP
    return FireReason.WINDOW if age.total_seconds() > rules.window_s else None


def _of_wait(age: timedelta, rules: Rules) -> FireReason | None:
    late = rules.start_deadline_s is not None and age.total_seconds() > rules.start_deadline_s
    return FireReason.START_DEADLINE if late else None


def _collapsed(fires: list[Fire], *, listed: int = LISTED) -> tuple[Fire, ...]:
    """All that are run, and the latest of the others; of what is before these, one for each reason."""
    others = [one for one in fires if one.reason]
    split = max(len(others) - listed, 0)
    first, kept = others[:split], others[split:]
    merged = []
    for reason in dict.fromkeys(one.reason for one in first):
        of_it = [one for one in first if one.reason is reason]
        until = of_it[-1].time if len(of_it) > 1 else None
        merged.append(Fire(of_it[0].time, reason, len(of_it), until))
    run = [one for one in fires if one.reason is None]
    return tuple(sorted([*run, *merged, *kept], key=lambda one: one.time))
