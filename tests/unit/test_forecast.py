"""The forecast: overlaps, boundaries, limits, costs; by hand-made runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atemporal.billing import Price, amount
from atemporal.calendar import CronLine
from atemporal.concurrency import Rules
from atemporal.forecast import MOST_SPANS, Forecast, Length, Run, fires, foresee, length, levels
from atemporal.recurrence import Overlap

NOW = datetime(2030, 1, 1, 10, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PRICED = Price(amount("3.6"))


def run(begin: float, end: float, **more: Any) -> Run:
    """A run between two minutes from now on."""
    at = NOW + begin * MINUTE
    fields = {"instance_type": "t3.small", "vcpus": 2, "price": PRICED, **more}
    return Run(**{"launch_at": at, "start_at": at, "end_at": NOW + end * MINUTE, **fields})


def foreseen(*runs: Run, hours: int = 3, **limits: int) -> Forecast:
    return foresee(runs, Rules(limits), NOW, NOW + hours * HOUR)


def test_nothing_planned_is_nothing() -> None:
    found = foreseen()
    assert (found.runs, found.peak.wanted, found.cost) == (0, 0, 0)
    assert [bucket.instances for bucket in found.hours] == [0, 0, 0, 0]


def test_hours_begin_with_what_is_left_of_this_one_and_end_with_the_time() -> None:
    hours = foreseen().hours
    assert (hours[0].since, hours[0].until) == (NOW, NOW + 30 * MINUTE)
    assert (hours[-1].since, hours[-1].until) == (NOW + 150 * MINUTE, NOW + 180 * MINUTE)


def test_runs_at_once_are_counted_over_the_boundary_of_an_hour() -> None:
    found = foreseen(run(0, 40), run(10, 35), run(35, 50))
    assert [(one.starts, one.instances, one.vcpus) for one in found.hours] == [
        (2, 2, 4),
        (1, 2, 4),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert found.peak == (NOW + 10 * MINUTE, 2)


def test_one_that_ends_when_another_begins_does_not_meet_it() -> None:
    assert foreseen(run(0, 10), run(10, 20)).peak.wanted == 1
    # An hour begins with what is there then, not with what just ended.
    assert foreseen(run(0, 30)).hours[1].instances == 0


def test_one_of_no_length_starts_and_holds_nothing() -> None:
    found = foreseen(run(5, 5), jobs=0)
    assert (found.runs, found.hours[0].starts) == (1, 1)
    assert (found.peak.wanted, found.collisions) == (0, [])
    assert found.cost == PRICED.cost(60)


def test_what_is_under_way_counts_at_once_and_costs_nothing_new() -> None:
    found = foreseen(run(-60, 20, under_way=True), run(10, 40))
    assert (found.runs, found.under_way, found.peak.wanted) == (1, 1, 2)
    assert found.cost == PRICED.cost(30 * 60)


def test_a_limit_is_passed_for_a_time_and_by_how_many() -> None:
    three = [run(begin, begin + 20) for begin in (0, 10, 15)]
    (one,) = foreseen(*three, instances=1).collisions
    assert (one.limit, one.since, one.until) == ("instances", NOW + 10 * MINUTE, NOW + 30 * MINUTE)
    assert (one.most, one.wanted, one.too_many) == (1, 3, 2)


def test_as_much_as_a_limit_allows_is_no_collision() -> None:
    assert foreseen(run(0, 10), run(5, 20), jobs=2).collisions == []


def test_a_limit_on_vcpus_counts_sizes_and_passes_over_what_is_not_known() -> None:
    found = foreseen(run(0, 10, vcpus=8), run(5, 20, vcpus=None), vcpus=6)
    (one,) = found.collisions
    assert (one.name, one.wanted, found.unknown_vcpus) == ("vcpus", 8, ["t3.small"])
    assert found.hours[0].vcpus is None


def test_labels_are_counted_by_value_and_by_their_own_limit_before_the_others() -> None:
    teams = [run(0, 10, labels={"team": team}) for team in ("a", "a", "b", "b", "c")]
    found = foreseen(*teams, **{"team=*": 1, "team=b": 5})
    assert [(one.limit, one.name, one.too_many) for one in found.collisions] == [
        ("team=*", "team=a", 1)
    ]


def test_a_collision_that_lasts_ends_with_the_time() -> None:
    (one,) = foreseen(run(0, 9999), jobs=0).collisions
    assert one.until == NOW + 3 * HOUR


def test_of_many_collisions_the_first_ones_are_listed_and_the_others_counted() -> None:
    many = [run(n, n + 0.5) for n in range(MOST_SPANS + 7)]
    found = foreseen(*many, jobs=0)
    assert (len(found.collisions), found.more_collisions) == (MOST_SPANS, 7)


def test_a_type_without_a_price_makes_the_sums_unknown_that_it_is_in() -> None:
    found = foreseen(run(0, 10), run(40, 50, price=None, instance_type="x9.huge"))
    assert (found.cost, found.unpriced) == (None, ["x9.huge"])
    assert [one.cost for one in found.hours] == [PRICED.cost(600), None, 0, 0]


@pytest.mark.parametrize(
    ("overlap", "runs", "skipped", "peak"),
    [(Overlap.ALLOW, 3, 0, 2), (Overlap.SKIP, 2, 1, 1), (Overlap.CANCEL, 3, 0, 1)],
)
def test_the_overlap_of_a_schedule_decides(
    overlap: Overlap, runs: int, skipped: int, peak: int
) -> None:
    three = [run(at, at + 15, schedule="s", overlap=overlap) for at in (0, 10, 20)]
    found = foreseen(*three)
    assert (found.runs, found.skipped, found.peak.wanted) == (runs, skipped, peak)
    assert found.schedules[0].skipped == skipped


def test_a_length_that_is_only_an_upper_bound_skips_nothing() -> None:
    bound = [run(at, at + 99, schedule="s", overlap=Overlap.SKIP, at_most=True) for at in (0, 9)]
    found = foreseen(*bound)
    assert (found.runs, found.skipped, found.at_most) == (2, 0, 2)


def test_a_run_takes_what_the_latest_took_within_its_timeout() -> None:
    assert length([], 900) == Length(900, at_most=True)
    assert length([10, 500, 20], 900) == Length(20, at_most=False)
    assert length([10, 20], 900) == Length(15, at_most=False)
    assert length([1000], 900) == Length(900, at_most=False)


@pytest.mark.parametrize(
    ("day", "many"),
    [("2030-03-30T23:00Z", 23), ("2030-10-26T22:00Z", 25), ("2030-06-01T22:00Z", 24)],
)
def test_a_day_of_a_zone_has_as_many_hours_as_its_clock_shows(day: str, many: int) -> None:
    line = CronLine.parse("0 * * * *", "Europe/Berlin")
    midnight = CronLine.parse("0 0 * * *", "Europe/Berlin")
    since = datetime.fromisoformat(day)
    until = midnight.next_after(since)
    assert until is not None
    assert len(list(fires({"hourly": (line.next_after, since)}, until))) == many


def test_fires_of_several_schedules_come_in_their_order_and_end_before_the_time() -> None:
    lines = {
        name: (CronLine.parse(cron, "UTC").next_after, NOW)
        for name, cron in (("b", "*/30 * * * *"), ("a", "*/20 * * * *"))
    }
    found = [(int((at - NOW) / MINUTE), name) for at, name in fires(lines, NOW + HOUR)]
    assert found == [(0, "a"), (0, "b"), (10, "a"), (30, "a"), (30, "b"), (50, "a")]


def test_levels_change_where_something_begins_or_ends() -> None:
    spans = [(NOW - HOUR, NOW + MINUTE, 2), (NOW + MINUTE, NOW + HOUR, 1)]
    assert levels(spans, NOW, NOW + HOUR) == [(NOW, 2), (NOW + MINUTE, 1)]
