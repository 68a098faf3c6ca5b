"""Recurring schedules, for clients: make, look, change, pause, resume, run now, delete.

Promise: what is answered is committed; a bad field is refused with its name before anything happens.
What a change takes back of jobs that were made ahead is taken back when it is answered. What cancels
jobs wants the scope `cancel` besides `submit`: a pause, a delete, and the overlap `cancel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import Field

from atemporal.errors import Invalid, NotFound
from atemporal.json_object import read_object
from atemporal.model import parse_spec
from atemporal.model.schedule import (
    FIRES_SHOWN,
    MOST_FIRES,
    MOST_NEXT,
    NEXT_SHOWN,
    ScheduleFields,
    is_name,
    job_schema,
    parse_schedule,
)
from atemporal.recurrence import Overlap
from atemporal.settings import Settings
from atemporal.store import fires, jobs, schedules
from atemporal.store.database import Database
from atemporal.store.rows import Transaction
from atemporal.telemetry import logger
from atemporal.terms import ANY_TERMS, Terms
from services.api import request_body
from services.api.auth import Authorizer, bearer
from services.api.changes import SCOPES, Changes
from services.api.error_responses import DENIALS, possible
from services.api.jobs import PAGE
from services.api.publisher import Publisher
from services.api.query import only_query, or_absent
from services.api.schedule_schemas import ScheduleDetail, SchedulePage, ScheduleSummary
from services.api.schemas import JobDetail

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_ONE = possible(*DENIALS, HTTPStatus.NOT_FOUND, _BAD)
_CHANGE = possible(*DENIALS, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, _BAD)
_MAKE = possible(*DENIALS, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _BAD)


async def path_name(name: str) -> str:
    """The schedule's name in the path.

    Raises:
        NotFound: it is no name, so no schedule has it.
    """
    if not is_name(name):
        raise NotFound(f"there is no schedule named {name!r}")
    return name


def detail(
    tx: Transaction, name: str, *, latest: int = FIRES_SHOWN, following: int = NEXT_SHOWN
) -> ScheduleDetail:
    """Show a schedule with so many of its latest and of its next fires.

    Raises:
        NotFound: there is none of that name.
    """
    schedule = schedules.shown(tx, name)
    ended = schedules.latest_fires(tx, schedule, limit=latest, until=schedule.read_at)
    ahead = fires.open_fires(tx, schedule.id)
    return ScheduleDetail.show_all(schedule, ended, ahead, following=following)


def router(
    settings: Settings,
    database: Database,
    authorizer: Authorizer,
    publisher: Publisher,
    terms: Terms = ANY_TERMS,
) -> APIRouter:
    """Build the calls for schedules."""
    deadlines = settings.deadlines
    routes = APIRouter(tags=["schedules"])
    no_query = Depends(only_query())
    log = logger("schedules")
    reader, submitter = authorizer.needs("read"), authorizer.needs("submit")
    ender = authorizer.needs("submit", "cancel")
    pauser, resumer = authorizer.needs(*SCOPES["pause"]), authorizer.needs(*SCOPES["resume"])
    changes = Changes(database, publisher)

    async def as_overlap_wants(
        request: Request,
        given: HTTPAuthorizationCredentials | None = Depends(bearer),
        body: bytes = Depends(request_body.whole),
    ) -> None:
        if read_object(body).get("overlap") == Overlap.CANCEL:
            await ender(request, given)

    @routes.get(
        "/schedules",
        summary="List recurring schedules",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(reader), Depends(only_query("limit", "after"))],
    )
    def list_schedules(
        limit: Annotated[
            Annotated[int, Field(ge=1, le=PAGE)] | None,
            Query(description="of one page"),
            or_absent,
        ] = None,
        after: Annotated[str, Query(description="`next` of a page")] = "",
    ) -> SchedulePage:
        """Schedules by name; `next` is the name to go on after, or null."""
        with database.begin() as tx:
            page = schedules.listing(tx, after=after, limit=limit or PAGE)
        return SchedulePage.show(page)

    @routes.post(
        "/schedules",
        status_code=HTTPStatus.CREATED,
        summary="Make a recurring schedule",
        responses=_MAKE,
        dependencies=[no_query],
        openapi_extra=_documented(_schema(required=["name", "cron", "job"])),
    )
    def create(
        response: Response,
        actor: str = Depends(submitter),
        _allowed: None = Depends(as_overlap_wants),
        body: bytes = Depends(request_body.whole),
    ) -> ScheduleDetail:
        """Run a job again and again, by a cron line in a zone; the first time at its next fire.

        The overlap `cancel` wants the scope `cancel` too.
        """
        spec = parse_schedule(read_object(body))
        terms.check(spec.job, within="job.")
        with database.begin() as tx:
            made = schedules.create(tx, spec)
            shown = detail(tx, made.name)
        log.info("created", schedule=made.name, actor=actor)
        response.headers["Location"] = f"/schedules/{made.name}"
        return shown

    @routes.get(
        "/schedules/{name}",
        summary="Show a recurring schedule",
        responses=_ONE,
        dependencies=[Depends(reader), Depends(only_query("fires", "next"))],
    )
    def show(
        name: str = Depends(path_name),
        fires: Annotated[
            int, Query(ge=0, le=MOST_FIRES, description="how many of the latest")
        ] = FIRES_SHOWN,
        next: Annotated[  # noqa: A002 - the parameter's name
            int, Query(ge=0, le=MOST_NEXT, description="how many of the next")
        ] = NEXT_SHOWN,
    ) -> ScheduleDetail:
        """The schedule, its next fires, and what became of the latest."""
        with database.begin() as tx:
            return detail(tx, name, latest=fires, following=next)

    @routes.patch(
        "/schedules/{name}",
        summary="Change a recurring schedule",
        responses=_CHANGE,
        dependencies=[no_query],
        openapi_extra=_documented(_schema(version=True)),
    )
    def edit(
        actor: str = Depends(submitter),
        _allowed: None = Depends(as_overlap_wants),
        name: str = Depends(path_name),
        body: bytes = Depends(request_body.whole),
    ) -> ScheduleDetail:
        """Change what is given, of the job what is given of it; an empty `env` or `labels` clears it.

        With `version`, only if that is still the schedule's. The overlap `cancel` wants the scope
        `cancel` too.
        """
        fields = read_object(body)
        version = fields.pop("version", None)
        if version is not None and type(version) is not int:
            raise Invalid({"version": "is no whole number"})
        with database.begin() as tx:
            done = schedules.edit(tx, name, fields, version=version, actor=actor)
            if "job" in fields:
                terms.check(done.schedule.job, within="job.")
            shown = detail(tx, name)
        changes.settle(done, "edited", actor)
        return shown

    @routes.delete(
        "/schedules/{name}",
        summary="Delete a recurring schedule",
        responses=_ONE,
        dependencies=[no_query],
    )
    def remove(actor: str = Depends(ender), name: str = Depends(path_name)) -> ScheduleSummary:
        """Delete it with the record of its fires. Jobs that have begun stay, others are cancelled.

        This wants the scope `cancel` too.
        """
        with database.begin() as tx:
            removed = schedules.remove(tx, name, actor=actor)
        changes.settle(removed, "deleted", actor)
        return ScheduleSummary.show(removed.schedule)

    @routes.post(
        "/schedules/{name}/pause",
        summary="Pause a recurring schedule",
        responses=_ONE,
        dependencies=[no_query],
    )
    def pause(actor: str = Depends(pauser), name: str = Depends(path_name)) -> ScheduleDetail:
        """Fire no more, and begin no job of it that has not begun. Again: no change.

        This wants the scope `cancel` too.
        """
        return changes.pause(name, actor, lambda tx: detail(tx, name))

    @routes.post(
        "/schedules/{name}/resume",
        summary="Resume a recurring schedule",
        responses=_ONE,
        dependencies=[no_query],
    )
    def resume(actor: str = Depends(resumer), name: str = Depends(path_name)) -> ScheduleDetail:
        """Fire again, from now on; the fires of the pause are skipped. Again: no change."""
        return changes.resume(name, actor, lambda tx: detail(tx, name))

    @routes.post(
        "/schedules/{name}/run",
        status_code=HTTPStatus.CREATED,
        summary="Run a recurring schedule's job now",
        response_model=JobDetail,
        responses={
            200: {"model": JobDetail, "description": "the job that has this key"},
            **_CHANGE,
        },
        dependencies=[no_query],
        openapi_extra=_documented(
            {"type": "object", "properties": {"key": {"type": "string"}}}, required=False
        ),
    )
    def run_now(
        response: Response,
        actor: str = Depends(submitter),
        name: str = Depends(path_name),
        body: bytes = Depends(request_body.whole),
    ) -> Any:
        """Make a job of it that is due now; it is none of its fires, and does not change them.

        With `key` in the body the same call gives the same job.
        """
        key = _key(body)
        with database.begin() as tx:
            made = schedules.run_now(tx, name, key=key, actor=actor)
            job = jobs.get(tx, made.job_id)
        log.info("run now", schedule=name, job=str(job.id), actor=actor)
        response.status_code = HTTPStatus.CREATED if made.created else HTTPStatus.OK
        response.headers["Location"] = f"/jobs/{job.id}"
        return JobDetail.show(job, deadlines)

    return routes


def _schema(*, required: list[str] | None = None, version: bool = False) -> dict[str, Any]:
    """The fields of a request, for OpenAPI: they are read by hand."""
    schema = ScheduleFields.model_json_schema(ref_template="#/$defs/{model}")
    defined = schema.pop("$defs", {})
    properties = {name: _inlined(one, defined) for name, one in schema["properties"].items()}
    properties["job"] = {**job_schema(), "description": "The job of each fire."}
    if version:
        del properties["name"]
        properties["version"] = {"type": "integer", "description": "the version that was read"}
    return {"type": "object", "required": required or [], "properties": properties}


def _inlined(one: Mapping[str, Any], defined: Mapping[str, Any]) -> dict[str, Any]:
    # A reference inside would point to the root of the whole document.
    reference = one.get("$ref", "").rpartition("/")[2]
    return {**defined.get(reference, {}), **{k: v for k, v in one.items() if k != "$ref"}}


def _documented(schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    content = {request_body.JSON: {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


def _key(body: bytes) -> str | None:
    """The key in a body that may be empty, by the rules for any job's."""
    given = read_object(body) if body.strip() else {}
    if unknown := given.keys() - {"key"}:
        raise Invalid(dict.fromkeys(sorted(unknown), "unknown field"))
    return parse_spec({"image": "none", **given}).key
