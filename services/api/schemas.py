"""What the calls about jobs return: `atemporal.job_view`, and what HTTP adds to it.

`payload` is the environment in the original's format, next to the exact `env`. A list is without the
logs, which would make it a thousand times larger.
"""

from __future__ import annotations

from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from atemporal.environment import encode_payload
from atemporal.job_view import JobView, LogTail
from atemporal.model import Job
from atemporal.store.listing import Page


class JobSummary(JobView):
    """A job in a list."""

    payload: str = Field(description="base64 of the environment as lines NAME=value")

    @classmethod
    def show(cls, job: Job) -> Self:
        """Show one job."""
        return cls.of(job, payload=encode_payload(job.spec.env), log_tail=_last_log(job))


class JobDetail(JobSummary):
    """A job."""

    log_tail: LogTail = Field(description="the end of the last attempt's output")


class JobPage(BaseModel):
    """Jobs in the order of their submit."""

    total: int = Field(description="how many match, on all pages")
    jobs: list[JobSummary]
    next: UUID | None = Field(description="to be given as `after` for the next page")

    @classmethod
    def show(cls, page: Page) -> JobPage:
        """Show a page."""
        jobs = [JobSummary.show(job) for job in page.jobs]
        return cls.model_construct(total=page.total, jobs=jobs, next=page.next)


def _last_log(job: Job) -> bytes | None:
    return job.attempts[-1].log_tail if job.attempts else None
