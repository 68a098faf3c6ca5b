"""A job with its attempts, and the events of its history."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from atemporal.model.attempt import Attempt, KnownReason
from atemporal.model.frozen import Frozen
from atemporal.model.job_spec import JobSpec
from atemporal.model.pause import Pause
from atemporal.states import JobState, Outcome


class LimitWait(Frozen):
    """What a job that is due waits for: room under a concurrency limit.

    `limit` is what it counts against, `used` how much of that is held, and `most` how much may be: None
    where the limit was removed a moment ago. `vcpus_of` is a type of which nobody knows the vCPUs yet.
    `before` says how many jobs that wait for the same come before it; at least so many if `before_more`.
    """

    limit: str
    used: int
    most: int | None = None
    needs: int = 1
    vcpus_of: str | None = None
    before: int = 0
    before_more: bool = False

    def __str__(self) -> str:
        """Say it to a reader: `limit team=mi6 (5 of 5 in use), 12 before it`."""
        if self.vcpus_of:
            room = f"the vCPUs of {self.vcpus_of} are not known yet"
        elif self.most is None:
            room = "removed"
        elif self.needs > self.most:
            room = f"it needs {self.needs}, more than the {self.most} that there are"
        else:
            need = f", it needs {self.needs}" if self.needs > 1 else ""
            room = f"{self.used} of {self.most} in use{need}"
        more = "more than " if self.before_more else ""
        return f"limit {self.limit} ({room}), {more}{self.before} before it"


class Job(Frozen):
    """A job as it is recorded; `attempt` is the number of the last attempt, 0 before the first.

    `run_at` is when it was asked for, `due_at` when the next attempt's container is to start, `read_at`
    when this was so, by the database's clock. `dispatch_at` is when the launch for it begins, None when
    that is when it is due; `lead_s` is how long launch and pull may take, as it was estimated last.
    `queued_at` is when it was dispatched last. `waits_for` is what it was put aside for, as it is
    recorded, and `limit_wait` the same for readers. `pause` is the installation's, of a job that waits
    for its end. `start_by` is its start deadline, None without one and once its container has started.
    """

    id: UUID
    spec: JobSpec
    state: JobState
    outcome: Outcome | None = None
    reason: KnownReason = None
    attempt: int = 0
    run_at: datetime
    due_at: datetime
    dispatch_at: datetime | None = None
    lead_s: float | None = None
    queued_at: datetime | None = None
    waits_for: str | None = None
    start_by: datetime | None = None
    limit_wait: LimitWait | None = None
    pause: Pause | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    read_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def launch_at(self) -> datetime:
        """When the next launch begins, or began."""
        return self.dispatch_at or self.due_at

    @property
    def cost(self) -> int | None:
        """What its attempts have cost by `read_at`, in billionths of a dollar.

        None where that is not known of all of them.
        """
        if self.read_at is None:
            return None
        costs = [one.cost_at(self.read_at) for one in self.attempts]
        return None if None in costs else sum(filter(None, costs))

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last attempt, once it has one."""
        return self.attempts[-1].exit_code if self.attempts else None


class Event(Frozen):
    """One transition: history, outbox and audit at once."""

    id: int
    job_id: UUID
    attempt: int
    at: datetime
    type: str
    actor: str
    detail: dict[str, Any]


class PublicEvent(Event):
    """A transition with what a listener wants to know of its job and attempt."""

    key: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    exit_code: int | None = None
    reason: KnownReason = None
    instance_id: str | None = None
    times: dict[str, datetime] = Field(default_factory=dict)
