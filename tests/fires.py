"""What became of a recurring schedule's fires, against its jobs and what their containers wrote.

Promise: pure. Each fire from the schedule's begin to its pause is accounted for once: its job ran, or
it was skipped or missed for a reason. Each fire that ran has one job of its own, due at its time; what
is no fire's job was asked for by hand, or was made ahead and taken back without having run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Protocol
from uuid import UUID

from atemporal.clock import format_utc
from atemporal.model import Job
from atemporal.model.schedule import RecordedFire, Schedule
from atemporal.recurrence import FireOutcome, FireReason, Overlap
from atemporal.states import Outcome


class Span(Protocol):
    """When a container ran."""

    @property
    def started(self) -> float:
        """Seconds since the epoch."""

    @property
    def ended(self) -> float | None:
        """The same; None where it was cut short."""


def broken_fires(
    schedule: Schedule,
    fires: Sequence[RecordedFire],
    jobs: Mapping[UUID, Job],
    runs: Mapping[UUID, Sequence[Span]],
    *,
    by_hand: Collection[str],
) -> Iterator[str]:
    """Say what is wrong with a paused schedule whose line has always been the same.

    `jobs` are those with its label, `runs` when the containers of each ran, `by_hand` the keys of
    those that were asked for besides.
    """
    if schedule.paused_at is None or schedule.problem:
        yield f"it is not paused, or says: {schedule.problem}"
        return
    times = Counter(at for fire in fires for at in _times(schedule, fire))
    # What came before a pause and was not decided by then is skipped when it ends.
    undecided = schedule.next_fire_at
    due = {
        at
        for at in _between(schedule, schedule.created_at, schedule.paused_at)
        if undecided is None or at < undecided
    }
    for what, wrong in (
        ("decided twice", {at for at, many in times.items() if many > 1}),
        ("not decided", due - times.keys()),
        ("decided, and not due", times.keys() - due),
    ):
        if wrong:
            yield f"fires {what}: " + ", ".join(format_utc(at) for at in sorted(wrong))
    of_fires = {fire.job_id: fire for fire in fires if fire.outcome is FireOutcome.RAN}
    yield from (
        f"the job of {one.fire_time} is none of its own" for one in fires if not _fits(one)
    )
    for job_id, fire in of_fires.items():
        job = jobs.get(job_id) if job_id else None
        if job is None or job.run_at != fire.fire_time:
            yield f"the fire of {fire.fire_time} ran, and has no job of that time"
    if len(of_fires) != sum(fire.outcome is FireOutcome.RAN for fire in fires):
        yield "two fires have one job"
    for job_id, job in jobs.items():
        taken_back = job.outcome is Outcome.CANCELLED and not runs.get(job_id)
        if job_id not in of_fires and job.spec.key not in by_hand and not taken_back:
            yield f"job {job_id}, due {job.run_at}, is no fire's, and {job.outcome}"
    if schedule.overlap is Overlap.SKIP:
        yield from _beside(runs[one] for one in of_fires if one and runs.get(one))


def _beside(of_jobs: Iterator[Sequence[Span]]) -> Iterator[str]:
    """Jobs of which one's container started while another's may have gone on."""
    spans = sorted((min(run.started for run in runs), runs) for runs in of_jobs)
    for (_, before), (started, _) in pairwise(spans):
        last = max(run.ended or run.started for run in before)
        if started < last:
            yield f"a container started {last - started:.1f} s before that of an earlier fire ended"


def _fits(fire: RecordedFire) -> bool:
    """Whether it has a job if it ran, and a reason if it did not.

    One whose job did not start by its start deadline has both.
    """
    ran = fire.outcome is FireOutcome.RAN
    has_job = fire.job_id is not None
    fits = has_job is ran or (has_job and fire.reason is FireReason.START_DEADLINE)
    return fits and (fire.reason is None) is ran


def _times(schedule: Schedule, fire: RecordedFire) -> list[datetime]:
    until = fire.until or fire.fire_time
    found = [fire.fire_time, *_between(schedule, fire.fire_time, until)]
    # A wrong count shows as fires that are decided twice, or not at all.
    return found[: fire.count] + [until] * (fire.count - len(found))


def _between(schedule: Schedule, since: datetime, until: datetime) -> Iterator[datetime]:
    """The fires after `since`, to `until`."""
    at = schedule.line.next_after(since)
    while at is not None and at <= until:
        yield at
        at = schedule.line.next_after(at)
