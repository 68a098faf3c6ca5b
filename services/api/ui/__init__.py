"""The page at `/ui`: jobs, instances, schedules, limits, costs, dead letters, health, for who looks.

Promise: it shows and changes what the API's calls show and change, by the same functions and under the
same rules. It works without scripts, beneath any prefix, and asks no other host for anything.
Mechanism: one module and one template a view; a module has `NAV` and `routes`, and stands in `VIEWS`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response

from atemporal.errors import NotFound
from atemporal.settings import Settings
from atemporal.store.database import Database
from services.api.auth import Authorizer
from services.api.changes import Changes
from services.api.ui import (
    assets,
    costs,
    dead_letters,
    health,
    instances,
    job,
    jobs,
    limits,
    schedules,
    sign_in,
)
from services.api.ui.page import Pages
from services.api.ui.site import Site
from services.api.ui.visitor import Visitors

VIEWS: Final = (jobs, instances, schedules, limits, costs, dead_letters, health)
"""The views in the order of the navigation; the first one is the front page."""


def router(
    settings: Settings, database: Database, authorizer: Authorizer, changes: Changes
) -> APIRouter:
    """Build the page."""
    pages = Pages(tuple(view.NAV for view in VIEWS), settings.api_notice)
    visitors = Visitors(authorizer, database)
    site = Site(settings, database, changes, pages, visitors)
    whole = APIRouter(include_in_schema=False)
    whole.include_router(assets.routes())
    whole.include_router(sign_in.routes(pages, database))
    whole.include_router(job.routes(site))
    for view in VIEWS:
        whole.include_router(view.routes(site))
    whole.include_router(_nothing(pages))
    return whole


def _nothing(pages: Pages) -> APIRouter:
    made = pages.routes()

    @made.get("/{path:path}", status_code=HTTPStatus.NOT_FOUND)
    async def nothing(path: str) -> Response:
        raise NotFound("there is no such page")

    return made
