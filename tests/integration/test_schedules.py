"""Recurring schedules on a real Postgres: the store, and the scheduler's loop.

What time it is, each test says: to the loop by the function that reads it, to the store by a patch of
the same. The jobs' own times are in the database's past or future all the same.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from atemporal import calendar
from atemporal.broker import Link
from atemporal.errors import Conflict
from atemporal.lead import LIMIT_S
from atemporal.model.schedule import LABEL
from atemporal.recurrence import LISTED, PIECE, FireReason
from atemporal.states import JobState, Outcome
from atemporal.store import attempts, jobs, retention, schedules
from atemporal.store.database import Database
from services.scheduler.recurring import RecurringLoop
from tests.integration.recurring import (
    HORIZON,
    HOUR,
    MINUTE,
    MISSED,
    RAN,
    SECOND,
    Clock,
    T,
    a_loop,
    all_jobs,
    begin,
    ends,
    finish,
    fires_of,
    job,
    make,
    run,
    shown,
)

pytestmark = pytest.mark.usefixtures("no_schedules")


def test_the_job_of_a_fire_is_there_ahead_of_its_time_and_once(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    made = make(database, job={"image": "busybox", "env": {"A": "b"}, "labels": {"team": "x"}})
    assert (made.next_fire_at, made.rules_version) == (T, calendar.rules_version())
    clock.now = T - HORIZON - SECOND
    run(loop)
    assert all_jobs(database) == []
    clock.now = T - HORIZON
    ran = {"outcome": "ran", "reason": "none"}
    before = REGISTRY.get_sample_value("atemporal_fires_total", ran) or 0
    run(loop)
    run(loop)
    (one,) = all_jobs(database)
    assert (one.run_at, one.due_at, one.spec.time) == (T, T, T)
    assert one.spec.key == "schedule:nightly:2041-01-10T05:00:00.000Z"
    assert one.spec.labels == {"team": "x", LABEL: "nightly"}
    assert one.spec.env == {"A": "b"}
    (fire,) = fires_of(database)
    assert (fire.fire_time, fire.outcome, fire.job_id) == (T, RAN, one.id)
    assert fire.job_state == "scheduled"
    assert shown(database).next_fire_at == T + 24 * HOUR
    after = REGISTRY.get_sample_value("atemporal_fires_total", ran)
    assert after == before + 1


def test_the_loop_sleeps_until_the_next_fire_is_to_be_decided(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    run(loop)
    assert loop.tick() == 1.0
    make(database)
    clock.now = T - HORIZON - 0.25 * SECOND
    assert loop.tick() == 0.25


def test_two_schedulers_at_once_never_make_a_fire_twice(database: Database, clock: Clock) -> None:
    names = [f"s-{number}" for number in range(60)]
    for name in names:
        make(database, name=name, cron="*/5 * * * *")
    clock.now = T
    loops = [a_loop(database, clock) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, loops * 3))
    clock.now = T + 2 * MINUTE
    for one in loops:
        run(one)
    wanted = {T + 5 * minutes * MINUTE for minutes in range(4)}
    for name in names:
        ran = [fire for fire in fires_of(database, name) if fire.fire_time >= T]
        assert {fire.fire_time for fire in ran if fire.outcome is RAN} == wanted
    made = all_jobs(database)
    assert len({one.spec.key for one in made}) == len(made) == 60 * 4


def test_the_database_refuses_a_second_row_for_a_fire(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    made = make(database)
    clock.now = T - MINUTE
    run(loop)
    again = text(
        "INSERT INTO fires (schedule_id, fire_time, outcome, reason, settled)"
        " VALUES (:id, :at, 'skipped', 'overlap', true)"
    )
    with pytest.raises((Conflict, IntegrityError)), database.begin() as tx:
        tx.execute(again, {"id": made.id, "at": T})


@pytest.mark.parametrize(
    ("policy", "ended"),
    [
        ({"catch_up": "skip"}, ["catch_up", "catch_up", "catch_up"]),
        ({"catch_up": "one"}, ["catch_up", "catch_up", "ran"]),
        ({"catch_up": "all"}, ["ran", "ran", "ran"]),
        ({"catch_up": "all", "window_s": 40 * 60}, ["window", "ran", "ran"]),
        ({"catch_up": "all", "start_deadline_s": 600}, ["start_deadline"] * 2 + ["ran"]),
    ],
)
def test_a_scheduler_that_was_away_for_an_hour_over_three_fires(
    database: Database, clock: Clock, loop: RecurringLoop, policy: dict[str, Any], ended: list[str]
) -> None:
    """It died before it made any of them, and comes back three quarters of an hour after the first."""
    clock.now = T - 16 * MINUTE
    make(database, cron="*/20 * * * *", **policy)
    run(loop)
    clock.now = T + 45 * MINUTE
    before = missed_so_far()
    run(loop)
    three, made_ahead = fires_of(database)[:3], fires_of(database)[3:]
    assert [one.fire_time for one in three] == [T, T + 20 * MINUTE, T + 40 * MINUTE]
    assert [one.reason or one.outcome for one in three] == ended
    assert [one.fire_time for one in made_ahead] == [T + HOUR]
    assert missed_so_far() == before + sum(one.outcome is MISSED for one in three)
    # What is caught up on is due at once, by the database that runs it.
    for one in three:
        assert (one.job_id is not None) == (one.outcome is RAN)


def missed_so_far() -> float:
    return sum(
        REGISTRY.get_sample_value("atemporal_fires_total", {"outcome": "missed", "reason": reason})
        or 0
        for reason in (FireReason.CATCH_UP, FireReason.WINDOW)
    )


def test_an_outage_shorter_than_the_horizon_costs_no_fire(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    """It died just before it decided the fire, and is back while the longest lead can still be had."""
    make(database, job={"image": "busybox", "lead": int(LIMIT_S)})
    clock.now = T - HORIZON - SECOND
    run(loop)
    assert fires_of(database) == []
    clock.now = T - HORIZON + 5 * MINUTE
    run(loop)
    assert ends(database) == [(T, "ran")]
    (one,) = all_jobs(database)
    assert one.due_at == T
    assert one.dispatch_at == T - timedelta(seconds=LIMIT_S)
    assert one.dispatch_at >= clock.now


def test_three_days_of_minutes_are_bounded_rows_and_a_count(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    clock.now = T
    make(database, cron="* * * * *")
    clock.now = T + timedelta(days=3)
    run(loop)
    rows = fires_of(database)
    assert len(rows) <= 3 * 24 * 60 // PIECE + 1 + LISTED + 17
    with database.begin() as tx:
        summed = tx.execute(text("SELECT outcome, sum(count) FROM fires GROUP BY 1"))
        counts = {row.outcome: row.sum for row in summed}
    assert counts == {"missed": 3 * 24 * 60 - 2, "ran": 17}


def test_a_host_whose_clock_is_an_hour_ahead_fires_nothing_early(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a time of the test's: by the database's clock, whatever the process' own says."""
    hour_ns = 3_600_000_000_000
    real, real_ns = time.time, time.time_ns
    with database.begin() as tx:
        now: datetime = tx.execute(text("SELECT now()")).scalar_one()
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + hour_ns)
    soon = now + timedelta(minutes=30)
    made = make(database, cron=f"{soon.minute} {soon.hour} * * *", zone="UTC")
    assert made.next_fire_at is not None
    assert now < made.next_fire_at <= soon
    link = Link("memory://", name="recurring")
    loop = RecurringLoop(database, link, interval_s=1.0)
    run(loop)
    assert all_jobs(database) == []
    with database.begin() as tx:
        tx.execute(
            text("UPDATE schedules SET look_at = now(), next_fire_at = now() + interval '1 s'")
        )
    run(loop)
    assert len(all_jobs(database)) == 1


