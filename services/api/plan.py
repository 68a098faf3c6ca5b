"""What is planned, for clients: what fires in the next hours, how much at once, and what it will cost.

Promise: it changes nothing. It looks at the first ten thousand runs, and the two thousand schedules that
fire first; where there are more, it ends earlier than was asked for, and says so. The lengths of runs
are estimates (`atemporal.forecast`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from atemporal.billing import CURRENCY, dollars
from atemporal.concurrency import VCPUS
from atemporal.forecast import (
    MOST,
    MOST_HOURS,
    Forecast,
    Run,
    ScheduleForecast,
    fires,
    foresee,
    length,
)
from atemporal.job_view import Instant
from atemporal.lead import DEFAULT_S
from atemporal.prices import Prices
from atemporal.recurrence import Overlap
from atemporal.settings import Settings
from atemporal.store import concurrency_limits, pauses, planned
from atemporal.store.database import Database, server_time
from atemporal.store.planned import Latest, PlannedJob
from atemporal.store.rows import Transaction
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import only_query, or_absent

HOURS = 24
SCHEDULES = 2_000
"""So many schedules are looked at: the most urgent ones; up to the time when others may fire."""
_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_Cost = Annotated[
    str | None,
    Field(examples=["0.0208"], description="in the currency; null: a price is not known"),
]


class PlanPeak(BaseModel):
    """The most instances at once, and when that begins."""

    at: Instant
    instances: int


class PlanHour(BaseModel):
    """An hour, or what is in the time of its first and last."""

    since: Instant
    until: Instant
    starts: int = Field(description="how many are launched in it")
    instances: int = Field(description="the most at once")
    vcpus: int | None = Field(description="the most at once; null: not known of each type")
    cost: _Cost


class PlanSchedule(BaseModel):
    """The runs of one schedule."""

    name: str | None = Field(description="null: the jobs of no schedule")
    runs: int
    first_at: Instant
    longest_s: float = Field(description="how long the longest run is expected to take")
    at_most: bool = Field(description="whether a timeout counts, for want of finished runs")
    skipped: int = Field(description="fires that its overlap is expected to skip")
    cost: _Cost

    @classmethod
    def show(cls, one: ScheduleForecast) -> PlanSchedule:
        """Show one."""
        return cls(
            name=one.schedule,
            runs=one.runs,
            first_at=one.first_at,
            longest_s=one.longest_s,
            at_most=one.at_most,
            skipped=one.skipped,
            cost=_dollars(one.cost),
        )


class PlanCollision(BaseModel):
    """A time in which more is wanted than a concurrency limit allows: some will wait."""

    limit: str = Field(examples=["team=*"])
    name: str = Field(description="the limit's, with the label's value in the place of *")
    most: int
    since: Instant
    until: Instant
    wanted: int = Field(description="at the worst moment")
    too_many: int


class PlanStuck(BaseModel):
    """A schedule that can not be fired."""

    name: str
    problem: str


class Plan(BaseModel):
    """What is planned from `since` to `until`."""

    since: Instant
    until: Instant
    cut: bool = Field(
        description="whether more is planned than is looked at; then `until` may be earlier than "
        "what was asked for"
    )
    paused: bool = Field(
        description="whether the installation is: nothing is dispatched until then"
    )
    paused_schedules: list[str] = Field(description="which fire nothing until they are resumed")
    runs: int = Field(description="that are launched in the time")
    under_way: int = Field(description="that run already")
    at_most: int = Field(description="of how many runs a timeout counts as length")
    skipped: int = Field(description="fires that the overlap of a schedule is expected to skip")
    peak: PlanPeak
    currency: str = CURRENCY
    cost: _Cost
    unpriced: list[str] = Field(description="the instance types of which no price is known")
    unknown_vcpus: list[str] = Field(description="those of which the vCPUs are not known")
    hours: list[PlanHour]
    schedules: list[PlanSchedule]
    collisions: list[PlanCollision]
    more_collisions: int = Field(description="how many more there are that are not listed")
    stuck: list[PlanStuck]


def router(
    settings: Settings, database: Database, authorizer: Authorizer, prices: Prices
) -> APIRouter:
    """Build the call."""
    routes = APIRouter(tags=["plan"])

    @routes.get(
        "/plan",
        summary="What is planned for the next hours",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(authorizer.needs("read")), Depends(only_query("hours"))],
    )
    def plan(
        hours: Annotated[
            Annotated[int, Field(ge=1, le=MOST_HOURS)] | None,
            Query(description="how many; absent: 24"),
            or_absent,
        ] = None,
    ) -> Plan:
        """Jobs with a time, fires of schedules, and what is under way, as if no limit held them back.

        A run takes as long as the median of its schedule's last ten; where there is none, its timeout
        counts. A cost is that of the first offering of each run, with the disk that it asks for.
        """
        with database.begin() as tx:
            return _read(tx, settings.instance_type, prices, timedelta(hours=hours or HOURS))

    return routes


class _Reading:
    """Makes runs of what was read."""

    def __init__(self, tx: Transaction, instance_type: str, prices: Prices, now: datetime) -> None:
        self._instance_type, self._prices, self._now = instance_type, prices, now
        self._vcpus = planned.vcpus(tx)
        self.latest: dict[str, Latest] = {}

    def of_job(self, job: PlannedJob) -> Run:
        """The run of a job that waits."""
        launch = max(job.launch_at, self._now)
        return self._run(job, launch, launch + max(timedelta(), job.due_at - job.launch_at))

    def of_attempt(self, job: PlannedJob) -> Run:
        """The run that is under way; one that took longer than usual may take its whole timeout."""
        run = self._run(job, job.launch_at, job.started_at or max(job.due_at, self._now))
        timeout = timedelta(seconds=job.timeout_s)
        if job.exited_at is not None:
            return _ended(run, self._now, at_most=False)
        if run.end_at <= self._now:
            return _ended(run, max(self._now, run.start_at + timeout), at_most=True)
        return run

    def of_fire(self, job: PlannedJob, overlap: Overlap) -> Run:
        """The run of a fire whose job is not made yet."""
        return self._run(job, max(job.launch_at, self._now), job.due_at, overlap=overlap)

    def _run(
        self, job: PlannedJob, launch: datetime, start: datetime, overlap: Overlap = Overlap.ALLOW
    ) -> Run:
        known = self.latest.get(job.schedule or "")
        takes = length(known.ran_s if known else (), job.timeout_s)
        given = (job.instance_type,) if job.instance_type else job.instance_types
        types = given or (self._instance_type,)
        sizes = [self._vcpus.get(one) for one in types]
        kept = [one for one in sizes if one is not None]
        spot: Literal["spot", "on-demand"] = (
            "spot" if job.capacity_type.startswith("spot") else "on-demand"
        )
        return Run(
            launch_at=launch,
            start_at=max(start, launch),
            end_at=max(start, launch) + timedelta(seconds=takes.seconds),
            instance_type=types[0],
            schedule=job.schedule,
            labels=job.labels,
            at_most=takes.at_most,
            under_way=job.instance_type is not None,
            overlap=overlap,
            vcpus=max(kept) if len(kept) == len(sizes) else None,
            price=self._prices.of(types[0], spot, gb=job.disk_gb),
        )


def _ended(run: Run, end: datetime, *, at_most: bool) -> Run:
    return Run(**{**run.__dict__, "end_at": end, "at_most": at_most})


def _read(tx: Transaction, instance_type: str, prices: Prices, time: timedelta) -> Plan:
    now = server_time(tx)
    until = now + time
    # The schedules first: a fire whose job is made in between is in both, and known by its key.
    found = planned.schedules(tx, until=until, limit=SCHEDULES)
    jobs = planned.waiting(tx, until=until, limit=MOST + 1)
    held = planned.held(tx, limit=MOST)
    begun = planned.under_way(tx, limit=MOST)
    cut = MOST in (len(held), len(begun))
    active = found.active
    if found.left_from is not None:
        cut, until = True, max(now + timedelta(seconds=1), min(until, found.left_from))
    if len(jobs) > MOST:
        cut, until = True, max(now + timedelta(seconds=1), min(until, jobs[-1].launch_at))
    reading = _Reading(tx, instance_type, prices, now)
    names = [one.name for one in active]
    names += [job.schedule for job in (*jobs, *begun) if job.schedule]
    reading.latest = planned.latest(tx, list(dict.fromkeys(names))[: 2 * SCHEDULES])
    runs = [reading.of_attempt(job) for job in begun]
    runs += [reading.of_job(job) for job in (*jobs, *held) if job.due_at < until]
    made = {job.key for job in (*jobs, *held, *begun)}
    by_name = {one.name: one for one in active}
    lines = {
        one.name: (one.line.next_after, one.next_fire_at) for one in active if one.next_fire_at
    }
    many = 0
    for at, name in fires(lines, until):
        schedule = by_name[name]
        if many == MOST:
            cut, until = True, max(at, now + timedelta(seconds=1))
            break
        many += 1
        spec = schedule.job_at(at)
        if spec.key in made or at < now:
            continue
        known = reading.latest.get(name)
        lead = spec.lead if spec.lead != "auto" else known.lead_s if known else DEFAULT_S
        machine = spec.machine
        job = PlannedJob(
            id=schedule.id,
            key=spec.key,
            launch_at=at - timedelta(seconds=lead),
            due_at=at,
            timeout_s=spec.timeout_s,
            labels=spec.labels,
            instance_types=machine.instance_types,
            capacity_type=machine.capacity_type,
            disk_gb=machine.disk_gb or 0,
        )
        runs.append(reading.of_fire(job, schedule.overlap))
    runs = [run for run in runs if run.start_at < until]
    rules = concurrency_limits.rules(tx)
    shown = foresee(runs, rules, now, until)
    return _shown(
        shown,
        cut=cut,
        stuck=[PlanStuck(name=name, problem=why) for name, why in sorted(found.stuck.items())],
        paused=pauses.current(tx) is not None,
        paused_schedules=planned.paused(tx, limit=MOST),
        unknown_vcpus=list(shown.unknown_vcpus) if VCPUS in rules else [],
    )


def _shown(
    one: Forecast,
    *,
    cut: bool,
    stuck: list[PlanStuck],
    paused: bool,
    paused_schedules: list[str],
    unknown_vcpus: list[str],
) -> Plan:
    return Plan(
        since=one.since,
        until=one.until,
        cut=cut,
        paused=paused,
        paused_schedules=paused_schedules,
        runs=one.runs,
        under_way=one.under_way,
        at_most=one.at_most,
        skipped=one.skipped,
        peak=PlanPeak(at=one.peak.at, instances=one.peak.wanted),
        cost=_dollars(one.cost),
        unpriced=list(one.unpriced),
        unknown_vcpus=unknown_vcpus,
        hours=[
            PlanHour(
                since=hour.since,
                until=hour.until,
                starts=hour.starts,
                instances=hour.instances,
                vcpus=hour.vcpus,
                cost=_dollars(hour.cost),
            )
            for hour in one.hours
        ],
        schedules=[PlanSchedule.show(each) for each in one.schedules],
        collisions=[
            PlanCollision(**each._asdict(), too_many=each.too_many) for each in one.collisions
        ],
        more_collisions=one.more_collisions,
        stuck=stuck,
    )


def _dollars(nano: int | None) -> str | None:
    return None if nano is None else dollars(nano)
