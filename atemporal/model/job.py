"""A job with its attempts, and the events of its history."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from atemporal.model.attempt import Attempt, KnownReason
from atemporal.model.frozen import Frozen
from atemporal.model.job_spec import JobSpec
from atemporal.states import JobState, Outcome


class Job(Frozen):
    """A job as it is recorded; `attempt` is the number of the last attempt, 0 before the first.

    `run_at` is when it was asked for, `due_at` when the next attempt's container is to start, `read_at`
    when this was so, by the database's clock. `dispatch_at` is when the launch for it begins, None when
    that is when it is due; `lead_s` is how long launch and pull may take, as it was estimated last.
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
