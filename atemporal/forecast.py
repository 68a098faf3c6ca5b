"""The forecast: what is planned for a time, hour by hour, at its peak, and against the limits.

Promise: pure. It says what is wanted, as if no limit held anything back: each run takes its instance
from its launch to its expected end. A time is half-open: a run that ends when another begins does not
meet it.
Mechanism: a run's expected length is the median of its schedule's latest runs; where there is none, its
timeout counts, and the run is `at_most` so long. Both are bounded by the timeout. Whether a fire is
skipped, or cuts the run before it short, follows from the schedule's overlap and these lengths; a
length that is only an upper bound skips nothing.
Failure: where a price or the vCPUs of a type are not known the sums that need them are None. Attempts
that fail and are tried again are not foreseen.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final, NamedTuple

from atemporal.billing import Price, billed_s
from atemporal.concurrency import VCPUS, Rules
from atemporal.recurrence import Next, Overlap

MOST: Final = 10_000
"""So many runs one forecast looks at: the first ones."""
MOST_SPANS: Final = 100
"""So many spans of collisions it lists: the first ones."""
MOST_HOURS: Final = 168
HOUR: Final = timedelta(hours=1)


class Length(NamedTuple):
    """How long a run's container is expected to run, in seconds; or how long at most."""

    seconds: float
    at_most: bool


@dataclass(frozen=True)
class Run:
    """A run that is planned, or under way: from its launch over its container's start to its end.

    `vcpus` and `price` are None where they are not known. `overlap` is that of its schedule's fire.
    """

    launch_at: datetime
    start_at: datetime
    end_at: datetime
    instance_type: str
    schedule: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    at_most: bool = False
    under_way: bool = False
    overlap: Overlap = Overlap.ALLOW
    vcpus: int | None = None
    price: Price | None = None

    @property
    def cost(self) -> int | None:
        """What its instance costs, in billionths of a dollar; None where no price is known."""
        if self.price is None:
            return None
        return self.price.cost(billed_s(self.launch_at, self.end_at))


class Level(NamedTuple):
    """How much is wanted from an instant on."""

    at: datetime
    wanted: int


@dataclass(frozen=True)
class Bucket:
    """The runs of one hour, or what is left of it: which are launched in it, and the most at once."""

    since: datetime
    until: datetime
    starts: int
    instances: int
    vcpus: int | None
    cost: int | None


class Collision(NamedTuple):
    """A time in which more is wanted under a limit than it allows; `name` is what is counted."""

    limit: str
    name: str
    most: int
    since: datetime
    until: datetime
    wanted: int

    @property
    def too_many(self) -> int:
        """By how much it is too much at the worst moment."""
        return self.wanted - self.most


@dataclass(frozen=True)
class ScheduleForecast:
    """The runs of one schedule; of None those of no schedule."""

    schedule: str | None
    runs: int
    first_at: datetime
    longest_s: float
    at_most: bool
    skipped: int
    cost: int | None


@dataclass(frozen=True)
class Forecast:
    """What is planned from `since` to `until`; costs are those of what is launched in that time."""

    since: datetime
    until: datetime
    runs: int
    under_way: int
    at_most: int
    skipped: int
    peak: Level
    cost: int | None
    unpriced: Sequence[str]
    unknown_vcpus: Sequence[str]
    hours: Sequence[Bucket]
    schedules: Sequence[ScheduleForecast]
    collisions: Sequence[Collision]
    more_collisions: int


def length(latest_s: Sequence[float], timeout_s: float) -> Length:
    """How long a run takes by its schedule's latest runs; without any at most its timeout."""
    if not latest_s:
        return Length(timeout_s, at_most=True)
    return Length(min(max(0.0, median(latest_s)), timeout_s), at_most=False)


def fires(
    lines: Mapping[str, tuple[Next, datetime]], until: datetime
) -> Iterator[tuple[datetime, str]]:
    """The fires of schedules by name, each from its next one on, before `until`, in their order."""
    return heapq.merge(*(_fires(name, *line, until) for name, line in lines.items()))


def _fires(
    name: str, following: Next, first: datetime, until: datetime
) -> Iterator[tuple[datetime, str]]:
    at: datetime | None = first
    while at is not None and at < until:
        yield at, name
        at = following(at)


def foresee(runs: Iterable[Run], rules: Rules, since: datetime, until: datetime) -> Forecast:
    """Foresee a time, `since` before `until`; runs that touch it count, whatever their order."""
    ordered = sorted(runs, key=lambda run: run.start_at)
    kept, skipped = _overlapped(ordered)
    begun = [run for run in kept if not run.under_way]
    touching = [run for run in kept if run.launch_at < until and run.end_at > since]
    curve = levels([(run.launch_at, run.end_at, 1) for run in touching], since, until)
    collisions = list(_collisions(touching, rules, since, until))
    return Forecast(
        since,
        until,
        runs=len(begun),
        under_way=len(kept) - len(begun),
        at_most=sum(run.at_most for run in begun),
        skipped=sum(skipped.values()),
        peak=max(curve, key=lambda level: level.wanted),
        cost=_cost(begun),
        unpriced=sorted({run.instance_type for run in begun if run.price is None}),
        unknown_vcpus=sorted({run.instance_type for run in touching if run.vcpus is None}),
        hours=_hours(touching, begun, curve, since, until),
        schedules=_by_schedule(begun, skipped),
        collisions=collisions[:MOST_SPANS],
        more_collisions=max(0, len(collisions) - MOST_SPANS),
    )


