"""The whole at a glance, for whoever watches: what is waited for, what runs, comes next, ended last.

Promise: it may be asked for every second: no table is read whole for it, however large.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from atemporal.job_view import Instant
from atemporal.model import Job
from atemporal.settings import Settings
from atemporal.store import dead_letters, overview
from atemporal.store.database import Database, server_time
from atemporal.waiting import Phase, what_is_awaited
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import only_query, or_absent
from services.api.schemas import JobSummary

SHOWN = 10
_MOST = 100


class InPhase(BaseModel):
    """How much is in one phase."""

    phase: Phase
    waiting_for: str = Field(description="what is waited for, in words")
    count: int = Field(description="how many jobs, or attempts from `launch` on")
    oldest_s: float = Field(description="for how long the oldest, in seconds")


class Overview(BaseModel):
    """The whole at a glance."""

    read_at: Instant
    waiting: list[InPhase] = Field(
        description="what is under way, by phase; without jobs whose time is yet to come"
    )
    running: list[JobSummary] = Field(description="those that run longest first")
    next: list[JobSummary] = Field(description="what is launched next, the earliest first")
    ended: list[JobSummary] = Field(description="the latest ends first")
    dead_letters: int = Field(
        description=f"that nobody has decided about; {dead_letters.COUNTED} for so many or more"
    )


def router(settings: Settings, database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the call."""
    routes = APIRouter(tags=["jobs"])

    @routes.get(
        "/overview",
        summary="The whole at a glance",
        responses=possible(*DENIALS, HTTPStatus.UNPROCESSABLE_ENTITY),
        dependencies=[Depends(authorizer.needs("read")), Depends(only_query("limit"))],
    )
    def show(
        limit: Annotated[
            Annotated[int, Field(ge=1, le=_MOST)] | None,
            Query(description=f"jobs of each kind; {SHOWN} unless given"),
            or_absent,
        ] = None,
    ) -> Overview:
        """What is waited for, what runs, what comes next, what has ended last."""
        with database.begin() as tx:
            found = overview.overview(tx, limit=limit or SHOWN)
            letters, now = dead_letters.undecided(tx), server_time(tx)

        def shown(jobs: list[Job]) -> list[JobSummary]:
            return [JobSummary.show(job, settings.deadlines) for job in jobs]

        return Overview.model_construct(
            read_at=now,
            waiting=[
                InPhase(
                    phase=one.phase,
                    waiting_for=what_is_awaited(one.phase),
                    count=one.many,
                    oldest_s=round(one.oldest_s, 3),
                )
                for one in found.phases
            ],
            running=shown(found.running),
            next=shown(found.next),
            ended=shown(found.ended),
            dead_letters=letters,
        )

    return routes
