"""What the calls about jobs return: `atemporal.job_view`, and what HTTP adds to it.

`payload` is the environment in the original's format, next to the exact `env`. A list is without the
logs, which would make it a thousand times larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from atemporal.environment import encode_payload
from atemporal.job_view import AttemptView, EventView, Instant, JobView, LogTail
from atemporal.model import Event, Job
from atemporal.store.listing import Page
from atemporal.waiting import Phase


class JobSummary(JobView):
    """A job in a list."""

    payload: str = Field(description="base64 of the environment as lines NAME=value")

    @classmethod
    def show(cls, job: Job, deadlines: Mapping[Phase, float]) -> Self:
        """Show one job."""
        return cls.of(job, deadlines=deadlines, payload=encode_payload(job.spec.env))


class AttemptDetail(AttemptView):
    """An attempt and what it printed."""

    log_tail: LogTail = Field(description="the end of its output")


class JobDetail(JobSummary):
    """A job."""

    instances: tuple[AttemptDetail, ...]
    log_tail: LogTail = Field(description="the end of the last attempt's output")

    @classmethod
    def show(cls, job: Job, deadlines: Mapping[Phase, float]) -> Self:
        """Show one job."""
        return cls.of(
            job,
            deadlines=deadlines,
            payload=encode_payload(job.spec.env),
            instances=tuple(AttemptDetail.of(one, job.spec.labels) for one in job.attempts),
            log_tail=job.attempts[-1].log_tail if job.attempts else None,
        )


class JobPage(BaseModel):
    """Jobs in the order of their submit."""

    total: int = Field(description="how many match, on all pages; counted up to 10,000")
    total_estimated: bool = Field(
        description="whether there are more than were counted, and total is what the database expects"
    )
    jobs: list[JobSummary]
    next: UUID | None = Field(description="to be given as `after` for the next page")

    @classmethod
    def show(cls, page: Page, deadlines: Mapping[Phase, float]) -> JobPage:
        """Show a page."""
        jobs = [JobSummary.show(job, deadlines) for job in page.jobs]
        return cls.model_construct(
            total=page.total, total_estimated=page.total_estimated, jobs=jobs, next=page.next
        )


class LineResult(BaseModel):
    """What became of one line of many jobs."""

    line: int = Field(description="its number, from 1 on")
    status: Literal["accepted", "duplicate", "rejected"]
    id: UUID | None = Field(default=None, description="of its job, or of the one that has its key")
    time: Instant | None = Field(default=None, description="when it was asked to run")
    errors: dict[str, str] | None = Field(default=None, description="each bad field, and why")


class JobHistory(BaseModel):
    """What happened to a job, the first first."""

    events: list[EventView]

    @classmethod
    def show(cls, events: list[Event]) -> JobHistory:
        """Show a history."""
        return cls.model_construct(events=list(map(EventView.of, events)))
