"""Jobs, the newest first: by state, label, schedule, image; and the way to one by a part of its id."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from atemporal.errors import Invalid
from atemporal.model.schedule import LABEL
from atemporal.model.text import storable
from atemporal.states import JobState, Outcome
from atemporal.store import jobs, listing
from services.api.jobs import check_part, named
from services.api.query import labels_of
from services.api.schemas import JobSummary
from services.api.ui.page import Nav, redirect
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("jobs", "Jobs")
PAGE: Final = 50
STATES: Final = (*(one for one in JobState), *(one for one in Outcome))
_FIELDS: Final = ("state", "label", "schedule", "image", "after")


def routes(site: Site) -> APIRouter:
    """Build the calls."""
    made = site.pages.routes()
    reader = site.visitors.reader()
    deadlines = site.settings.deadlines

    def show(request: Request, visitor: Visitor) -> Response:
        given = _given(request)
        labels = labels_of([*given["label"], *(f"{LABEL}={one}" for one in given["schedule"])])
        image = given["image"][0] if given["image"] else ""
        with site.database.begin() as tx:
            page = listing.page(
                tx,
                states=named(given["state"], JobState),
                outcomes=named(given["state"], Outcome),
                labels=labels,
                image=image,
                limit=PAGE,
                after=_id(given["after"]),
                newest_first=True,
            )
        filters = [(name, one) for name in _FIELDS if name != "after" for one in given[name]]
        return site.pages.render(
            request,
            visitor,
            "jobs.html",
            here=NAV.path,
            title="Jobs",
            jobs=[JobSummary.show(one, deadlines) for one in page.jobs],
            page=page,
            given=given,
            filters=filters,
            states=STATES,
            schedule_label=LABEL,
            looked_through=listing.LOOKED_THROUGH if image else 0,
        )

    @made.get("")
    def front(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        return show(request, visitor)

    @made.get("/jobs")
    def all_jobs(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        return show(request, visitor)

    @made.get("/find", dependencies=[Depends(reader)])
    def find(request: Request) -> Response:
        part = check_part(request.query_params.get("id", "").strip())
        with site.database.begin() as tx:
            job_id = jobs.resolve(tx, part)
        return redirect(request, f"jobs/{job_id}")

    return made


def _given(request: Request) -> dict[str, list[str]]:
    """The filters that have a value.

    Raises:
        Invalid: one can not be read.
    """
    query = request.query_params
    given = {name: [one for one in query.getlist(name) if one.strip()] for name in _FIELDS}
    for name, values in given.items():
        if not all(map(storable, values)):
            raise Invalid({name: "holds a NUL character"})
    return given


def _id(given: list[str]) -> UUID | None:
    try:
        return UUID(given[0]) if given else None
    except ValueError:
        raise Invalid({"after": "is no id: begin with the first page again"}) from None
