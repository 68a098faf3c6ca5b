"""What the calls about recurring schedules return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self, cast
from uuid import UUID

from pydantic import BaseModel, Field

from atemporal import image
from atemporal.job_view import Instant
from atemporal.model.schedule import RecordedFire, Schedule, shown_job
from atemporal.recurrence import CatchUp, FireOutcome, FireReason, Overlap
from atemporal.store.schedules import Page


class NextFire(BaseModel):
    """A fire that comes."""

    time: Instant
    local: str = Field(description="what the zone's clock shows then")
    job_id: UUID | None = Field(description="of its job, if that was made already")


class PastFire(BaseModel):
    """What became of a fire, or of several."""

    time: Instant
    local: str
    outcome: FireOutcome
    reason: FireReason | None = Field(description="why it was not run")
    job_id: UUID | None
    job_state: str | None = Field(
        description="its job's outcome, or its state; null: none or gone"
    )
    count: int = Field(description="how many fires it stands for, from `time` to `until`")
    until: Instant | None
    decided_at: Instant


class ScheduleSummary(BaseModel):
    """A recurring schedule in a list."""

    name: str
    cron: str
    zone: str
    job: dict[str, Any] = Field(description="the job of each fire")
    catch_up: CatchUp
    window_s: int
    overlap: Overlap
    start_deadline_s: int | None
    version: int = Field(description="counts the changes")
    paused_at: Instant | None
    next_fire_at: Instant | None = Field(
        description="null: it is paused, never fires again, or its line can not be read"
    )
    next_fire_local: str | None
    rules_version: str = Field(
        description="of the zone rules by which the first fire was computed that is not decided yet"
    )
    problem: str | None = Field(
        description="why it can not be fired; of one that can not be read `job` says nothing"
    )
    created_at: Instant
    updated_at: Instant
    read_at: Instant

    @classmethod
    def show(cls, schedule: Schedule, **more: Any) -> Self:
        """Show one schedule."""
        line = schedule.line_if_read
        at = line.next_after(schedule.read_at) if line and not schedule.paused_at else None
        unread = f"the API can not read {schedule.cron!r} in the zone {schedule.zone!r}"
        job, name = shown_job(schedule.job), schedule.job.image
        shown = {
            **{name: getattr(schedule, name, None) for name in cls.model_fields},
            "job": {**job, "image": image.familiar(name) if name else ""},
            "problem": schedule.problem or (None if line else unread),
            "next_fire_at": at,
            "next_fire_local": line.local(at).isoformat() if line and at else None,
            **more,
        }
        return cast(Self, cls.model_construct(**shown))


class ScheduleDetail(ScheduleSummary):
    """A recurring schedule."""

    next_fires: tuple[NextFire, ...]
    fires: tuple[PastFire, ...] = Field(description="what became of the latest, the latest first")

    @classmethod
    def show_all(
        cls,
        schedule: Schedule,
        ended: Sequence[RecordedFire],
        ahead: Mapping[datetime, UUID],
        *,
        following: int,
    ) -> ScheduleDetail:
        """Show one schedule with so many fires that come, `ahead` with the jobs that are made."""
        line = schedule.line_if_read

        def local(at: datetime) -> str:
            return (line.local(at) if line else at).isoformat()

        coming: list[NextFire] = []
        at = line.next_after(schedule.read_at) if line and not schedule.paused_at else None
        while line and at is not None and len(coming) < following:
            coming.append(NextFire.model_construct(time=at, local=local(at), job_id=ahead.get(at)))
            at = line.next_after(at)
        past = [
            PastFire.model_construct(
                **{**dict(one), "time": one.fire_time, "local": local(one.fire_time)}
            )
            for one in ended
        ]
        return cls.show(schedule, next_fires=tuple(coming), fires=tuple(past))


class SchedulePage(BaseModel):
    """Schedules by name."""

    schedules: list[ScheduleSummary]
    next: str | None = Field(description="to be given as `after` for the next page")

    @classmethod
    def show(cls, page: Page) -> SchedulePage:
        """Show a page."""
        shown = [ScheduleSummary.show(one) for one in page.schedules]
        return cls.model_construct(schedules=shown, next=page.next)