class TestOverlap:
    """The job of the fire at T lives when the next one comes, an hour later."""

    def earlier(
        self, database: Database, clock: Clock, loop: RecurringLoop, overlap: str
    ) -> UUID | None:
        make(database, cron="0 * * * *", overlap=overlap)
        clock.now = T - MINUTE
        with database.begin() as tx:
            tx.execute(text("UPDATE schedules SET next_fire_at = :at, look_at = :at"), {"at": T})
        clock.now = T
        run(loop)
        (fire,) = fires_of(database)
        return fire.job_id

    def test_allowed_it_runs_beside_it(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        first = self.earlier(database, clock, loop, "allow")
        clock.now = T + HOUR
        run(loop)
        assert ends(database) == [(T, "ran"), (T + HOUR, "ran")]
        assert job(database, first).state is JobState.SCHEDULED

    def test_the_later_is_skipped_at_its_time_and_not_before(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        first = self.earlier(database, clock, loop, "skip")
        begin(database, first, running=True)
        clock.now = T + HOUR - SECOND
        run(loop)
        assert ends(database) == [(T, "ran")]
        clock.now = T + HOUR
        run(loop)
        assert ends(database) == [(T, "ran"), (T + HOUR, FireReason.OVERLAP)]
        assert job(database, first).state is JobState.RUNNING

    def test_the_later_is_made_as_soon_as_the_earlier_has_ended(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        first = self.earlier(database, clock, loop, "skip")
        clock.now = T + HOUR - 10 * MINUTE
        run(loop)
        assert ends(database) == [(T, "ran")]
        finish(database, first)
        clock.now += 5 * SECOND
        run(loop)
        assert ends(database) == [(T, "ran"), (T + HOUR, "ran")]

    def test_the_earlier_is_cancelled_at_the_time_of_the_later_and_not_before(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        first = self.earlier(database, clock, loop, "cancel")
        ref = begin(database, first, running=True)
        clock.now = T + HOUR - SECOND
        run(loop)
        assert ends(database) == [(T, "ran"), (T + HOUR, "ran")]
        assert job(database, first).state is JobState.RUNNING
        assert loop.tick() == 1.0
        clock.now = T + HOUR
        run(loop)
        assert job(database, first).outcome is Outcome.CANCELLED
        with database.begin() as tx:
            ended = attempts.get(tx, ref)
        assert ended is not None
        assert ended.reason == "cancelled"
        assert [one.job_state for one in fires_of(database)] == ["cancelled", "scheduled"]

    def test_a_later_one_that_somebody_cancelled_ends_no_earlier_one(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        first = self.earlier(database, clock, loop, "cancel")
        begin(database, first, running=True)
        clock.now = T + HOUR - SECOND
        run(loop)
        finish(database, fires_of(database)[1].job_id)
        clock.now = T + HOUR
        run(loop)
        assert job(database, first).state is JobState.RUNNING
        clock.now = T + 2 * HOUR
        run(loop)
        assert job(database, first).outcome is Outcome.CANCELLED

    def test_one_that_is_retried_by_hand_is_no_earlier_one_from_then_on(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        """Also if no scheduler has looked since it finished."""
        first = self.earlier(database, clock, loop, "skip")
        assert first is not None
        finish(database, first)
        with database.begin() as tx:
            jobs.retry(tx, first, actor="test")
        clock.now = T + HOUR
        run(loop)
        assert ends(database) == [(T, "ran"), (T + HOUR, "ran")]


def test_a_job_that_runs_now_is_no_fire(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    make(database)
    with database.begin() as tx:
        made = schedules.run_now(tx, "nightly", key=None, actor="test")
        keyed = [schedules.run_now(tx, "nightly", key="k", actor="test") for _ in range(2)]
    assert job(database, made.job_id).spec.labels == {LABEL: "nightly"}
    assert [one.created for one in keyed] == [True, False]
    assert fires_of(database) == []
    assert shown(database).next_fire_at == T


def test_a_fire_whose_key_somebody_took_for_another_job_is_skipped(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    made = make(database)
    taken = made.job_at(T).model_copy(update={"image": "docker.io/library/alpine:latest"})
    with database.begin() as tx:
        jobs.submit(tx, [taken], actor="test")
    clock.now = T - HORIZON
    run(loop)
    assert ends(database) == [(T, FireReason.KEY_TAKEN)]


def test_old_fires_are_deleted_and_those_whose_jobs_live_are_not(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    clock.now = datetime(2020, 1, 1, 4, 50, tzinfo=UTC)
    make(database, cron="0 * * * *", catch_up="one")
    run(loop)
    clock.now += 3 * HOUR
    run(loop)
    (first, *_, last) = fires_of(database)
    assert (first.outcome, last.outcome) == (RAN, RAN)
    assert any(one.outcome is MISSED for one in fires_of(database))
    with database.begin() as tx:
        assert retention.delete_old_fires(tx, keep_s=60, limit=10) >= 1
    left = fires_of(database)
    assert {one.job_state for one in left} == {"scheduled"}


def test_the_fires_of_a_paused_schedule_are_deleted_once_their_jobs_have_ended(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    clock.now = datetime(2020, 1, 1, 4, 59, tzinfo=UTC)
    make(database, cron="0 * * * *")
    run(loop)
    clock.now += 2 * MINUTE
    (fire,) = fires_of(database)
    begin(database, fire.job_id, running=True)
    with database.begin() as tx:
        schedules.pause(tx, "nightly", actor="test")
        assert retention.delete_old_fires(tx, keep_s=60, limit=10) == 0
    finish(database, fire.job_id)
    with database.begin() as tx:
        assert retention.delete_old_fires(tx, keep_s=60, limit=10) == 1
    assert fires_of(database) == []
