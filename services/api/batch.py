"""Many jobs in one request: `POST /jobs:batch`.

Promise: one request is one transaction. By default it makes all of its jobs or none, and says for each
bad line what is wrong; with `on_error=skip` it makes the good ones. Either way an answer follows the
commit, and has one line for each job. A key makes its line once only, as of a single submit.
Mechanism: a request has a limited number of lines and bytes. As many are read at once as there are
places, and each within a time; whoever finds none waits, its body unread. So memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.exceptions import HTTPException

from atemporal.errors import Invalid, InvalidLines
from atemporal.job_lines import MEDIA_TYPE, read_line
from atemporal.metrics.submits import SUBMITS
from atemporal.model import JobSpec
from atemporal.store import jobs
from atemporal.store.database import Database
from atemporal.store.jobs import Submission
from atemporal.telemetry import logger
from atemporal.terms import ANY_TERMS, Terms
from services.api import request_body, submission
from services.api.auth import Authorizer
from services.api.error_responses import TooLarge, possible
from services.api.query import only_query
from services.api.schemas import LineResult

LINES = 10_000
"""The most jobs of one request."""
LIMIT = 16 * 1024 * 1024
"""The most bytes of one request."""
AT_ONCE = 4
READ_S = 60.0
_VIA = "http"

Rejected = dict[int, Mapping[str, str]]


def router(database: Database, authorizer: Authorizer, terms: Terms = ANY_TERMS) -> APIRouter:
    """Build the call."""
    routes = APIRouter(tags=["jobs"])
    submitter = authorizer.needs("submit")
    places = asyncio.Semaphore(AT_ONCE)
    log = logger("jobs")

    async def place() -> AsyncIterator[None]:
        async with places:
            yield

    async def body(request: Request, _: None = Depends(place)) -> bytes:
        try:
            async with asyncio.timeout(READ_S):
                return await request_body.bounded(request, LIMIT)
        except TimeoutError:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {READ_S:.0f} s"
            ) from None

    @routes.post(
        "/jobs:batch",
        summary="Submit many jobs",
        dependencies=[Depends(only_query("on_error"))],
        response_class=Response,
        responses={
            200: {
                "description": "one line for each job, in their order",
                "content": {MEDIA_TYPE: {"schema": LineResult.model_json_schema()}},
            },
            **possible(
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNPROCESSABLE_ENTITY,
            ),
        },
        openapi_extra={"requestBody": _documentation()},
    )
    def submit_batch(
        actor: str = Depends(submitter),
        sent: bytes = Depends(body),
        on_error: Annotated[
            Literal["refuse", "skip"],
            Query(description="refuse: all or none of them; skip: the good ones"),
        ] = "refuse",
        idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
    ) -> Response:
        """Accept up to 10,000 jobs and 16 MB, a JSON object as of `POST /jobs` on each line.

        With the header `Idempotency-Key` a line without a key of its own has KEY/NUMBER.
        """
        specs, rejected = _read(sent, idempotency_key, terms)
        skip = on_error == "skip"
        try:
            if rejected and not skip:
                raise InvalidLines(rejected)
            with database.begin() as tx:
                made = dict(
                    zip(specs, jobs.submit(tx, [*specs.values()], actor=actor), strict=True)
                )
                conflicts = {
                    number: {"key": jobs.describe_difference(specs[number].key, one)}
                    for number, one in made.items()
                    if one.differs
                }
                if conflicts and not skip:
                    raise InvalidLines(conflicts)
        except InvalidLines as error:
            SUBMITS.labels(_VIA, "rejected").inc(error.count)
            raise
        results = _results(made, rejected | conflicts)
        counts = dict.fromkeys(("accepted", "duplicate", "rejected"), 0)
        for one in results:
            counts[one.status] += 1
        for status, count in counts.items():
            SUBMITS.labels(_VIA, status).inc(count)
        log.info("submitted many", actor=actor, **counts)
        lines = (one.model_dump_json(exclude_none=True) + "\n" for one in results)
        return Response("".join(lines), media_type=MEDIA_TYPE)

    return routes


def _read(sent: bytes, key: str | None, terms: Terms) -> tuple[dict[int, JobSpec], Rejected]:
    """The jobs and the bad lines, by their numbers.

    Raises:
        Invalid: there is no job at all.
        TooLarge: there are more than `LINES`.
    """
    specs: dict[int, JobSpec] = {}
    rejected: Rejected = {}
    for number, line in _lines(sent):
        if len(specs) + len(rejected) == LINES:
            raise TooLarge(f"there are more than {LINES} jobs: send them as several requests")
        try:
            spec = read_line(line, key=key and f"{key}/{number}")
            terms.check(spec)
            specs[number] = spec
        except Invalid as error:
            rejected[number] = error.fields
    if not specs and not rejected:
        raise Invalid({"body": "holds no line: send a JSON object, a job, on each"})
    return specs, rejected


def _lines(sent: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1 on."""
    begin, number = 0, 0
    while begin < len(sent):
        end = sent.find(b"\n", begin)
        end = len(sent) if end < 0 else end
        number += 1
        line = sent[begin:end].strip()
        if line:
            yield number, line
        begin = end + 1


def _results(made: Mapping[int, Submission], rejected: Rejected) -> list[LineResult]:
    results = []
    for number in sorted(made.keys() | rejected.keys()):
        one, errors = made.get(number), rejected.get(number)
        status = "rejected" if errors else "accepted" if one and one.created else "duplicate"
        results.append(
            LineResult.model_validate(
                {
                    "line": number,
                    "status": status,
                    "id": one and one.job_id,
                    "time": None if errors or not one else one.run_at,
                    "errors": errors,
                }
            )
        )
    return results


def _documentation() -> dict[str, Any]:
    """The request body, for OpenAPI, which knows no lines: the schema is that of each."""
    json = submission.documentation()["content"][request_body.JSON]
    example = '{"image": "nginx:1.9", "env": {"NAME": "bond"}}\n{"image": "nginx:1.9"}\n'
    content = {MEDIA_TYPE: {"schema": json["schema"], "example": example}}
    return {"required": True, "content": content, "description": "a JSON object on each line"}
