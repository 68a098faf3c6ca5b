"""The pause of the whole installation, for clients: see it, begin it, end it.

Promise: a change is a fact when it is answered. From a pause on nothing new is dispatched; what was
begun goes on.
"""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from atemporal.errors import Invalid
from atemporal.job_view import Instant
from atemporal.json_object import read_object
from atemporal.model import Pause
from atemporal.settings import Settings
from atemporal.states import AttemptState
from atemporal.store import pauses
from atemporal.store.database import Database
from atemporal.store.pauses import UnderWay
from atemporal.telemetry import logger
from services.api import request_body
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import only_query

REASON_LIMIT = 500
"""A reason has so many characters at most."""

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_BODY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "reason": {
            "type": "string",
            "maxLength": REASON_LIMIT,
            "description": "for whoever asks why nothing happens",
            "examples": ["Postgres is moved"],
        }
    },
}


class PauseShown(BaseModel):
    """Whether nothing new is dispatched, and what goes on meanwhile."""

    paused: bool
    since: Instant | None = None
    by: str | None = None
    reason: str | None = None
    under_way: int = Field(description="attempts whose instance is not known to be gone")
    by_state: dict[AttemptState, int] = Field(
        description="how many of these are in each state", examples=[{"warming": 1, "running": 2}]
    )
    next_deadline: Instant | None = Field(
        description="when the wait of the first of them ends at the latest, as `waiting_until` of its "
        "job; null: nothing is under way"
    )

    @classmethod
    def show(cls, pause: Pause | None, under_way: UnderWay) -> PauseShown:
        """Show the pause that is on, if there is one."""
        facts = pause.model_dump() if pause else {}
        return cls(
            paused=pause is not None,
            under_way=sum(under_way.by_state.values()),
            by_state=dict(under_way.by_state),
            next_deadline=under_way.next_deadline,
            **facts,
        )


class PauseBegun(PauseShown):
    """A pause that was begun."""

    put_back: int = Field(description="jobs that had been dispatched and are scheduled again")


def router(settings: Settings, database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the calls for the pause."""
    deadlines = settings.deadlines
    routes = APIRouter(tags=["pause"])
    log = logger("pauses")
    reader, admin = authorizer.needs("read"), authorizer.needs("admin")

    @routes.get(
        "/pause",
        summary="Show whether the installation is paused",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(reader), Depends(only_query())],
    )
    def get() -> PauseShown:
        """With how many attempts are under way, which go on."""
        with database.begin() as tx:
            return PauseShown.show(pauses.current(tx), pauses.under_way(tx, deadlines))

    @routes.put(
        "/pause",
        summary="Pause the installation",
        responses=possible(*DENIALS, HTTPStatus.CONFLICT, _BAD),
        dependencies=[Depends(only_query())],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {request_body.JSON: {"schema": _BODY}},
            }
        },
    )
    def put(actor: str = Depends(admin), body: bytes = Depends(request_body.whole)) -> PauseBegun:
        """Nothing new is dispatched from then on; what was dispatched and not begun is scheduled again.

        Attempts that were begun go on. Jobs and fires are taken as ever, and wait.
        """
        reason = _reason(body)
        with database.begin() as tx:
            begun = pauses.begin(tx, actor=actor, reason=reason)
            shown = PauseShown.show(begun.pause, pauses.under_way(tx, deadlines))
        log.warning("paused", actor=actor, reason=reason, put_back=begun.put_back)
        return PauseBegun(**shown.model_dump(), put_back=begun.put_back)

    @routes.delete(
        "/pause",
        summary="Resume the installation",
        responses=possible(*DENIALS, HTTPStatus.CONFLICT, _BAD),
        dependencies=[Depends(only_query())],
    )
    def delete(actor: str = Depends(admin)) -> PauseShown:
        """What is due is dispatched at once. Returns how it stands then: not paused."""
        with database.begin() as tx:
            ended = pauses.end(tx, actor=actor)
            shown = PauseShown.show(None, pauses.under_way(tx, deadlines))
        log.warning("resumed", actor=actor, paused_by=ended.by)
        return shown

    return routes


def _reason(body: bytes) -> str:
    given = read_object(body)
    wrong = dict.fromkeys(given.keys() - {"reason"}, "unknown field")
    reason = given.get("reason", "")
    if not isinstance(reason, str):
        wrong["reason"] = "is not text"
    elif len(reason) > REASON_LIMIT:
        wrong["reason"] = f"has {len(reason)} characters, {REASON_LIMIT} are allowed"
    elif not reason.isprintable():
        wrong["reason"] = "holds a control character"
    if wrong:
        raise Invalid(dict(sorted(wrong.items())))
    return str(reason)
