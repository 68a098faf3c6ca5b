"""What containers write, while they run and after: taken from their machines, given to who may read.

Promise: a chunk is taken from the machine of its job's current attempt as long as its container may
write, once, however often it is sent. What is given says of each gap how large it is. None of this
changes a state, and no machine waits for it.
Mechanism: a machine asks here for the script that sends the chunks. Its user-data holds the digest of
the one script that it executes, so another release's is not executed, and then it sends nothing.
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from atemporal import tokens
from atemporal.errors import Conflict, Denied, NotFound
from atemporal.fleet.ending import may_write
from atemporal.metrics import counter
from atemporal.model import Attempt, Job
from atemporal.model.log import CHUNK_LIMIT, LAST_START, LogChunk, parts, tail_of
from atemporal.settings import Settings
from atemporal.states import JobState
from atemporal.store import jobs, logs
from atemporal.store.database import Database
from cloud_config import LOG_SHIPPER
from services.api import request_body
from services.api.auth import Authorizer
from services.api.callbacks import bearer, counted
from services.api.error_responses import DENIALS, possible
from services.api.jobs import part_of_id, path_id
from services.api.query import only_query, or_absent

LOG_BYTES = counter(
    "atemporal_log_bytes_total",
    "Bytes of containers' output in log chunks, by what became of them; missing: they were never sent.",
    result=["taken", "repeated", "missing"],
)

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_OFF = "this deployment keeps no log chunks (ATEMPORAL_LOG_KEPT_BYTES is 0)"
_BYTES = "application/octet-stream"
_SCRIPT = "text/x-shellscript"


class LogPartView(BaseModel):
    """Output without a gap in it."""

    start: int = Field(
        description="the position of its first byte in all that the container wrote"
    )
    missing: int | None = Field(
        description="how many bytes before it are not kept; null: nobody knows, or some come again"
    )
    data: str = Field(description="the bytes, as base64")


class LogPage(BaseModel):
    """What is kept of an attempt's output from a position on."""

    attempt: int = Field(description="its number; 0: none has been begun")
    parts: list[LogPartView]
    next: int = Field(description="to be given as `after` for the next page")
    more: bool = Field(description="whether there is more now; else ask again after a second")
    ended: bool = Field(description="whether nothing will come after this page")
    next_attempt: int | None = Field(description="the attempt behind it, once it has been begun")
    finished: bool = Field(description="whether the job has finished")


async def _chunk(request: Request) -> bytes:
    return await request_body.bounded(request, CHUNK_LIMIT)


