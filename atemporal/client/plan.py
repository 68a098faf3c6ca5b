"""The call of the API about what is planned. Amounts are text, or None where a price is not known."""

from __future__ import annotations

from typing import TypedDict, cast

from atemporal.client.transport import Transport


class PlanPeak(TypedDict):
    """The most instances at once, and when that begins."""

    at: str
    instances: int


class PlanHour(TypedDict):
    """An hour: how many are launched in it, and the most at once."""

    since: str
    until: str
    starts: int
    instances: int
    vcpus: int | None
    cost: str | None


class PlanSchedule(TypedDict):
    """The runs of one schedule; `name` None are the jobs of none. `at_most`: a timeout counts."""

    name: str | None
    runs: int
    first_at: str
    longest_s: float
    at_most: bool
    skipped: int
    cost: str | None


class PlanCollision(TypedDict):
    """A time in which more is wanted than a concurrency limit allows."""

    limit: str
    name: str
    most: int
    since: str
    until: str
    wanted: int
    too_many: int


class PlanStuck(TypedDict):
    """A schedule that can not be fired, and why."""

    name: str
    problem: str


class Plan(TypedDict):
    """What is planned from `since` to `until`; `cut` if there is more than was looked at."""

    since: str
    until: str
    cut: bool
    paused: bool
    paused_schedules: list[str]
    runs: int
    under_way: int
    at_most: int
    skipped: int
    peak: PlanPeak
    currency: str
    cost: str | None
    unpriced: list[str]
    unknown_vcpus: list[str]
    hours: list[PlanHour]
    schedules: list[PlanSchedule]
    collisions: list[PlanCollision]
    more_collisions: int
    stuck: list[PlanStuck]


class PlanCalls(Transport):
    """The call about the plan."""

    def plan(self, hours: int = 24) -> Plan:
        """What fires in the next 1 to 168 hours, how much at once, and what it will cost.

        Raises:
            Invalid: the hours are none of these.
        """
        return cast(Plan, self.get(f"/plan?hours={hours}"))
