"""What happens to jobs, for clients: the events of all jobs, to be followed.

Promise: whoever goes on after `next` misses no event and gets none twice, while others write, and gets
those of one job in their order. An event's body is the one that listeners get from the broker, which may
be away: what is read here is read from Postgres.
Mechanism: an event is shown once none before it can come any more (`atemporal.store.horizon`); that is
asked once for all readers of this process, a few times a second at most. A page looks through a bounded
number of events.
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from atemporal.clock import parse_utc
from atemporal.errors import Invalid
from atemporal.event_types import matching
from atemporal.messages import JobEvent
from atemporal.store import events
from atemporal.store.database import Database
from atemporal.store.horizon import Horizon, newest
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import LARGEST_NUMBER, labels_of, only_query, or_absent

PAGE = 1000
# How late an event may be shown for the sake of all who read; and so many questions a second at most.
_FRESH_S = 0.2


class EventPage(BaseModel):
    """Events by their numbers."""

    events: list[JobEvent]
    next: int = Field(description="to be given as `after` for the next page")
    more: bool = Field(description="whether there may be more now; else ask again after a second")


def router(database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the call for events."""
    routes = APIRouter(tags=["events"])
    horizon = Horizon(fresh_s=_FRESH_S)

    @routes.get(
        "/events",
        summary="Follow what happens to jobs",
        responses=possible(*DENIALS, HTTPStatus.UNPROCESSABLE_ENTITY),
        response_model_exclude_none=True,
        dependencies=[
            Depends(authorizer.needs("read")),
            Depends(
                only_query(*("after", "last", "job", "since", "limit"), repeated=("label", "type"))
            ),
        ],
    )
    def list_events(
        after: Annotated[
            Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] | None,
            Query(
                description="`next` of a page, or an event's number; absent: from the beginning"
            ),
            or_absent,
        ] = None,
        last: Annotated[
            Annotated[int, Field(ge=0, le=PAGE)] | None,
            Query(description="in place of `after`: the last so many, and `next` behind them"),
            or_absent,
        ] = None,
        job: Annotated[UUID | None, Query(description="of this job"), or_absent] = None,
        label: Annotated[list[str], Query(description="name=value; repeated: all of these")] = [],  # noqa: B006
        type: Annotated[  # noqa: A002 - the name that the caller gives
            list[str], Query(description="or its beginning, like job.finished; repeated: any")
        ] = [],  # noqa: B006
        since: Annotated[str, Query(description="none that happened before this instant")] = "",
        limit: Annotated[
            Annotated[int, Field(ge=1, le=PAGE)] | None,
            Query(description="of one page"),
            or_absent,
        ] = None,
    ) -> EventPage:
        """Events of jobs and attempts by their numbers, which have gaps.

        An event is shown as soon as none with a smaller number can come any more: mostly at once.
        """
        if last is not None and after is not None:
            raise Invalid({"last": "goes with no after: give one of the two"})
        wanted = events.Wanted(
            job_id=job, labels=labels_of(label), types=_types(type), since=_instant(since)
        )
        with database.begin() as tx:
            settled = horizon.settled(tx)
        with database.begin() as tx:
            if last is not None:
                found = events.latest(tx, wanted, upto=settled, limit=last) if last else []
                page = events.Page(found, settled, False)
            else:
                if after is None:
                    start = events.before(tx, wanted.since, upto=settled) if wanted.since else 0
                elif after > settled and after > (last_one := newest(tx)):
                    # A database that was restored, or another one: to wait for it could be for ever.
                    raise Invalid(
                        {"after": f"there is no event {after} yet; the last is {last_one}"}
                    )
                else:
                    start = after
                page = events.page(tx, wanted, after=start, upto=settled, limit=limit or PAGE)
        shown = [JobEvent.of(event) for event in page.events]
        return EventPage.model_construct(events=shown, next=page.next, more=page.more)

    return routes


def _types(given: list[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(name for one in given if one for name in matching(one)))
    except ValueError as error:
        raise Invalid({"type": str(error)}) from None


def _instant(given: str) -> datetime | None:
    try:
        return parse_utc(given) if given else None
    except ValueError as error:
        raise Invalid({"since": str(error)}) from None
