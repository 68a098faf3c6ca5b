"""Jobs, for clients: submit, look, give another time, cancel, retry.

Promise: an acknowledged submit is committed; submitting again with the same key gives the same job,
and with another specification is refused with what differs; what is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atemporal.errors import Invalid, NotFound
from atemporal.json_object import read_object
from atemporal.messages import JobCancel
from atemporal.metrics import series
from atemporal.metrics.endings import ENDED
from atemporal.metrics.submits import SUBMITS
from atemporal.model import describe
from atemporal.model.job_spec import MAX_TIMEOUT_S, Instant, Whole
from atemporal.settings import Settings
from atemporal.states import JobState, Outcome, Reason
from atemporal.store import events, jobs, listing, reschedule
from atemporal.store.database import Database
from atemporal.telemetry import logger
from atemporal.terms import ANY_TERMS, Terms
from services.api import request_body, submission
from services.api.auth import Authorizer
from services.api.changes import SCOPES, Changes
from services.api.error_responses import DENIALS, possible, problem
from services.api.publisher import Publisher
from services.api.query import labels_of, only_query, or_absent
from services.api.schemas import JobDetail, JobHistory, JobPage

PAGE = 1000
# The same that the command line wants of an id by which it changes something.
_PART_OF_ID = 4
_VIA = "http"

series(ENDED, reason=[Reason.RESCHEDULED])
series(SUBMITS, via=[_VIA])

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_ONE = possible(*DENIALS, HTTPStatus.NOT_FOUND, _BAD)
_CHANGE = possible(*DENIALS, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, _BAD)
_SUBMIT = possible(*DENIALS, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _BAD)
_PLAIN = "text/plain"
# `?limit=` is what a form sends for a field left empty.
_Limit = Annotated[int, Field(ge=1, le=PAGE)]

_Kind = TypeVar("_Kind", JobState, Outcome)


class NewTime(BaseModel):
    """When a job is to run instead; one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    time: Instant | None = Field(
        default=None, description="an instant; one that is past means now"
    )
    delay_s: Annotated[Whole, Field(ge=0, le=MAX_TIMEOUT_S)] | None = Field(
        default=None, description="so many seconds from now"
    )


async def path_id(job_id: str) -> UUID:
    """The job's id in the path.

    Raises:
        NotFound: it is no id, so no job has it.
    """
    try:
        number = UUID(job_id)
    except ValueError:
        number = None
    if number is None or str(number) != job_id.lower():
        raise NotFound(f"there is no job {job_id!r}: a change needs the whole id of a job")
    return number


async def part_of_id(job_id: str) -> str:
    """The job's id in the path of a call that reads, or a part of it.

    Raises:
        NotFound: it is too short to mean one job.
    """
    return check_part(job_id)


def check_part(job_id: str) -> str:
    """Return an id or a part of one, which means one job.

    Raises:
        NotFound: it is too short for that.
    """
    if len(job_id) < _PART_OF_ID:
        raise NotFound(f"{job_id!r} is too short: give {_PART_OF_ID} letters of an id or more")
    return job_id