def machines_router(settings: Settings, database: Database) -> APIRouter:
    """Build the calls of machines.

    Raises:
        Invalid: the settings have no callback key, so machines could not be authenticated.
    """
    routes = APIRouter(tags=["callbacks"])
    keys, deployment, kept = settings.keys, settings.deployment, settings.log_kept_bytes
    failures = possible(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, _BAD)

    def authenticate(attempt: Attempt, given: HTTPAuthorizationCredentials | None) -> None:
        if given is None or not tokens.verify(keys, given.credentials, deployment, attempt.ref.id):
            raise Denied("the token is not that of this job's current attempt")

    @routes.get(
        "/jobs/{job_id}/callback",
        summary="What sends the log?",
        response_class=Response,
        responses={200: {"content": {_SCRIPT: {}}, "description": "a script"}, **failures},
    )
    def script(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(bearer),
    ) -> Response:
        """Tell a machine what sends its container's output; the machine knows the script's digest."""
        with counted("log_script"):
            with database.begin() as tx:
                attempt = logs.writer(tx, job_id)
            authenticate(attempt, token)
            if not kept:
                raise NotFound(_OFF)
        return Response(LOG_SHIPPER, media_type=_SCRIPT)

    @routes.post(
        "/jobs/{job_id}/callback/log",
        status_code=HTTPStatus.NO_CONTENT,
        summary="My container has written this",
        responses={
            **failures,
            **possible(HTTPStatus.TOO_EARLY, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        },
        openapi_extra={
            "requestBody": {
                "content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}
            }
        },
    )
    def append(
        start: Annotated[
            int, Query(ge=0, le=LAST_START, description="the position of the first byte")
        ],
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(bearer),
        body: bytes = Depends(_chunk),
    ) -> None:
        """Keep what is new of it; what was sent before is passed over."""
        with counted("log"), database.begin() as tx:
            attempt = logs.writer(tx, job_id)
            authenticate(attempt, token)
            if not kept:
                raise Conflict(_OFF)
            if not may_write(attempt):
                raise Conflict(f"attempt {attempt.number} is {attempt.state}: it writes no more")
            done = logs.append(tx, attempt.ref, LogChunk(start, body), kept=kept)
        LOG_BYTES.labels("taken").inc(done.taken)
        LOG_BYTES.labels("repeated").inc(done.repeated)
        LOG_BYTES.labels("missing").inc(done.missing)

    return routes


def router(database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the call of clients."""
    routes = APIRouter(tags=["jobs"])

    @routes.get(
        "/jobs/{job_id}/logs",
        summary="Follow what a job's containers write",
        responses=possible(*DENIALS, HTTPStatus.NOT_FOUND, _BAD),
        dependencies=[
            Depends(authorizer.needs("read")),
            Depends(only_query("attempt", "after")),
        ],
    )
    def page(
        job_id: str = Depends(part_of_id),
        attempt: Annotated[
            Annotated[int, Field(ge=0, le=2**31 - 1)] | None,
            Query(description="its number; absent: the last"),
            or_absent,
        ] = None,
        after: Annotated[
            Annotated[int, Field(ge=0, le=2 * LAST_START)] | None,
            Query(description="`next` of a page; absent: from the first byte that is kept"),
            or_absent,
        ] = None,
    ) -> LogPage:
        """Of a container that runs the latest output; then that, and the end of it.

        Bytes have positions, so who goes on at `next` gets each once, and sees what is not kept.
        """
        return read_page(database, job_id, attempt=attempt, after=after)

    return routes


def read_page(
    database: Database, job_id: str, *, attempt: int | None, after: int | None
) -> LogPage:
    """What is kept of an attempt's output from the position `after` on; of the last without a number.

    Raises:
        NotFound: there is no such job, or no such attempt of it.
    """
    with database.begin() as tx:
        job = jobs.get(tx, jobs.resolve(tx, job_id))
        number = (job.attempts[-1].number if job.attempts else 0) if attempt is None else attempt
        tried = next((one for one in job.attempts if one.number == number), None)
        if tried is None:
            if number:
                raise NotFound(f"job {job.id} has no attempt {number}")
            return _shown(job, 0, [], after or 0, more=False, ended=True)
        chunks = logs.page(tx, tried.ref, after or 0)
        tail = tail_of(tried)
        end = logs.end(tx, tried.ref) if tail is not None and tail.start < 0 else 0
    more = len(chunks) == logs.PAGE_CHUNKS
    found = parts(chunks, after=after or 0, tail=None if more else tail, end=end)
    following = found[-1].start + len(found[-1].data) if found else after or 0
    ended = not more and tried.exited_at is not None and not may_write(tried)
    views = [
        LogPartView(start=one.start, missing=one.missing, data=base64.b64encode(one.data).decode())
        for one in found
    ]
    return _shown(job, number, views, following, more=more, ended=ended)


def _shown(
    job: Job, number: int, views: list[LogPartView], following: int, *, more: bool, ended: bool
) -> LogPage:
    behind = [one.number for one in job.attempts if one.number > number]
    return LogPage(
        attempt=number,
        parts=views,
        next=following,
        more=more,
        ended=ended,
        next_attempt=min(behind, default=None),
        finished=job.state is JobState.FINISHED,
    )
