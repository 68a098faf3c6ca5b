"""Instances: every attempt whose instance is not yet known to be gone, the newest first."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from atemporal import waiting
from atemporal.store import counts
from atemporal.store.database import server_time
from services.api.ui.page import Nav
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("instances", "Instances")
SHOWN: Final = 200


def routes(site: Site) -> APIRouter:
    """Build the call."""
    made = site.pages.routes()
    reader = site.visitors.reader()

    @made.get("/instances")
    def show(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        with site.database.begin() as tx:
            now = server_time(tx)
            by_state = counts.open_by_state(tx)
            found = counts.open_attempts(tx, limit=SHOWN)
        return site.pages.render(
            request,
            visitor,
            "instances.html",
            here=NAV.path,
            title="Instances",
            now=now,
            attempts=[(one, waiting.of_attempt(one)) for one in found],
            by_state=by_state,
            total=sum(by_state.values()),
        )

    return made
