"""What a job waits for, in words: the phase it is in, who has to act next, and since when.

Promise: whoever asks why nothing happens gets one sentence, the same in the CLI, over HTTP and as a
metric's label.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from atemporal.model import Attempt, Job, LimitWait
from atemporal.states import AttemptState, BlockedReason, JobState


class Phase(StrEnum):
    """The phases of a job's way; those before `queued`, and `hold`, have no deadline of their own."""

    TIME = "time"
    DUE = "due"
    LIMIT = "limit"
    PAUSE = "pause"
    QUEUED = "queued"
    LAUNCH = "launch"
    BOOT = "boot"
    PULL = "pull"
    HOLD = "hold"
    RUN = "run"
    STOP = "stop"


_FOR = {
    Phase.TIME: "its time",
    Phase.DUE: "a scheduler to hand it on",
    Phase.LIMIT: "room under a concurrency limit",
    Phase.PAUSE: "somebody to resume the installation",
    Phase.QUEUED: "a launcher to take it",
    Phase.LAUNCH: "EC2 to give an instance",
    Phase.BOOT: "its machine to boot",
    Phase.PULL: "its machine to get the image, and secrets by reference",
    Phase.HOLD: "its time, with its machine ready",
    Phase.RUN: "its program to end",
    Phase.STOP: "EC2 to end its instance",
}


def what_is_awaited(phase: Phase) -> str:
    """What is waited for in a phase, for a reader."""
    return _FOR[phase]


class Waiting(NamedTuple):
    """One phase, since an instant; `blocked_on` is what hinders it, `detail` says more to people.

    `limit` is the concurrency limit, where it waits for one.
    """

    phase: Phase
    since: datetime
    blocked_on: BlockedReason | None = None
    detail: str | None = None
    limit: LimitWait | None = None

    @property
    def what(self) -> str:
        """What is waited for, for a reader."""
        return str(self.limit) if self.limit else _FOR[self.phase]


def of_job(job: Job) -> Waiting | None:
    """What the job waits for now; None when it is over and its last instance is gone."""
    if job.state is JobState.SCHEDULED:
        if job.pause is not None:
            return Waiting(Phase.PAUSE, job.launch_at, detail=str(job.pause))
        if job.limit_wait is not None:
            return Waiting(Phase.LIMIT, job.launch_at, limit=job.limit_wait)
        if job.read_at is not None and job.read_at >= job.launch_at:
            return Waiting(Phase.DUE, job.launch_at)
        return Waiting(Phase.TIME, job.updated_at)
    if job.state is JobState.QUEUED:
        return Waiting(Phase.QUEUED, job.queued_at or job.launch_at)
    return of_attempt(job.attempts[-1]) if job.attempts else None


def of_attempt(attempt: Attempt) -> Waiting | None:
    """What an attempt waits for now; None when it is closed."""
    match attempt.state:
        case AttemptState.LAUNCHING:
            return Waiting(Phase.LAUNCH, attempt.created_at, attempt.blocked_on, attempt.detail)
        case AttemptState.READY:
            return Waiting(Phase.HOLD, attempt.ready_at or attempt.created_at)
        case AttemptState.WARMING:
            if attempt.booted_at is not None:
                return Waiting(Phase.PULL, attempt.booted_at)
            return Waiting(Phase.BOOT, attempt.launched_at or attempt.created_at)
        case AttemptState.RUNNING:
            return Waiting(Phase.RUN, attempt.running_at or attempt.created_at)
        case AttemptState.EXITED:
            return Waiting(Phase.STOP, attempt.exited_at or attempt.created_at)
        case AttemptState.CLOSED:
            return None


def until(waiting: Waiting, job: Job, deadlines: Mapping[Phase, float]) -> datetime | None:
    """When the wait ends, one way or the other; None where nothing ends it.

    `deadlines` are the seconds that a deployment gives each phase; the job says itself how long its
    program may run, and by when it has to have started.
    """
    if waiting.phase in (Phase.TIME, Phase.HOLD):
        return job.due_at
    limit_s = job.spec.timeout_s if waiting.phase is Phase.RUN else deadlines.get(waiting.phase)
    end = None if limit_s is None else waiting.since + timedelta(seconds=limit_s)
    if waiting.phase in (Phase.RUN, Phase.STOP):
        return end
    return min((at for at in (end, job.start_by) if at is not None), default=None)