def router(
    settings: Settings,
    database: Database,
    authorizer: Authorizer,
    publisher: Publisher,
    terms: Terms = ANY_TERMS,
) -> APIRouter:
    """Build the calls for jobs."""
    deadlines = settings.deadlines
    routes = APIRouter(tags=["jobs"])
    no_query = Depends(only_query())
    log = logger("jobs")
    changes = Changes(database, publisher)
    reader, submitter = authorizer.needs("read"), authorizer.needs("submit")
    canceller, retrier = authorizer.needs(*SCOPES["cancel"]), authorizer.needs(*SCOPES["retry"])

    @routes.get(
        "/jobs",
        summary="List jobs",
        responses=possible(*DENIALS, _BAD),
        dependencies=[
            Depends(reader),
            Depends(only_query("limit", "after", "order", "image", repeated=("state", "label"))),
        ],
    )
    def list_jobs(
        state: Annotated[list[str], Query(description="or outcome; repeated: any of these")] = [],  # noqa: B006
        label: Annotated[list[str], Query(description="name=value; repeated: all of these")] = [],  # noqa: B006
        limit: Annotated[_Limit | None, Query(description="of one page"), or_absent] = None,
        after: Annotated[UUID | None, Query(description="`next` of a page"), or_absent] = None,
        order: Annotated[
            Literal["oldest", "newest"] | None, Query(description="which come first"), or_absent
        ] = None,
        image: Annotated[
            str, Query(description=f"a part of its image; {listing.LOOKED_THROUGH} jobs a page")
        ] = "",
    ) -> JobPage:
        """Jobs in the order of their submit; `next` is the id to go on after, or null.

        Only with the oldest first it is safe to follow while jobs are submitted. With `image` a page
        may have fewer jobs than `limit`, or none, and yet a `next`; `total` then says nothing.
        """
        with database.begin() as tx:
            page = listing.page(
                tx,
                states=named(state, JobState),
                outcomes=named(state, Outcome),
                labels=labels_of(label),
                limit=limit or PAGE,
                after=after,
                newest_first=order == "newest",
                image=image,
            )
        return JobPage.show(page, deadlines)

    @routes.post(
        "/jobs",
        status_code=HTTPStatus.CREATED,
        response_model=JobDetail,
        summary="Submit a job",
        dependencies=[no_query],
        responses={
            200: {"model": JobDetail, "description": "the job that has this key"},
            **_SUBMIT,
        },
        openapi_extra={"requestBody": submission.documentation()},
    )
    def submit(
        request: Request,
        response: Response,
        actor: str = Depends(submitter),
        body: bytes = Depends(request_body.whole),
        idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
    ) -> Any:
        """Accept a job, from a form or from JSON; with a key, once only."""
        try:
            fields = request_body.fields(body, request.headers.get("content-type", ""))
            spec = submission.specification(fields, key=idempotency_key)
            terms.check(spec)
            with database.begin() as tx:
                (made,) = jobs.submit(tx, [spec], actor=actor)
                job = jobs.get(tx, made.job_id)
        except Invalid:
            SUBMITS.labels(_VIA, "rejected").inc()
            raise
        if made.differs:
            SUBMITS.labels(_VIA, "rejected").inc()
            why = jobs.describe_difference(spec.key, made)
            return problem(HTTPStatus.CONFLICT, why, differs=made.differs)
        SUBMITS.labels(_VIA, "accepted" if made.created else "duplicate").inc()
        log.info("submitted", job=str(job.id), created=made.created, actor=actor)
        response.status_code = HTTPStatus.CREATED if made.created else HTTPStatus.OK
        response.headers["Location"] = f"/jobs/{job.id}"
        return JobDetail.show(job, deadlines)

    @routes.get(
        "/jobs/{job_id}",
        summary="Show a job",
        responses=_ONE,
        dependencies=[Depends(reader), no_query],
    )
    def show(job_id: str = Depends(part_of_id)) -> JobDetail:
        """The job with its instances and the end of their output.

        The beginning or the end of its id will do, of four letters or more.
        """
        with database.begin() as tx:
            return JobDetail.show(jobs.get(tx, jobs.resolve(tx, job_id)), deadlines)

    @routes.get(
        "/jobs/{job_id}/events",
        summary="What happened to a job",
        responses=_ONE,
        dependencies=[Depends(reader), no_query],
    )
    def history(job_id: str = Depends(part_of_id)) -> JobHistory:
        """Every transition of the job and its attempts, the first first; a part of its id will do."""
        with database.begin() as tx:
            return JobHistory.show(events.of_job(tx, jobs.resolve(tx, job_id)))

    @routes.get(
        "/jobs/{job_id}/log",
        summary="The end of an attempt's output",
        responses={200: {"content": {_PLAIN: {}}, "description": "the very bytes"}, **_ONE},
        response_class=Response,
        dependencies=[Depends(reader), Depends(only_query("attempt"))],
    )
    def log_of(
        job_id: str = Depends(part_of_id),
        attempt: Annotated[
            int | None, Query(description="its number; absent: the last", ge=1), or_absent
        ] = None,
    ) -> Response:
        """The last 32 KiB that it printed, kept when it ended; nothing before."""
        with database.begin() as tx:
            job = jobs.get(tx, jobs.resolve(tx, job_id))
        tried = [one for one in job.attempts if attempt in (None, one.number)]
        if not tried:
            raise NotFound(f"job {job.id} has no attempt {'yet' if attempt is None else attempt}")
        return Response(
            tried[-1].log_tail or b"",
            media_type=_PLAIN,
            # What a program printed is no page, whatever it looks like.
            headers={"X-Content-Type-Options": "nosniff"},
        )

    @routes.delete(
        "/jobs/{job_id}", summary="Cancel a job", responses=_CHANGE, dependencies=[no_query]
    )
    def cancel(actor: str = Depends(canceller), job_id: UUID = Depends(path_id)) -> JobDetail:
        """Finish it as cancelled, in whatever phase; its instance is ended. Again: no change."""
        return JobDetail.show(changes.cancel(job_id, actor), deadlines)

    @routes.patch(
        "/jobs/{job_id}",
        summary="Give a job another time",
        responses=_CHANGE,
        dependencies=[no_query],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {request_body.JSON: {"schema": NewTime.model_json_schema()}},
            }
        },
    )
    def retime(
        actor: str = Depends(submitter),
        job_id: UUID = Depends(path_id),
        body: bytes = Depends(request_body.whole),
    ) -> JobDetail:
        """In every phase before its container is let go; the same time again: no change."""
        wanted = _new_time(body)
        with database.begin() as tx:
            done = reschedule.reschedule(
                tx, job_id, time=wanted.time, delay_s=wanted.delay_s, actor=actor
            )
            job = jobs.get(tx, job_id)
        if done.ended is not None:
            publisher.put(JobCancel.of(done.ended))
            ENDED.labels(Reason.RESCHEDULED).inc()
        log.info("rescheduled", job=str(job_id), actor=actor, changed=done.changed)
        return JobDetail.show(job, deadlines)

    @routes.post(
        "/jobs/{job_id}/retry",
        summary="Run a finished job again",
        responses=_CHANGE,
        dependencies=[no_query],
    )
    def retry(actor: str = Depends(retrier), job_id: UUID = Depends(path_id)) -> JobDetail:
        """Schedule it for now, with fresh budgets."""
        return JobDetail.show(changes.retry(job_id, actor), deadlines)

    return routes


def _new_time(body: bytes) -> NewTime:
    try:
        wanted = NewTime.model_validate(read_object(body))
    except ValidationError as error:
        raise Invalid(describe(error)) from None
    if (wanted.time is None) == (wanted.delay_s is None):
        raise Invalid({"time": "give time, or delay_s, and nothing else"})
    return wanted


def named(given: Sequence[str], kind: type[_Kind]) -> list[_Kind]:
    """Those of the given states and outcomes that are of this kind.

    Raises:
        Invalid: one is neither.
    """
    known = [*JobState, *Outcome]
    unknown = [name for name in given if name and name not in known]
    if unknown:
        raise Invalid({"state": f"{unknown[0]!r} is none; use {', '.join(known)}"})
    return [one for one in kind if one in given]
