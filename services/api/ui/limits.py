"""Concurrency limits: what each allows, what is in use of it, how many wait for it."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from atemporal.store import concurrency_limits
from services.api.limits import shown
from services.api.ui.page import Nav
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("limits", "Limits")


def routes(site: Site) -> APIRouter:
    """Build the call."""
    made = site.pages.routes()
    reader = site.visitors.reader()

    @made.get("/limits")
    def show(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        with site.database.begin() as tx:
            limits = shown(tx, concurrency_limits.listing(tx))
        return site.pages.render(
            request,
            visitor,
            "limits.html",
            here=NAV.path,
            title="Concurrency limits",
            limits=limits,
        )

    return made
