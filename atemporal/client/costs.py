"""The call of the API about what jobs cost. Amounts are text, exact to the last digit."""

from __future__ import annotations

from typing import TypedDict, cast
from urllib.parse import urlencode

from atemporal.client.transport import Transport


class CostSum(TypedDict):
    """Attempts that were closed, and what they cost; `unpriced` of them had no price."""

    attempts: int
    unpriced: int
    seconds: int
    cost: str


class CostRow(CostSum):
    """The same of one label's value, schedule, job, type or day; None: those without."""

    name: str | None


class UnderWay(TypedDict):
    """Attempts whose instances are not known to be gone: what they cost so far, and in an hour."""

    attempts: int
    unpriced: int
    cost: str
    per_hour: str


class CostReport(TypedDict):
    """Sums from `since` to `until`, whole hours; `others` is in the total and in no row.

    Not `priced`: there is no price table, and what is launched now costs nothing here.
    """

    by: str
    since: str
    until: str
    read_at: str
    currency: str
    priced: bool
    rows: list[CostRow]
    others: CostSum
    total: CostSum
    under_way: UnderWay


class CostCalls(Transport):
    """The call about costs."""

    def cost(
        self,
        by: str,
        *,
        since: str | None = None,
        since_s: int | None = None,
        until: str | None = None,
        limit: int = 100,
    ) -> CostReport:
        """What attempts cost that ended in a time: from an instant on, or from so many seconds ago.

        `by` is label=NAME, schedule, job, instance-type, capacity-type or day. Instants are text.

        Raises:
            Invalid: it is none of these.
        """
        given = {"by": by, "since": since, "since_s": since_s, "until": until, "limit": limit}
        query = urlencode({name: one for name, one in given.items() if one is not None})
        return cast(CostReport, self.get(f"/cost?{query}"))
