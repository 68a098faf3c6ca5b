"""Concurrency limits, for clients: list, set, remove, and who changed them.

Promise: a change is a fact when it is answered, for every job that is dispatched afterwards; nothing
that runs is ended by it. What is bad is refused before anything happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from atemporal.concurrency import MOST, check_most, check_name
from atemporal.errors import Invalid
from atemporal.job_view import Instant
from atemporal.json_object import read_object
from atemporal.settings import Settings
from atemporal.store import concurrency_limits, limit_waits
from atemporal.store.concurrency_limits import ConcurrencyLimit
from atemporal.store.database import Database
from atemporal.store.limit_waits import Use
from atemporal.store.rows import Transaction
from atemporal.telemetry import logger
from services.api import request_body
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import only_query, or_absent

SHOWN = 100
"""So many values of a label are shown of one limit, the fullest first."""
_PAGE = 1000

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY

_BODY = {
    "type": "object",
    "required": ["name", "most"],
    "additionalProperties": False,
    "properties": {
        "name": {
            "type": "string",
            "examples": ["team=mi6"],
            "description": "jobs, instances, vcpus, NAME=VALUE of a label, or NAME=* for each value",
        },
        "most": {"type": "integer", "minimum": 0, "maximum": MOST},
    },
}


class LimitUse(BaseModel):
    """What is counted under one name."""

    name: str = Field(description="the limit's, with the label's value in the place of *")
    used: int = Field(description="how much is held: jobs, instances or vCPUs")
    waiting: int = Field(description="how many jobs were put aside for it, counted up to 1000")


class Limit(BaseModel):
    """A concurrency limit."""

    name: str = Field(examples=["team=mi6"])
    most: int = Field(description="how much may be under way at once")
    changed_at: Instant
    changed_by: str
    uses: list[LimitUse] = Field(
        description="what is in use; of NAME=* each value in use, the 100 fullest"
    )

    @classmethod
    def show(cls, limit: ConcurrencyLimit, uses: Iterable[Use]) -> Limit:
        """Show one limit with what is counted under it."""
        fullest = sorted(uses, key=lambda use: (use.most - use.used, -use.waiting, use.name))
        return cls(
            **limit._asdict(),
            uses=[
                LimitUse(name=use.name, used=use.used, waiting=use.waiting)
                for use in fullest[:SHOWN]
            ],
        )


class LimitList(BaseModel):
    """All limits that are set."""

    limits: list[Limit]


class LimitChange(BaseModel):
    """One change of a limit."""

    name: str
    before: int | None = Field(description="how much it allowed; null: there was none")
    after: int | None = Field(description="how much it allows since; null: it was removed")
    actor: str
    at: Instant


class LimitChanges(BaseModel):
    """The latest changes, the latest first."""

    changes: list[LimitChange]


def router(settings: Settings, database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the calls for limits."""
    routes = APIRouter(tags=["limits"])
    log = logger("limits")
    reader, admin = authorizer.needs("read"), authorizer.needs("admin")

    @routes.get(
        "/limits",
        summary="List the concurrency limits",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(reader), Depends(only_query())],
    )
    def list_limits() -> LimitList:
        """Each with what is in use of it, and how many jobs wait for it."""
        with database.begin() as tx:
            return LimitList(limits=shown(tx, concurrency_limits.listing(tx)))

    @routes.get(
        "/limits/changes",
        summary="Who changed which concurrency limit",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(reader), Depends(only_query("limit", "name"))],
    )
    def changes(
        limit: Annotated[
            Annotated[int, Field(ge=1, le=_PAGE)] | None, Query(description="how many"), or_absent
        ] = None,
        name: Annotated[str | None, Query(description="of this limit alone"), or_absent] = None,
    ) -> LimitChanges:
        """The latest changes, the latest first."""
        with database.begin() as tx:
            found = concurrency_limits.changes(tx, name=name, limit=limit or SHOWN)
        return LimitChanges(changes=[LimitChange(**one._asdict()) for one in found])

    @routes.put(
        "/limits",
        summary="Set a concurrency limit",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(only_query())],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {request_body.JSON: {"schema": _BODY}},
            }
        },
    )
    def put(actor: str = Depends(admin), body: bytes = Depends(request_body.whole)) -> Limit:
        """New, or to another number; the same again changes nothing.

        Below what is in use nothing is ended, and nothing new starts. 0 lets nothing start.
        """
        given = read_object(body)
        wrong = dict.fromkeys(given.keys() - {"name", "most"}, "unknown field")
        wrong |= {name: "is missing" for name in ("name", "most") if name not in given}
        if wrong:
            raise Invalid(dict(sorted(wrong.items())))
        if not isinstance(given["name"], str):
            raise Invalid({"name": "is not text"})
        name, most = check_name(given["name"]), check_most(given["most"])
        with database.begin() as tx:
            made = concurrency_limits.put(
                tx, name, most, actor=actor, instance_type=settings.instance_type
            )
            (now,) = shown(tx, [made])
        log.info("limit set", limit=name, most=most, actor=actor)
        return now

    @routes.delete(
        "/limits",
        summary="Remove a concurrency limit",
        responses=possible(*DENIALS, HTTPStatus.NOT_FOUND, _BAD),
        dependencies=[Depends(only_query("name"))],
    )
    def remove(
        name: Annotated[str, Query(description="of the limit")], actor: str = Depends(admin)
    ) -> Limit:
        """Whoever waits for it may start at once. Returns what it was."""
        with database.begin() as tx:
            removed = concurrency_limits.remove(tx, check_name(name), actor=actor)
        log.info("limit removed", limit=name, actor=actor)
        return Limit.show(removed, [])

    return routes


def shown(tx: Transaction, limits: Iterable[ConcurrencyLimit]) -> list[Limit]:
    """Show limits, each with what is in use of it and how many wait for it."""
    rules, uses = concurrency_limits.rules(tx), limit_waits.uses(tx)
    return [
        Limit.show(one, [use for use in uses if rules.rule_for(use.name) == one.name])
        for one in limits
    ]
