"""Recurring schedules: when they fire next, what became of the latest fires, pause and resume."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from atemporal.model.schedule import LABEL
from atemporal.store import schedules
from atemporal.store.database import server_time
from services.api.schedule_schemas import SchedulePage
from services.api.schedules import detail, path_name
from services.api.ui.page import Nav, redirect
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("schedules", "Schedules")
PAGE: Final = 50


def routes(site: Site) -> APIRouter:
    """Build the calls."""
    made = site.pages.routes()
    reader = site.visitors.reader()

    @made.get("/schedules")
    def all_schedules(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        after = request.query_params.get("after", "").replace("\0", "")
        with site.database.begin() as tx:
            page = SchedulePage.show(schedules.listing(tx, after=after, limit=PAGE))
            now = server_time(tx)
        return site.pages.render(
            request,
            visitor,
            "schedules.html",
            here=NAV.path,
            title=NAV.title,
            now=now,
            page=page,
        )

    @made.get("/schedules/{name}")
    def show(
        request: Request, name: str = Depends(path_name), visitor: Visitor = Depends(reader)
    ) -> Response:
        with site.database.begin() as tx:
            schedule = detail(tx, name)
        return site.pages.render(
            request,
            visitor,
            "schedule.html",
            here=NAV.path,
            title=f"Schedule {name}",
            now=schedule.read_at,
            schedule=schedule,
            schedule_label=LABEL,
        )

    @made.post("/schedules/{name}/pause")
    def pause(
        request: Request,
        name: str = Depends(path_name),
        actor: str = Depends(site.visitors.changer("pause")),
    ) -> Response:
        site.changes.pause(name, actor, lambda tx: None)
        return redirect(request, f"schedules/{name}", {"done": "paused"})

    @made.post("/schedules/{name}/resume")
    def resume(
        request: Request,
        name: str = Depends(path_name),
        actor: str = Depends(site.visitors.changer("resume")),
    ) -> Response:
        site.changes.resume(name, actor, lambda tx: None)
        return redirect(request, f"schedules/{name}", {"done": "resumed"})

    return made
