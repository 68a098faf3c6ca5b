"""What clients see of a job: the original's keys first, then ours.

Promise: `image` reads as a person would type it (`nginx:1.9`, not its normal form); `payload` is
the environment in the original's format, `env` the exact one; instants are UTC text with
milliseconds; output that is not UTF-8 is shown with replacement characters.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, PlainSerializer

from atemporal import image, waiting
from atemporal.clock import format_utc
from atemporal.environment import encode_payload
from atemporal.model import Attempt, Job, Machine
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store.jobs import Page

Instant = Annotated[
    datetime,
    PlainSerializer(format_utc),
    Field(examples=["2015-04-25T05:27:27.069Z"]),
]


class InstanceView(BaseModel):
    """One attempt, that is one instance."""

    id: int = Field(description="the attempt's number")
    aws_id: str | None = Field(examples=["i-0123456789abcdef0"])
    dns: str | None = Field(description="public DNS name, known some time after the start")
    ip: str | None
    state: AttemptState
    reason: Reason | None
    detail: str | None
    exit_code: int | None
    oom_killed: bool | None
    instance_type: str
    capacity_type: str
    created_at: Instant
    launched_at: Instant | None
    booted_at: Instant | None
    running_at: Instant | None
    exited_at: Instant | None
    closed_at: Instant | None


class JobSummary(BaseModel):
    """A job in a list."""

    id: UUID
    image: str = Field(examples=["nginx:1.9"])
    time: Instant = Field(description="when it was asked to run")
    payload: str = Field(description="base64 of the environment as lines NAME=value")
    state: JobState
    instances: list[InstanceView]
    outcome: Outcome | None
    reason: Reason | None = Field(description="why the last attempt ended")
    attempt: int = Field(description="the number of the last attempt, 0 before the first")
    exit_code: int | None = Field(description="of the last attempt")
    key: str | None
    command: tuple[str, ...] | None
    env: dict[str, str]
    labels: dict[str, str]
    ports: tuple[str, ...]
    machine: Machine
    priority: int
    timeout_s: int
    max_attempts: int
    infra_retries: int
    backoff_s: int
    retry_on: tuple[int, ...]
    no_retry_on: tuple[int, ...]
    waiting_for: str | None = Field(examples=["its machine to boot"])
    waiting_since: Instant | None
    due_at: Instant = Field(description="when the next attempt is due")
    created_at: Instant
    updated_at: Instant
    finished_at: Instant | None


class JobView(JobSummary):
    """A job."""

    log_tail: str | None = Field(description="the end of the last attempt's output")


class JobPage(BaseModel):
    """Jobs in the order of their submit."""

    total: int = Field(description="how many match, on all pages")
    jobs: list[JobSummary]
    next: UUID | None = Field(description="to be given as `after` for the next page")


def job_view(job: Job) -> JobView:
    """Show one job whole."""
    tail = job.attempts[-1].log_tail if job.attempts else None
    return JobView(
        **_summary(job), log_tail=None if tail is None else tail.decode(errors="replace")
    )


def page_view(page: Page) -> JobPage:
    """Show a page; without the logs, which would make it a thousand times larger."""
    jobs = [JobSummary(**_summary(job)) for job in page.jobs]
    return JobPage(total=page.total, jobs=jobs, next=page.next)


def _summary(job: Job) -> dict[str, Any]:
    same_name = JobSummary.model_fields.keys()
    fields = {name: value for name, value in job.spec if name in same_name}
    fields |= {name: value for name, value in job if name in same_name}
    waits = waiting.of_job(job)
    return fields | {
        "waiting_for": waits and waits.what,
        "waiting_since": waits and waits.since,
        "image": image.familiar(job.spec.image),
        "time": job.run_at,
        "payload": encode_payload(job.spec.env),
        "instances": [_instance(attempt) for attempt in job.attempts],
        "exit_code": job.exit_code,
    }


def _instance(attempt: Attempt) -> InstanceView:
    same_name = InstanceView.model_fields.keys()
    fields = {name: value for name, value in attempt if name in same_name}
    return InstanceView(
        **fields,
        id=attempt.number,
        aws_id=attempt.instance_id,
        dns=attempt.public_dns,
        ip=attempt.public_ip,
        instance_type=attempt.launch.instance_type,
        capacity_type=attempt.launch.capacity_type,
    )
