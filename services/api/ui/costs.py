"""What jobs cost: the sums of a time, by day, schedule, label, job or type, and what is under way."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends, Request, Response

from atemporal.errors import Invalid
from atemporal.model.text import storable
from atemporal.store import costs
from atemporal.store.costs import By
from services.api.costs import SHOWN, CostReport, what_by
from services.api.ui.page import Nav
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("cost", "Cost")
DAYS: Final = (1, 7, 30, 365)
_DAY_S: Final = 86_400
_BY: Final = tuple(str(one) for one in (By.DAY, *(one for one in By if one is not By.DAY)))


def routes(site: Site) -> APIRouter:
    """Build the call."""
    made = site.pages.routes()
    reader = site.visitors.reader()

    @made.get("/cost")
    def show(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        query = request.query_params
        by, label, days = (
            query.get("by") or _BY[0],
            query.get("label", ""),
            _days(query.get("days")),
        )
        if not storable(label):
            raise Invalid({"label": "holds a NUL character"})
        if by == By.LABEL and not label:
            raise Invalid({"label": "give the label's name beside: team, for example"})
        priced = site.settings.prices_file is not None
        what, name = what_by(f"{by}={label}" if by == By.LABEL else by)
        with site.database.begin() as tx:
            report = costs.report(
                tx, what, label=name, since=None, since_s=days * _DAY_S, until=None, limit=SHOWN
            )
        return site.pages.render(
            request,
            visitor,
            "costs.html",
            here=NAV.path,
            title="Cost",
            report=CostReport.show(by, report, priced=priced),
            by=by,
            label=label,
            days=days,
            choices=_BY,
            spans=DAYS,
            dearest=max((one.cost for one in report.rows), default=0),
            shares=[one.cost for one in report.rows],
        )

    return made


def _days(given: str | None) -> int:
    """For how many days.

    Raises:
        Invalid: it is none of what can be chosen.
    """
    days = [one for one in DAYS if str(one) == (given or "7")]
    if not days:
        raise Invalid({"days": f"is none of {', '.join(map(str, DAYS))}"})
    return days[0]
