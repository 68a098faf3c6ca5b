"""Machines that have no job in their user-data: each asks here for its own.

They are those of launch groups, and those of jobs that are delivered by claim.

Promise: a machine is told the job of the instance that it proves to be, and no other's; again if it asks
again, until the attempt has been claimed. Which instance has which attempt was written down from EC2's
answer to the launch: nothing that a machine says changes it. A refusal is final for the machine (it
powers off), a 5xx is not.
Mechanism: a token says that it was launched for the group, or for the attempt; EC2's signed instance
identity document says which instance it is, unless the deployment believes machines without a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atemporal import tokens
from atemporal.errors import AtemporalError, Conflict, Denied, Invalid, NotFound
from atemporal.identity.certificates import Certificates, certificates
from atemporal.identity.document import LONGEST, Unproven, read
from atemporal.identity.trusted import group_size
from atemporal.json_object import read_object
from atemporal.metrics import counter
from atemporal.model import Attempt, AttemptRef, describe
from atemporal.registries import load
from atemporal.settings import Settings
from atemporal.store import assignments, attempts, groups
from atemporal.store.assignments import Assignment
from atemporal.store.database import Database
from atemporal.store.rows import Transaction
from atemporal.telemetry import log_context, logger
from atemporal.userdata import manifest
from services.api import request_body
from services.api.error_responses import Forbidden, possible, problem

ASSIGNMENTS = counter(
    "atemporal_assignments_total",
    "Assignments of jobs to machines that ask for theirs, by what became of the asking.",
    result=["assigned", "wait", "none", "unproven", "denied", "failed"],
)
# EC2's clock and the database's need not agree to the second.
CLOCKS_S = 120
MANIFEST = "application/octet-stream"

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="assignment",
    description="The token by which the machines of one launch group, or of one attempt, ask.",
)
_FAILURES = possible(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


class NewMachine(BaseModel):
    """What a machine sends when it asks for its job."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    instance_id: Annotated[str, Field(pattern=r"^i-[0-9a-f]{8,17}$")] | None = Field(
        default=None, examples=["i-0123456789abcdef0"]
    )
    identity: Annotated[str, Field(max_length=LONGEST)] | None = Field(
        default=None,
        description="EC2's /latest/dynamic/instance-identity/rsa2048, without its line ends",
    )


_CALL: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        HTTPStatus.OK.value: {
            "content": {MANIFEST: {}},
            "description": "the machine's job manifest",
        },
        **_FAILURES,
    },
    "openapi_extra": {
        "requestBody": {"content": {request_body.JSON: {"schema": NewMachine.model_json_schema()}}}
    },
}


class Unverifiable(AtemporalError):
    """Nobody's proof can be verified here: it says nothing of the machine."""


class Doorkeeper:
    """Says which instance a machine is."""

    def __init__(self, settings: Settings) -> None:
        """Take the certificates.

        A launcher with other settings may launch groups where this process would launch none: without
        a certificate it can not tell their machines, and they ask again until another process can.

        Raises:
            Invalid: the settings demand groups, or name certificates, and none can be read.
        """
        self._settings = settings
        self._certificates: Certificates = ()
        if settings.instance_identity == "required":
            group_size(settings)
            try:
                self._certificates = certificates(settings)
            except Invalid as error:
                logger("machines").error(
                    "machines that ask can not be told their jobs", why=str(error)
                )

    def instance_of(self, machine: NewMachine, asked_at: datetime) -> str:
        """The id of the machine's instance, which was asked for at `asked_at` or later.

        Raises:
            Unproven: it has not shown that it is an instance that can have been launched for this.
            Unverifiable: this process has no certificate to verify its proof with.
        """
        if self._settings.instance_identity == "off":
            if machine.instance_id is None:
                raise Unproven("the machine does not say which instance it is")
            return machine.instance_id
        if not self._certificates:
            raise Unverifiable(
                "this process knows no certificate for instance identity documents; ask again, and set "
                "ATEMPORAL_IDENTITY_CERTIFICATES"
            )
        if not machine.identity:
            raise Unproven("the machine shows no instance identity document")
        stated = read(machine.identity, self._certificates)
        if machine.instance_id not in (None, stated.instance_id):
            raise Unproven(
                f"instance {machine.instance_id} shows the document of {stated.instance_id}"
            )
        if stated.region != self._settings.region:
            raise Unproven(f"the instance is in {stated.region}, not where ours are")
        if self._settings.aws_account_id not in (None, stated.account_id):
            raise Unproven(f"the instance is account {stated.account_id}'s, not ours")
        if stated.pending_at < asked_at - timedelta(seconds=CLOCKS_S):
            raise Unproven("the instance was launched before it was asked for")
        return stated.instance_id


