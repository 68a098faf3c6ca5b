"""The machines' callbacks: `POST` when up, `PATCH` to be allowed to run, `DELETE` to report the end.

Promise: a machine acts for the job's current attempt or is refused; of all that ask, one is granted
the claim; an end is written once. A refusal is final for the machine (it powers off), a 5xx is not.
Mechanism: the token is derived from the attempt, so it is checked without any state of ours; the
guards in the store decide the rest. The reaper is notified after the commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, get_args
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atemporal import tokens
from atemporal.errors import Conflict, Denied, Invalid, NotFound
from atemporal.json_object import read_object
from atemporal.messages import InstanceExited, InstanceRunning
from atemporal.metrics import counter, series
from atemporal.metrics.endings import ENDED
from atemporal.model import AttemptRef, ExitRecord, Job, ReportedReason, describe
from atemporal.settings import Settings
from atemporal.store import attempts, jobs
from atemporal.store.database import Database
from atemporal.telemetry import log_context, logger
from services.api import exit_report, request_body
from services.api.error_responses import InvalidTransition, possible
from services.api.jobs import path_id
from services.api.publisher import Publisher

CALLBACKS = counter(
    "atemporal_callbacks_total",
    "Callbacks of machines, by what they are and what became of them.",
    kind=["up", "claim", "exit"],
    result=["taken", "stale", "refused", "denied", "failed"],
)
series(ENDED, reason=get_args(ReportedReason))

ACTOR = "machine"

_bearer = HTTPBearer(
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
        status_code=HTTPStatus.NO_CONTENT,
        summary="May I run? (warming -> running)",
        responses=_FAILURES,
        openapi_extra=_documentation(Claim),
    )
    def claim(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(_bearer),
        body: bytes = Depends(request_body.whole),
    ) -> None:
        """Grant the first machine that asks; the same machine again; nobody else ever."""
        with _counted("claim"), database.begin() as tx:
            ref = authenticate(jobs.get(tx, job_id), token)
            asked = _claim(body)
            first = attempts.claim(
                tx, ref, claim_id=asked.claim, instance_id=asked.instance_id, actor=ACTOR
            )
        publisher.put(InstanceRunning.of(ref))
        log.info("claimed", first=first, **log_context(ref, asked.instance_id))

    @routes.post(
        "/jobs/{job_id}/callback",
        status_code=HTTPStatus.NO_CONTENT,
        summary="I am up and pull the image",
        responses=_FAILURES,
    )
    def up(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(_bearer),
    ) -> None:
        """Record that a machine has booted; from here on the pull takes its time."""
        with _counted("up"), database.begin() as tx:
            ref = authenticate(jobs.get(tx, job_id), token)
            attempts.booted(tx, ref, actor=ACTOR)
        log.info("up", **log_context(ref))

    @routes.delete(
        "/jobs/{job_id}/callback",
        status_code=HTTPStatus.NO_CONTENT,
        summary="I have ended (warming or running -> finished)",
        responses=_FAILURES,
        openapi_extra=_documentation(ExitRecord),
    )
    def exit_(
        job_id: UUID = Depends(path_id),
        token: HTTPAuthorizationCredentials | None = Depends(_bearer),
        body: bytes | None = Depends(request_body.whole_or_none),
    ) -> None:
        """Write the end of the attempt, and what follows for its job."""
        with _counted("exit"), database.begin() as tx:
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
                raise Conflict(f"attempt {ref.number} has ended before, or was not begun")
        publisher.put(InstanceExited.of(ref))
        ENDED.labels(end.reason).inc()
        log.info("exited", reason=end.reason, detail=end.detail, **log_context(ref))

    return routes


def _claim(body: bytes) -> Claim:
    if not body.strip():
        return Claim()
    try:
        return Claim.model_validate(read_object(body))
    except ValidationError as error:
        raise Invalid(describe(error)) from None


@contextmanager
def _counted(kind: str) -> Iterator[None]:
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
