"""What becomes of a recurring schedule's fires, decided without calendar, clock and database."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from atemporal.lead import LIMIT_S
from atemporal.recurrence import (
    GRACE_S,
    HORIZON_S,
    JOBS,
    LISTED,
    PIECE,
    CatchUp,
    Decision,
    Fire,
    FireOutcome,
    FireReason,
    Next,
    Overlap,
    Rules,
    decide,
    look_at,
    passed_over,
)

T = datetime(2026, 3, 1, 2, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
HORIZON, GRACE = timedelta(seconds=HORIZON_S), timedelta(seconds=GRACE_S)


def every(step: timedelta, *, until: datetime | None = None) -> Next:
    """A calendar that fires at T and at each step before and after it."""

    def following(instant: datetime) -> datetime | None:
        at = T + ((instant - T) // step + 1) * step
        return at if until is None or at <= until else None

    return following


def reasons(decision: Decision) -> list[tuple[timedelta, FireReason | None]]:
    return [(fire.time - T, fire.reason) for fire in decision.fires]


def test_a_job_is_made_ahead_by_more_than_the_longest_lead() -> None:
    assert HORIZON_S > LIMIT_S
    early = decide(every(HOUR), T, T - HORIZON - SECOND, Rules())
    assert early == Decision((), T, T - HORIZON)
    now = decide(every(HOUR), T, T - HORIZON, Rules())
    assert now == Decision((Fire(T),), T + HOUR, T + HOUR - HORIZON)
    assert now.fires[0].outcome is FireOutcome.RAN


def test_fires_that_are_near_each_other_are_all_made_ahead() -> None:
    decision = decide(every(MINUTE), T, T, Rules())
    assert [fire.time for fire in decision.fires] == [T + n * MINUTE for n in range(16)]
    assert decision.next_fire_at == T + 16 * MINUTE


def test_a_fire_that_was_decided_is_passed_over() -> None:
    decision = decide(every(MINUTE), T, T, Rules(), made={T, T + 2 * MINUTE})
    assert T not in {fire.time for fire in decision.fires}
    assert len(decision.fires) == 14


def test_a_schedule_without_another_fire_is_not_looked_at_again() -> None:
    decision = decide(every(HOUR, until=T), T, T, Rules())
    assert decision == Decision((Fire(T),), None, None)
    assert decide(every(HOUR), None, T, Rules()) == Decision((), None, None)
    assert look_at(None) is None


# Three fires came while no scheduler worked: two and a half, one and a half, and half an hour ago.
AWAY = T + 2 * HOUR + 30 * MINUTE
MISSED, OLD = FireReason.CATCH_UP, FireReason.WINDOW


@pytest.mark.parametrize(
    ("rules", "ends"),
    [
        (Rules(CatchUp.SKIP), [MISSED, MISSED, MISSED]),
        (Rules(CatchUp.ONE), [MISSED, MISSED, None]),
        (Rules(CatchUp.ALL), [None, None, None]),
        (Rules(CatchUp.ALL, window_s=2 * 3600), [OLD, None, None]),
        (Rules(CatchUp.ONE, window_s=600), [MISSED, MISSED, OLD]),
        (
            Rules(CatchUp.ALL, start_deadline_s=2 * 3600),
            [FireReason.START_DEADLINE, None, None],
        ),
        (
            Rules(CatchUp.ALL, overlap=Overlap.SKIP),
            [None, FireReason.OVERLAP, FireReason.OVERLAP],
        ),
    ],
)
def test_what_is_caught_up_on_after_an_outage(rules: Rules, ends: list[FireReason | None]) -> None:
    decision = decide(every(HOUR), T, AWAY, rules)
    assert [reason for _, reason in reasons(decision)] == ends
    assert decision.next_fire_at == T + 3 * HOUR


def test_what_is_missed_and_what_is_skipped() -> None:
    missed = {reason for reason in FireReason if reason.outcome is FireOutcome.MISSED}
    assert missed == {FireReason.CATCH_UP, FireReason.WINDOW}


def test_a_fire_that_is_decided_a_little_late_is_run_whatever_the_catch_up() -> None:
    assert reasons(decide(every(HOUR), T, T + GRACE, Rules())) == [(timedelta(), None)]
    assert reasons(decide(every(HOUR), T, T + GRACE + SECOND, Rules())) == [(timedelta(), MISSED)]
    strict = Rules(start_deadline_s=10)
    assert reasons(decide(every(HOUR), T, T + GRACE, strict)) == [
        (timedelta(), FireReason.START_DEADLINE)
    ]


class TestOverlap:
    """The fires at T and an hour later; the job of an earlier one lives."""

    EARLIER = (T - HOUR,)

    @pytest.mark.parametrize("overlap", [Overlap.ALLOW, Overlap.CANCEL])
    def test_beside_it_or_in_its_place_a_job_is_made_ahead(self, overlap: Overlap) -> None:
        rules = Rules(overlap=overlap)
        decision = decide(every(HOUR), T, T - HORIZON, rules, alive=self.EARLIER)
        assert decision.fires == (Fire(T),)

    def test_to_be_skipped_it_waits_until_its_time(self) -> None:
        rules = Rules(overlap=Overlap.SKIP)
        ahead = decide(every(HOUR), T, T - HORIZON, rules, alive=self.EARLIER)
        assert ahead == Decision((), T, T - HORIZON + 5 * SECOND)
        near = decide(every(HOUR), T, T - SECOND, rules, alive=self.EARLIER)
        assert near == Decision((), T, T)
        at = decide(every(HOUR), T, T, rules, alive=self.EARLIER)
        assert at.fires == (Fire(T, FireReason.OVERLAP),)
        assert at.next_fire_at == T + HOUR

    def test_as_soon_as_the_earlier_one_has_ended_its_job_is_made(self) -> None:
        rules = Rules(overlap=Overlap.SKIP)
        assert decide(every(HOUR), T, T - SECOND, rules).fires == (Fire(T),)

    def test_a_later_job_is_no_earlier_one(self) -> None:
        rules = Rules(overlap=Overlap.SKIP)
        decision = decide(every(HOUR), T, T - SECOND, rules, alive={T + HOUR}, made={T + HOUR})
        assert decision.fires == (Fire(T),)

    def test_the_job_of_one_fire_makes_the_next_wait(self) -> None:
        decision = decide(every(MINUTE), T, T, Rules(overlap=Overlap.SKIP))
        assert decision.fires == (Fire(T),)
        assert decision.next_fire_at == T + MINUTE
        assert decision.look_at == T + 5 * SECOND


def test_a_month_of_minutes_is_decided_in_bounded_pieces_and_counted() -> None:
    now, at = T + timedelta(days=30), T
    # The fires of this and the last minute are no late ones, and fifteen are made ahead.
    on_time = 2 + 15
    counted: Counter[FireReason | None] = Counter()
    pieces = 0
    while True:
        decision = decide(every(MINUTE), at, now, Rules(CatchUp.ONE))
        assert len(decision.fires) <= LISTED + 1 + 1 + on_time
        for fire in decision.fires:
            counted[fire.reason] += fire.count
            assert (fire.until is None) == (fire.count == 1)
        pieces += 1
        if decision.look_at is None or decision.look_at > now:
            break
        at = decision.next_fire_at or now
    late = 30 * 24 * 60 - 1
    assert counted[MISSED] == late - 1
    assert counted[None] == 1 + on_time
    assert pieces == (late + on_time) // PIECE + 1


def test_no_more_jobs_are_made_at_once_than_bounded() -> None:
    now = T + timedelta(days=1)
    decision = decide(every(MINUTE), T, now, Rules(CatchUp.ALL))
    assert len(decision.fires) == JOBS
    assert decision.look_at == T + JOBS * MINUTE - HORIZON


def test_what_is_passed_over_is_bounded_and_says_why() -> None:
    few = passed_over(every(HOUR), T, T + 2 * HOUR, FireReason.PAUSED, made={T + HOUR})
    assert few == (Fire(T, FireReason.PAUSED), Fire(T + 2 * HOUR, FireReason.PAUSED))
    many = passed_over(every(MINUTE), T, T + timedelta(days=400), FireReason.PAUSED)
    assert sum(fire.count for fire in many) == PIECE
    assert len(many) == LISTED + 1
    assert passed_over(every(HOUR), None, T, FireReason.PAUSED) == ()