def router(settings: Settings, database: Database) -> APIRouter:
    """Build the call.

    Raises:
        Invalid: the settings have no callback key, or no certificate for the proof they demand, or name
            registries that can not be read.
    """
    routes = APIRouter(tags=["callbacks"])
    log = logger("machines")
    keys, deployment = settings.keys, settings.deployment
    doorkeeper, registries = Doorkeeper(settings), load(settings)

    def assigned(
        body: bytes,
        asked_at: Callable[[Transaction], datetime],
        find: Callable[[Transaction, str], Assignment | None],
        **of: str,
    ) -> Response:
        """Tell a machine its job; `of` says in the log what it was launched for."""
        machine = _machine(body)
        with database.begin() as tx:
            since = asked_at(tx)
        try:
            instance_id = doorkeeper.instance_of(machine, since)
        except Unproven as error:
            log.error("a machine is refused", why=str(error), instance=machine.instance_id, **of)
            raise
        except Unverifiable as error:
            ASSIGNMENTS.labels("failed").inc()
            log.error("a machine has to ask again", why=str(error), **of)
            return _ask_again(str(error))
        with database.begin() as tx:
            found = find(tx, instance_id)
        if found is None:
            ASSIGNMENTS.labels("wait").inc()
            return _ask_again("EC2's answer to the launch is not written down yet; ask again")
        attempt, spec = found
        own = tokens.mint(keys, attempt.launch.key_id, deployment, attempt.ref.id)
        ASSIGNMENTS.labels("assigned").inc()
        log.info("assigned", **log_context(attempt.ref, instance_id))
        auth = registries.opens(spec.image)
        answer = manifest(attempt.ref, spec, attempt.launch, own, auth=auth)
        return Response(answer, media_type=MANIFEST)

    @routes.post("/groups/{group_id}/machines", summary="I am up: which job is mine?", **_CALL)
    def assign(
        group_id: UUID = Depends(_path_group),
        token: HTTPAuthorizationCredentials | None = Depends(_bearer),
        body: bytes = Depends(request_body.whole),
    ) -> Response:
        """Tell a machine of a launch group its job, once EC2's answer to the launch is written down."""
        with _counted():
            if token is None or not tokens.verify(
                keys, token.credentials, deployment, str(group_id), "group"
            ):
                raise Denied("the token is not that of this launch group")
            return assigned(
                body,
                lambda tx: groups.get(tx, group_id).created_at,
                lambda tx, instance_id: assignments.of_group(tx, group_id, instance_id),
                group=str(group_id),
            )

    @routes.post(
        "/jobs/{job_id}/attempts/{number}/machine", summary="I am up: what is my job?", **_CALL
    )
    def assign_one(
        ref: AttemptRef = Depends(_path_attempt),
        token: HTTPAuthorizationCredentials | None = Depends(_bearer),
        body: bytes = Depends(request_body.whole),
    ) -> Response:
        """Tell the machine of an attempt its job, once EC2's answer to the launch is written down."""
        with _counted():
            if token is None or not tokens.verify(
                keys, token.credentials, deployment, ref.id, "assignment"
            ):
                raise Denied("the token is not that of this attempt")
            return assigned(
                body,
                lambda tx: _attempt(tx, ref).created_at,
                lambda tx, instance_id: assignments.of_attempt(tx, ref, instance_id),
                **log_context(ref),
            )

    return routes


def _ask_again(why: str) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, why, headers={"Retry-After": "2"})


async def _path_attempt(job_id: str, number: str) -> AttemptRef:
    try:
        ref = AttemptRef(UUID(job_id), int(number))
    except ValueError:
        ref = None
    if ref is None or ref.id != f"{job_id}.{number}":
        raise NotFound(f"there is no attempt {number!r} of job {job_id!r}")
    return ref


async def _path_group(group_id: str) -> UUID:
    try:
        return UUID(group_id)
    except ValueError:
        raise NotFound(f"there is no launch group {group_id!r}") from None


def _attempt(tx: Transaction, ref: AttemptRef) -> Attempt:
    found = attempts.get(tx, ref)
    if found is None:
        raise NotFound(f"there is no attempt {ref.id}")
    return found


def _machine(body: bytes) -> NewMachine:
    try:
        return NewMachine.model_validate(read_object(body))
    except ValidationError as error:
        raise Invalid(describe(error)) from None


@contextmanager
def _counted() -> Iterator[None]:
    """Count how it went; who proves nothing is known, and may not."""
    try:
        yield
    except Unproven as error:
        ASSIGNMENTS.labels("unproven").inc()
        raise Forbidden(str(error)) from error
    except Denied:
        ASSIGNMENTS.labels("denied").inc()
        raise
    except (Conflict, NotFound):
        ASSIGNMENTS.labels("none").inc()
        raise
    except Exception:
        ASSIGNMENTS.labels("failed").inc()
        raise
