"""The machines of launch groups: each asks here which job is its own.

Promise: a machine is told the job of the instance that it proves to be, again if it asks again, and no
other's. Which instance has which attempt was written down from EC2's answer to the launch: nothing that
a machine says changes it. A refusal is final for the machine (it powers off), a 5xx is not.
Mechanism: the group's token says that it was launched for the group; EC2's signed instance identity
document says which instance it is, unless the deployment believes machines without a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated
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
from atemporal.model import LaunchGroup, describe
from atemporal.registries import load
from atemporal.settings import Settings
from atemporal.store import groups
from atemporal.store.database import Database
from atemporal.telemetry import log_context, logger
from atemporal.userdata import manifest
from services.api import request_body
from services.api.error_responses import Forbidden, possible, problem

ASSIGNMENTS = counter(
    "atemporal_assignments_total",
    "Assignments of jobs to machines of launch groups, by what became of the asking.",
    result=["assigned", "wait", "none", "unproven", "denied", "failed"],
)
# EC2's clock and the database's need not agree to the second.
CLOCKS_S = 120
MANIFEST = "application/octet-stream"

_bearer = HTTPBearer(
    auto_error=False, scheme_name="group", description="The token of one launch group's machines."
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
                    "machines of launch groups can not be told their jobs", why=str(error)
                )

    def instance_of(self, machine: NewMachine, group: LaunchGroup) -> str:
        """The id of the machine's instance.

        Raises:
            Unproven: it has not shown that it is an instance that the group can have launched.
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
        if stated.pending_at < group.created_at - timedelta(seconds=CLOCKS_S):
            raise Unproven(f"the instance was launched before group {group.id}")
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

    @routes.post(
        "/groups/{group_id}/machines",
        summary="I am up: which job is mine?",
        response_class=Response,
        responses={
            HTTPStatus.OK.value: {
                "content": {MANIFEST: {}},
                "description": "the machine's job manifest",
            },
            **_FAILURES,
        },
        openapi_extra={
            "requestBody": {
                "content": {request_body.JSON: {"schema": NewMachine.model_json_schema()}}
            }
        },
    )
    def assign(
        group_id: UUID = Depends(_path_id),
        token: HTTPAuthorizationCredentials | None = Depends(_bearer),
        body: bytes = Depends(request_body.whole),
    ) -> Response:
        """Tell a machine its job, once EC2's answer to the launch is written down."""
        with _counted():
            if token is None or not tokens.verify(
                keys, token.credentials, deployment, str(group_id), "group"
            ):
                raise Denied("the token is not that of this launch group")
            machine = _machine(body)
            with database.begin() as tx:
                group = groups.get(tx, group_id)
            try:
                instance_id = doorkeeper.instance_of(machine, group)
            except Unproven as error:
                log.error(
                    "a machine is refused",
                    why=str(error),
                    group=str(group_id),
                    instance=machine.instance_id,
                )
                raise
            except Unverifiable as error:
                ASSIGNMENTS.labels("failed").inc()
                log.error("a machine has to ask again", why=str(error), group=str(group_id))
                return _ask_again(str(error))
            with database.begin() as tx:
                assigned = groups.assigned(tx, group_id, instance_id)
        if assigned is None:
            ASSIGNMENTS.labels("wait").inc()
            why = "what was launched for this group is not written down yet; ask again"
            return _ask_again(why)
        attempt, spec = assigned
        own = tokens.mint(keys, attempt.launch.key_id, deployment, attempt.ref.id)
        ASSIGNMENTS.labels("assigned").inc()
        log.info("assigned", **log_context(attempt.ref, instance_id))
        auth = registries.opens(spec.image)
        told = manifest(attempt.ref, spec, attempt.launch, own, auth=auth)
        return Response(told, media_type=MANIFEST)

    return routes


def _ask_again(why: str) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, why, headers={"Retry-After": "2"})


async def _path_id(group_id: str) -> UUID:
    try:
        return UUID(group_id)
    except ValueError:
        raise NotFound(f"there is no launch group {group_id!r}") from None


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
