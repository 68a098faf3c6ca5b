"""The machines' callbacks: `POST` when up and when the container has started, `PUT` while it holds,
`PATCH` to be allowed to run, `DELETE` to report the end.

Promise: a machine acts for the job's current attempt or is refused; of all that ask, one is granted
the claim, and none before its time; an end is written once. Of one whose end somebody else has written,
by a cancel mostly, the last output is kept. A refusal is final for the machine (it
powers off), a 5xx and a 425 are not.
Mechanism: the token is derived from the attempt, so it is checked without any state of ours; the
guards in the store decide the rest. The reaper is notified after the commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, TypeVar, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from atemporal import tokens
from atemporal.errors import Conflict, Denied, Invalid, NotFound, TooEarly
from atemporal.fleet.ending import may_write
from atemporal.json_object import read_object
from atemporal.lead import CLAIM_AHEAD_S
from atemporal.messages import InstanceExited, InstanceRunning
from atemporal.metrics import counter, histogram, series
from atemporal.metrics.endings import ENDED
from atemporal.model import (
    AttemptRef,
    ClockState,
    ExitRecord,
    Job,
    MachineClock,
    ReportedReason,
    describe,
)
from atemporal.settings import Settings
from atemporal.store import attempts, jobs, logs, starts
from atemporal.store.database import Database
from atemporal.telemetry import log_context, logger
from services.api import exit_report, request_body
from services.api.error_responses import InvalidTransition, possible
from services.api.jobs import path_id
from services.api.publisher import Publisher

CALLBACKS = counter(
    "atemporal_callbacks_total",
    "Callbacks of machines, by what they are and what became of them.",
    kind=["up", "started", "ready", "claim", "exit", "log", "log_script"],
    result=["taken", "early", "stale", "refused", "denied", "failed"],
)
START_SKEW = histogram(
    "atemporal_start_skew_seconds",
    "From the time of a job that was launched ahead of it to the start of its container.",
    buckets=(0.0, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
MACHINE_CLOCKS = counter(
    "atemporal_machine_clocks_total",
    "Machines that got ready, by what is known of their clock beside the database's.",
    state=ClockState,
)
series(ENDED, reason=get_args(ReportedReason))

ACTOR = "machine"

bearer = HTTPBearer(
    auto_error=False, scheme_name="attempt", description="The token of one attempt's machine."
)
_FAILURES = possible(
    HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
)
# Printable ASCII: what a machine makes, and what every log and column takes.
_Identifier = Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]


class Claim(BaseModel):
    """What a machine sends when it asks whether it may run."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    claim: _Identifier | None = Field(
        default=None, description="made once per boot; repeats are granted"
    )
    instance_id: _Identifier | None = Field(default=None, examples=["i-0123456789abcdef0"])
    holds: bool = Field(
        default=False,
        description="it starts its container at the job's time, not as soon as it is granted",
    )


class Ready(Claim):
    """What a machine sends when its container could start."""

    clock: MachineClock = Field(default=MachineClock())


