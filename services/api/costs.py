"""What jobs cost, for clients: sums of a time, by label, schedule, job, type or day.

Promise: the rows and `others` add up to the total, to the last digit. What is under way is beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from atemporal.billing import CURRENCY, dollars
from atemporal.errors import Invalid
from atemporal.job_view import Instant
from atemporal.model import Attempt
from atemporal.model.job_spec import Instant as GivenInstant
from atemporal.settings import Settings
from atemporal.store import costs
from atemporal.store.costs import By, Report, Sum
from atemporal.store.database import Database
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import only_query, or_absent

SHOWN, PAGE = 100, 1000
LAST_S = 7 * 86_400
_LONGEST_S = 36_500 * 86_400
_LABEL = f"{By.LABEL}="
_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_Amount = Annotated[str, Field(examples=["0.000346667"], description="in the currency")]


class CostSum(BaseModel):
    """Attempts and what they cost."""

    attempts: int = Field(description="how many were closed; each had an instance")
    unpriced: int = Field(
        description="of how many of them no price was known: they cost nothing here"
    )
    seconds: int = Field(description="that were billed for their instances")
    cost: _Amount

    @classmethod
    def show(cls, one: Sum) -> CostSum:
        """Show a sum."""
        return cls(**_shown(one))


class CostRow(CostSum):
    """The same of one label's value, schedule, job, type or day."""

    name: str | None = Field(
        examples=["mi6"], description="null: the jobs without this label, or of no schedule"
    )


class UnderWay(BaseModel):
    """The attempts whose instances are not known to be gone, at `read_at`."""

    attempts: int
    unpriced: int = Field(description="of how many of them no price is known")
    cost: _Amount = Field(description="so far")
    per_hour: _Amount = Field(description="of those instances that have not been seen to end")


class CostReport(BaseModel):
    """Sums of what was closed from `since` to `until`, whole hours."""

    by: str = Field(examples=["label=team"])
    since: Instant
    until: Instant
    read_at: Instant
    currency: str = CURRENCY
    priced: bool = Field(
        description="whether this API has a price table; without one what is launched now costs "
        "nothing here"
    )
    rows: list[CostRow] = Field(description="the dearest first; days in their order")
    others: CostSum = Field(
        description="what is in the total and in no row: those beyond the limit, and, by job, those "
        "that were deleted by the retention"
    )
    total: CostSum
    under_way: UnderWay = Field(description="not in the total")

    @classmethod
    def show(cls, by: str, report: Report, *, priced: bool) -> CostReport:
        """Show a report; `priced` is whether there is a price table."""
        return cls(
            by=by,
            priced=priced,
            since=report.since,
            until=report.until,
            read_at=report.read_at,
            rows=[CostRow(name=one.name, **_shown(one)) for one in report.rows],
            others=CostSum.show(report.others),
            total=CostSum.show(report.total),
            under_way=_under_way(report.under_way, report.read_at),
        )


def router(settings: Settings, database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the call."""
    routes = APIRouter(tags=["costs"])

    @routes.get(
        "/cost",
        summary="What jobs cost",
        responses=possible(*DENIALS, _BAD),
        dependencies=[
            Depends(authorizer.needs("read")),
            Depends(only_query("by", "since", "since_s", "until", "limit")),
        ],
    )
    def cost(
        by: Annotated[
            str,
            Query(
                description="label=NAME, schedule, job, instance-type, capacity-type or day",
                examples=["label=team"],
            ),
        ] = By.DAY,
        since: Annotated[
            GivenInstant | None, Query(description="an instant; its hour counts whole"), or_absent
        ] = None,
        since_s: Annotated[
            Annotated[int, Field(ge=1, le=_LONGEST_S)] | None,
            Query(description="or so many seconds ago; absent: a week"),
            or_absent,
        ] = None,
        until: Annotated[
            GivenInstant | None,
            Query(description="an instant; its hour counts whole; absent: now"),
            or_absent,
        ] = None,
        limit: Annotated[
            Annotated[int, Field(ge=1, le=PAGE)] | None,
            Query(description="how many rows at most"),
            or_absent,
        ] = None,
    ) -> CostReport:
        """Sums of attempts by the time when EC2 confirmed that their instances were gone.

        Prices are those of each launch. By job only jobs that are not deleted have a row.
        """
        if since is not None and since_s is not None:
            raise Invalid({"since": "give since or since_s, not both"})
        if since is not None and until is not None and since >= until:
            raise Invalid({"until": "is not after since"})
        what, label = what_by(by)
        with database.begin() as tx:
            report = costs.report(
                tx,
                what,
                label=label,
                since=since,
                since_s=since_s or LAST_S,
                until=until,
                limit=limit or SHOWN,
            )
        return CostReport.show(by, report, priced=settings.prices_file is not None)

    return routes


def what_by(by: str) -> tuple[By, str]:
    """What the sums are by, and the label's name.

    Raises:
        Invalid: it is none of what there is.
    """
    label = by.removeprefix(_LABEL)
    if label != by and label:
        return By.LABEL, label
    known = [str(one) for one in By if one is not By.LABEL]
    if by not in known:
        raise Invalid({"by": f"{by!r} is none; use label=NAME, {', '.join(known)}"})
    return By(by), ""


def _shown(one: Sum) -> dict[str, int | str]:
    return {
        "attempts": one.attempts,
        "unpriced": one.unpriced,
        "seconds": one.seconds,
        "cost": dollars(one.cost),
    }


def _under_way(known: Iterable[Attempt], now: datetime) -> UnderWay:
    many, costs_, rate = 0, [], 0
    for one in known:
        many += 1
        costs_.append(one.cost_at(now))
        if one.launch.price and one.billed_until is None:
            rate += one.launch.price.per_hour
    return UnderWay(
        attempts=many,
        unpriced=costs_.count(None),
        cost=dollars(sum(filter(None, costs_))),
        per_hour=dollars(rate),
    )