def levels(
    spans: Iterable[tuple[datetime, datetime, int]], since: datetime, until: datetime
) -> list[Level]:
    """How much is wanted at once, from `since` on with each change before `until`."""
    changes: dict[datetime, int] = defaultdict(int)
    changes[since] = 0
    for begin, end, amount in spans:
        begin, end = max(begin, since), min(end, until)
        if begin < end:
            changes[begin] += amount
            changes[end] -= amount
    found: list[Level] = []
    wanted = 0
    for at in sorted(changes):
        wanted += changes[at]
        if at < until:
            found.append(Level(at, wanted))
    return found


def _overlapped(runs: Sequence[Run]) -> tuple[list[Run], dict[str, int]]:
    """The runs as the overlap of their schedules leaves them, and how many fires that skips."""
    kept: list[Run] = []
    last: dict[str, int] = {}
    skipped: dict[str, int] = defaultdict(int)
    for run in runs:
        if run.schedule is not None:
            before = last.get(run.schedule)
            alive = before is not None and kept[before].end_at > run.start_at
            if before is not None and alive and run.overlap is Overlap.CANCEL:
                kept[before] = replace(kept[before], end_at=run.start_at)
            skips = alive and run.overlap is Overlap.SKIP
            if before is not None and skips and not kept[before].at_most:
                skipped[run.schedule] += 1
                continue
            last[run.schedule] = len(kept)
        kept.append(run)
    return kept, skipped


def _cost(runs: Iterable[Run]) -> int | None:
    costs = [run.cost for run in runs]
    known = [one for one in costs if one is not None]
    return sum(known) if len(known) == len(costs) else None


def _hours(
    touching: Sequence[Run],
    begun: Sequence[Run],
    instances: Sequence[Level],
    since: datetime,
    until: datetime,
) -> list[Bucket]:
    unknown = [run for run in touching if run.vcpus is None]
    vcpus = levels([(one.launch_at, one.end_at, one.vcpus or 0) for one in touching], since, until)
    by_hour: dict[datetime, list[Run]] = defaultdict(list)
    for run in begun:
        by_hour[_hour_of(max(run.launch_at, since))].append(run)
    found = []
    at = since
    while at < until:
        end = min(_hour_of(at) + HOUR, until)
        these = by_hour[_hour_of(at)]
        dark = any(run.launch_at < end and run.end_at > at for run in unknown)
        found.append((at, end, these, dark))
        at = end
    most_instances = _most([(at, end) for at, end, *_ in found], instances)
    most_vcpus = _most([(at, end) for at, end, *_ in found], vcpus)
    return [
        Bucket(at, end, len(these), many, None if dark else size, _cost(these))
        for (at, end, these, dark), many, size in zip(
            found, most_instances, most_vcpus, strict=True
        )
    ]


def _most(buckets: Sequence[tuple[datetime, datetime]], curve: Sequence[Level]) -> list[int]:
    """The highest level in each of these times, which follow each other as the levels do."""
    found, place, current = [], 0, 0
    for since, until in buckets:
        if place < len(curve) and curve[place].at == since:
            current = curve[place].wanted
        most = current
        while place < len(curve) and curve[place].at < until:
            current = curve[place].wanted
            most = max(most, current)
            place += 1
        found.append(most)
    return found


def _hour_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _by_schedule(runs: Sequence[Run], skipped: Mapping[str, int]) -> list[ScheduleForecast]:
    by_name: dict[str | None, list[Run]] = defaultdict(list)
    for run in runs:
        by_name[run.schedule].append(run)
    found = [
        ScheduleForecast(
            name,
            runs=len(these),
            first_at=these[0].start_at,
            longest_s=max((run.end_at - run.start_at).total_seconds() for run in these),
            at_most=any(run.at_most for run in these),
            skipped=skipped.get(name, 0) if name is not None else 0,
            cost=_cost(these),
        )
        for name, these in by_name.items()
    ]
    return sorted(found, key=lambda one: (one.first_at, one.schedule or ""))


def _collisions(
    runs: Sequence[Run], rules: Rules, since: datetime, until: datetime
) -> Iterator[Collision]:
    """The times in which a limit is passed, the first ones first."""
    spans: dict[str, list[tuple[datetime, datetime, int]]] = defaultdict(list)
    for run in runs:
        for name in rules.counted(run.labels):
            amount = (run.vcpus or 0) if name == VCPUS else 1
            spans[name].append((run.launch_at, run.end_at, amount))
    found: list[Collision] = []
    for name, of_it in spans.items():
        rule, most = rules.rule_for(name), rules.most(name)
        if rule is not None and most is not None:
            found += _above(rule, name, most, levels(of_it, since, until), until)
    yield from sorted(found, key=lambda one: (one.since, one.limit, one.name))


def _above(
    rule: str, name: str, most: int, curve: Sequence[Level], until: datetime
) -> Iterator[Collision]:
    begin: datetime | None = None
    worst = 0
    for at, wanted in (*curve, Level(until, 0)):
        if wanted > most:
            begin = begin or at
            worst = max(worst, wanted)
        elif begin is not None:
            yield Collision(rule, name, most, begin, at, worst)
            begin, worst = None, 0