class Up(BaseModel):
    """What a machine sends when it is up, and when its container has started."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    started_at: AwareDatetime | None = Field(
        default=None, description="when the container started, by the machine's clock"
    )


class Hold(BaseModel):
    """How long a machine has to hold its container; whole milliseconds."""

    hold_ms: int = Field(description="until it is to ask again; 0: it may claim")
    start_in_ms: int = Field(description="until the container is to start")
    time_ms: int = Field(description="that instant, since 1970")
    now_ms: int = Field(description="the present instant by the clock that decides, since 1970")


def router(settings: Settings, database: Database, publisher: Publisher) -> APIRouter:
    """Build the callbacks.

    Raises:
        Invalid: the settings have no callback key, so machines could not be authenticated.
    """
    routes = APIRouter(tags=["callbacks"])
    log = logger("callbacks")
    keys, deployment = settings.keys, settings.deployment

    def authenticate(job: Job, given: HTTPAuthorizationCredentials | None) -> AttemptRef:
        ref = AttemptRef(job.id, job.attempt)
        if given is None or not tokens.verify(keys, given.credentials, deployment, ref.id):
            raise Denied("the token is not that of this job's current attempt")
        return ref

    @routes.patch(
        "/jobs/{job_id}/callback",
        summary="May I run? (ready -> running)",
        response_model=Hold,
        responses={
            204: {"description": "granted; start now"},
            **possible(HTTPStatus.TOO_EARLY),
            **_FAILURES,
        },
        openapi_extra=_documentation(Claim),
    )
    def claim(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(bearer),
        body: bytes = Depends(request_body.whole),
    ) -> Response | Hold:
        """Grant the first machine that asks; the same machine again; nobody else ever.

        One that holds is granted seconds ahead of its time and left how many; any other at its time.
        """
        with counted("claim"), database.begin() as tx:
            ref = authenticate(jobs.get(tx, job_id), token)
            asked = _read(Claim, body)
            first = attempts.claim(
                tx,
                ref,
                claim_id=asked.claim,
                instance_id=asked.instance_id,
                actor=ACTOR,
                ahead_s=CLAIM_AHEAD_S if asked.holds else 0.0,
            )
        publisher.put(InstanceRunning.of(ref))
        log.info("claimed", first=first, **log_context(ref, asked.instance_id))
        if not asked.holds:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        # After the commit: what it took is not added to the hold.
        with database.begin() as tx:
            left = starts.hold(tx, ref)
        return Hold(**left._asdict())

    @routes.put(
        "/jobs/{job_id}/callback",
        summary="My container could start (warming -> ready)",
        responses=_FAILURES,
        openapi_extra=_documentation(Ready),
    )
    def ready(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(bearer),
        body: bytes = Depends(request_body.whole),
    ) -> Hold:
        """Tell a machine how long to hold; asked again and again, so that it learns of a new time."""
        with counted("ready"), database.begin() as tx:
            ref = authenticate(jobs.get(tx, job_id), token)
            asked = _read(Ready, body)
            clock = asked.clock
            first = starts.ready(tx, ref, instance_id=asked.instance_id, clock=clock, actor=ACTOR)
            left = starts.hold(tx, ref)
        if first:
            MACHINE_CLOCKS.labels(clock.state).inc()
            line = log.warning if clock.state is ClockState.DIFFERS else log.info
            line("ready", clock=clock.state, offset_ms=clock.offset_ms, **log_context(ref))
        return Hold(**left._asdict())

    @routes.post(
        "/jobs/{job_id}/callback",
        summary="I am up and pull the image; or: my container has started",
        responses=_FAILURES,
        openapi_extra=_documentation(Up),
    )
    def up(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(bearer),
        body: bytes = Depends(request_body.whole),
    ) -> Hold:
        """Record that a machine has booted; from here on the pull takes its time.

        With `started_at`: record when its container started.
        """
        news = _read(Up, body)
        with counted("started" if news.started_at else "up"), database.begin() as tx:
            ref = authenticate(jobs.get(tx, job_id), token)
            if news.started_at is None:
                attempts.booted(tx, ref, actor=ACTOR)
                start = None
            else:
                start = starts.started(tx, ref, news.started_at, actor=ACTOR)
            left = starts.hold(tx, ref)
        _observe(start)
        log.info("started" if news.started_at else "up", **log_context(ref))
        return Hold(**left._asdict())

    @routes.delete(
        "/jobs/{job_id}/callback",
        status_code=HTTPStatus.NO_CONTENT,
        summary="I have ended (warming or running -> finished)",
        responses=_FAILURES,
        openapi_extra=_documentation(ExitRecord),
    )
    def exit_(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(bearer),
        body: bytes | None = Depends(request_body.whole_or_none),
    ) -> None:
        """Write the end of the attempt, and what follows for its job."""
        with counted("exit"), database.begin() as tx:
            # Locked, so that no other machine can claim the attempt while this one ends it.
            job = jobs.get(tx, job_id, lock=True)
            ref = authenticate(job, token)
            end = exit_report.read(body)
            for attempt in job.attempts:
                if attempt.ref == ref:
                    end.check_machine(attempt)
            if not attempts.end(
                tx, ref, end.reason, actor=ACTOR, exit_record=end.record, detail=end.detail
            ):
                ended = next((one for one in job.attempts if one.ref == ref), None)
                last_words = end.record if ended and may_write(ended) else None
                if last_words is None or not logs.keep_tail(tx, ref, last_words):
                    raise Conflict(f"attempt {ref.number} has ended before, or was not begun")
                log.info("kept the end of its output", **log_context(ref))
                return
            start = None
            if end.record is not None and end.record.started_at is not None:
                start = starts.started(tx, ref, end.record.started_at, actor=ACTOR)
        _observe(start)
        publisher.put(InstanceExited.of(ref))
        ENDED.labels(end.reason).inc()
        log.info("exited", reason=end.reason, detail=end.detail, **log_context(ref))

    return routes


_Body = TypeVar("_Body", bound=BaseModel)


def _read(kind: type[_Body], body: bytes) -> _Body:
    if not body.strip():
        return kind()
    try:
        return kind.model_validate(read_object(body))
    except ValidationError as error:
        raise Invalid(describe(error)) from None


def _observe(start: starts.Start | None) -> None:
    if start is not None and start.skew_s is not None:
        START_SKEW.observe(start.skew_s)


@contextmanager
def counted(kind: str) -> Iterator[None]:
    """Count how a callback went; a transition that the state forbids is 422 here, as it always was."""
    result = "failed"
    try:
        yield
        result = "taken"
    except Denied:
        result = "denied"
        raise
    except (NotFound, Invalid):
        result = "refused"
        raise
    except TooEarly:
        result = "early"
        raise
    except Conflict as error:
        result = "stale"
        raise InvalidTransition(str(error)) from error
    finally:
        CALLBACKS.labels(kind, result).inc()


def _documentation(model: type[BaseModel]) -> dict[str, object]:
    return {
        "requestBody": {
            "required": False,
            "content": {request_body.JSON: {"schema": model.model_json_schema()}},
        }
    }
