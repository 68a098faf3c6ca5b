"""Recurring schedules on a real Postgres: the store, and the scheduler's loop.

What time it is, each test says: to the loop by the function that reads it, to the store by a patch of
the same. The jobs' own times are in the database's past or future all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from atemporal import calendar
from atemporal.broker import Link
from atemporal.errors import Conflict, Invalid, NotFound
from atemporal.model import AttemptRef, Job
from atemporal.model.schedule import LABEL, RecordedFire, Schedule, parse_schedule
from atemporal.recurrence import HORIZON_S, LISTED, PIECE, FireOutcome, FireReason
from atemporal.states import JobState, Outcome
from atemporal.store import attempts, jobs, launches, retention, schedules
from atemporal.store import fires as fire_store
from atemporal.store.database import Database
from services.scheduler.recurring import RecurringLoop
from tests.api import LAUNCH

# A January's day at two o'clock in the morning of the zone, for years to come.
ZONE = "America/Sao_Paulo"
T = datetime(2041, 1, 10, 5, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
HORIZON = timedelta(seconds=HORIZON_S)
RAN, SKIPPED, MISSED = FireOutcome.RAN, FireOutcome.SKIPPED, FireOutcome.MISSED


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE schedules, fires, jobs, attempts, events"))


class Clock:
    """The time that everybody is told."""

    def __init__(self) -> None:
        self.now = T - 3 * HOUR

    def __call__(self, _tx: Connection) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedules, "_now", clock)
    return clock


@pytest.fixture
def loop(database: Database, clock: Clock) -> Iterator[RecurringLoop]:
    made = a_loop(database, clock)
    yield made
    made.reset()


def a_loop(database: Database, clock: Clock, **more: Any) -> RecurringLoop:
    return RecurringLoop(
        database, Link("memory://", name="recurring"), interval_s=1.0, time_of=clock, **more
    )


def run(loop: RecurringLoop) -> None:
    """Tick until there is nothing more to do."""
    while loop.tick() == 0.0:
        pass


def make(database: Database, **fields: Any) -> Schedule:
    given = {"name": "nightly", "cron": "0 2 * * *", "zone": ZONE, "job": {"image": "busybox"}}
    with database.begin() as tx:
        return schedules.create(tx, parse_schedule(given | fields))


def shown(database: Database, name: str = "nightly") -> Schedule:
    with database.begin() as tx:
        return schedules.get(tx, name)


def fires_of(database: Database, name: str = "nightly") -> list[RecordedFire]:
    """What became of its fires, the first first."""
    with database.begin() as tx:
        schedule = schedules.get(tx, name)
        return schedules.latest_fires(tx, schedule, limit=100)[::-1]


def ends(database: Database, name: str = "nightly") -> list[tuple[datetime, str]]:
    return [(one.fire_time, one.reason or one.outcome) for one in fires_of(database, name)]


def job(database: Database, job_id: UUID | None) -> Job:
    assert job_id is not None
    with database.begin() as tx:
        return jobs.get(tx, job_id)


def all_jobs(database: Database) -> list[Job]:
    with database.begin() as tx:
        return [
            jobs.get(tx, one) for one in tx.scalars(text("SELECT id FROM jobs ORDER BY run_at"))
        ]


def finish(database: Database, job_id: UUID | None) -> None:
    """The job ends: how, is all the same here."""
    assert job_id is not None
    with database.begin() as tx:
        jobs.cancel(tx, job_id, actor="test")


def begin(database: Database, job_id: UUID | None, *, running: bool) -> AttemptRef:
    """Bring a job to an attempt whose machine boots, or runs."""
    assert job_id is not None
    ref = AttemptRef(job_id, 1)
    with database.begin() as tx:
        tx.execute(
            text("UPDATE jobs SET state = 'queued', attempt = 1 WHERE id = :id"), {"id": job_id}
        )
        assert launches.begin(tx, ref, LAUNCH, actor="test")
        attempts.launched(tx, ref, f"i-{job_id.hex[:17]}", actor="test")
        if running:
            tx.execute(
                text("UPDATE jobs SET due_at = now(), run_at = now() WHERE id = :id"),
                {"id": job_id},
            )
            attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test")
    assert job(database, job_id).state is (JobState.RUNNING if running else JobState.WARMING)
    return ref


def test_the_job_of_a_fire_is_there_ahead_of_its_time_and_once(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    made = make(database, job={"image": "busybox", "env": {"A": "b"}, "labels": {"team": "x"}})
    assert (made.next_fire_at, made.rules_version) == (T, calendar.rules_version())
    clock.now = T - HORIZON - SECOND
    run(loop)
    assert all_jobs(database) == []
    clock.now = T - HORIZON
    before = REGISTRY.get_sample_value("atemporal_fires_total", {"outcome": "ran"}) or 0
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
    after = REGISTRY.get_sample_value("atemporal_fires_total", {"outcome": "ran"})
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
    """It died before it made any of them, and comes back at five to three."""
    clock.now = T - 16 * MINUTE
    make(database, cron="*/20 * * * *", **policy)
    run(loop)
    with database.begin() as tx:
        tx.execute(text("UPDATE schedules SET next_fire_at = :at"), {"at": T})
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
    return REGISTRY.get_sample_value("atemporal_fires_total", {"outcome": "missed"}) or 0


def test_an_outage_shorter_than_the_horizon_costs_no_fire(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    make(database)
    clock.now = T - HORIZON
    run(loop)
    clock.now = T + 5 * MINUTE
    run(loop)
    assert ends(database) == [(T, "ran")]


def test_a_month_of_minutes_is_bounded_rows_and_a_count(
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


class TestPause:
    @pytest.mark.parametrize("warming", [False, True])
    def test_what_was_made_ahead_is_taken_back_and_made_again(
        self, database: Database, clock: Clock, loop: RecurringLoop, warming: bool
    ) -> None:
        make(database)
        clock.now = T - 10 * MINUTE
        run(loop)
        (fire,) = fires_of(database)
        if warming:
            begin(database, fire.job_id, running=False)
        with database.begin() as tx:
            paused = schedules.pause(tx, "nightly", actor="test")
            again = schedules.pause(tx, "nightly", actor="test")
            assert again.schedule.version == paused.schedule.version == 2
        assert len(paused.ended) == int(warming)
        assert paused.schedule.paused_at == clock.now
        assert fires_of(database) == []
        withdrawn = job(database, fire.job_id)
        assert withdrawn.outcome is Outcome.CANCELLED
        assert withdrawn.spec.key == (
            f"schedule:nightly:2041-01-10T05:00:00.000Z:withdrawn:{withdrawn.id}"
        )
        run(loop)
        assert fires_of(database) == []
        clock.now = T - 8 * MINUTE
        with database.begin() as tx:
            schedules.resume(tx, "nightly")
        run(loop)
        (anew,) = fires_of(database)
        assert (anew.fire_time, anew.job_state) == (T, "scheduled")
        assert anew.job_id != fire.job_id

    def test_a_job_that_has_begun_runs_on(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - SECOND
        run(loop)
        (fire,) = fires_of(database)
        begin(database, fire.job_id, running=True)
        with database.begin() as tx:
            schedules.pause(tx, "nightly", actor="test")
        assert job(database, fire.job_id).state is JobState.RUNNING
        assert ends(database) == [(T, "ran")]
        with database.begin() as tx:
            schedules.resume(tx, "nightly")
        run(loop)
        assert ends(database) == [(T, "ran")]

    def test_the_fires_of_the_pause_are_skipped(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database, catch_up="all")
        clock.now = T - HOUR
        with database.begin() as tx:
            schedules.pause(tx, "nightly", actor="test")
        clock.now = T + 30 * HOUR
        run(loop)
        with database.begin() as tx:
            resumed = schedules.resume(tx, "nightly")
        assert len(resumed.passed_over) == 2
        run(loop)
        assert ends(database) == [(T, FireReason.PAUSED), (T + 24 * HOUR, FireReason.PAUSED)]
        assert shown(database).next_fire_at == T + 48 * HOUR


class TestEdit:
    def edit(self, database: Database, version: int | None = None, **changes: Any) -> Schedule:
        with database.begin() as tx:
            return schedules.edit(tx, "nightly", changes, version=version, actor="t").schedule

    def test_between_the_computing_and_the_fire_the_new_line_counts(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - HORIZON
        changed = self.edit(database, cron="30 2 * * *")
        assert (changed.version, changed.next_fire_at) == (2, T + 30 * MINUTE)
        run(loop)
        clock.now = T + 20 * MINUTE
        run(loop)
        assert ends(database) == [(T + 30 * MINUTE, "ran")]

    def test_a_scheduler_passes_over_a_schedule_that_is_being_changed(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - HORIZON
        with database.begin() as tx:
            schedules.edit(tx, "nightly", {"cron": "30 2 * * *"}, version=1, actor="t")
            run(loop)
            assert fires_of(database) == []
        clock.now = T + 20 * MINUTE
        run(loop)
        assert ends(database) == [(T + 30 * MINUTE, "ran")]

    def test_an_edit_waits_for_a_scheduler_and_takes_back_what_that_made(
        self, database: Database, clock: Clock
    ) -> None:
        make(database)
        clock.now = T - HORIZON
        with ThreadPoolExecutor(1) as pool:
            with database.begin() as tx:
                rows = fire_store.due(tx, clock.now, limit=1)
                edit = pool.submit(self.edit, database, cron="30 2 * * *")
                wait_for_a_lock(database)
                fire_store.decide_due(
                    tx, rows, clock.now, rules=calendar.rules_version(), actor="scheduler"
                )
            edit.result(30)
        assert fires_of(database) == []
        (one,) = all_jobs(database)
        assert one.outcome is Outcome.CANCELLED

    def test_another_job_is_made_in_place_of_what_was_made_ahead(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database, job={"image": "busybox", "env": {"A": "b"}, "machine": {"disk_gb": 20}})
        clock.now = T - HORIZON
        run(loop)
        self.edit(database, job={"image": "alpine", "machine": {"instance_types": ["t3.small"]}})
        run(loop)
        (fire,) = fires_of(database)
        spec = job(database, fire.job_id).spec
        assert spec.image == "docker.io/library/alpine:latest"
        assert spec.env == {"A": "b"}
        assert (spec.machine.disk_gb, spec.machine.instance_types) == (20, ("t3.small",))
        assert len(all_jobs(database)) == 2

    def test_what_the_new_line_names_too_stays_as_it_was_made(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - HORIZON
        run(loop)
        (before,) = fires_of(database)
        self.edit(database, cron="0 2,14 * * *", overlap="skip")
        run(loop)
        assert fires_of(database) == [before]
        assert shown(database).next_fire_at == T + 12 * HOUR

    def test_another_policy_touches_no_job_and_counts_at_once(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database, cron="0 * * * *", overlap="skip")
        clock.now = T - HORIZON
        run(loop)
        assert [at for at, _ in ends(database)][-1:] == [T]
        clock.now = T + HOUR - MINUTE
        run(loop)
        count = len(fires_of(database))
        self.edit(database, overlap="allow")
        run(loop)
        assert len(fires_of(database)) == count + 1

    def test_what_was_due_by_the_old_line_is_not_run_by_the_new_one(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database, catch_up="all")
        clock.now = T + 3 * HOUR
        self.edit(database, cron="0 4 * * *")
        run(loop)
        assert ends(database) == [(T, FireReason.EDITED)]
        assert shown(database).next_fire_at == T + 26 * HOUR

    def test_the_same_again_changes_nothing(self, database: Database, clock: Clock) -> None:
        made = make(database)
        assert self.edit(database, cron="0 2 * * *", job={"image": "busybox"}).version == 1
        assert shown(database).updated_at == made.updated_at

    def test_who_read_an_older_version_is_refused(self, database: Database, clock: Clock) -> None:
        make(database)
        self.edit(database, version=1, cron="0 3 * * *")
        with pytest.raises(Conflict, match="version 2, not 1"):
            self.edit(database, version=1, cron="0 4 * * *")
        assert shown(database).cron == "0 3 * * *"

    def test_a_bad_change_changes_nothing(self, database: Database, clock: Clock) -> None:
        make(database)
        for changes in (
            {"cron": "61 * * * *"},
            {"zone": "Mars"},
            {"name": "other"},
            {"job": {"key": "x"}},
            {"job": 5},
        ):
            with pytest.raises(Invalid):
                self.edit(database, **changes)
        assert shown(database).version == 1


def wait_for_a_lock(database: Database) -> None:
    deadline = time.monotonic() + 30
    query = text("SELECT bool_or(NOT granted) FROM pg_locks")
    while True:
        with database.begin() as tx:
            if tx.scalar(query):
                return
        assert time.monotonic() < deadline, "nobody waited for the lock"
        time.sleep(0.02)


class TestOtherRules:
    """The zone rules change: this process has others than computed the next fire."""

    def stale(self, database: Database, clock: Clock) -> None:
        make(database)
        with database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE schedules SET rules_version = '1999.1', next_fire_at = :at,"
                    " look_at = :look"
                ),
                {"at": T + HOUR, "look": T + HOUR - HORIZON},
            )

    def test_the_next_fire_is_computed_anew_when_a_scheduler_starts(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        self.stale(database, clock)
        run(loop)
        after = shown(database)
        assert (after.next_fire_at, after.rules_version) == (T, calendar.rules_version())
        clock.now = T - HORIZON
        run(loop)
        assert ends(database) == [(T, "ran")]

    def test_a_job_that_was_made_for_a_fire_that_is_none_is_taken_back(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - HORIZON
        run(loop)
        with database.begin() as tx:
            tx.execute(text("UPDATE fires SET fire_time = :at"), {"at": T + 5 * MINUTE})
            tx.execute(text("UPDATE jobs SET key = 'schedule:nightly:other'"))
            tx.execute(text("UPDATE schedules SET rules_version = '1999.1', look_at = now()"))
        run(a_loop(database, clock))
        (fire,) = fires_of(database)
        assert fire.fire_time == T
        assert [one.outcome for one in all_jobs(database)] == [Outcome.CANCELLED, None]

    def test_one_that_can_not_be_read_says_why_and_holds_up_no_other(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        for name in ("bad", "good", "torn"):
            make(database, name=name)
        with database.begin() as tx:
            tx.execute(text("UPDATE schedules SET zone = 'Mars/Base' WHERE name = 'bad'"))
            tx.execute(text("UPDATE schedules SET spec = '{}' WHERE name = 'torn'"))
        clock.now = T - HORIZON
        run(loop)
        assert ends(database, "good") == [(T, "ran")]
        problem = shown(database, "bad").problem
        assert problem is not None
        assert "Mars/Base" in problem
        with database.begin() as tx:
            schedules.edit(tx, "bad", {"zone": ZONE}, version=None, actor="t")
        run(loop)
        assert ends(database, "bad") == [(T, "ran")]
        assert shown(database, "bad").problem is None


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


def test_a_delete_takes_back_what_was_made_ahead_and_the_name_is_free(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    make(database)
    clock.now = T - HORIZON
    run(loop)
    with database.begin() as tx:
        schedules.remove(tx, "nightly", actor="test")
    with pytest.raises(NotFound), database.begin() as tx:
        schedules.get(tx, "nightly")
    assert all_jobs(database)[0].outcome is Outcome.CANCELLED
    make(database)
    run(loop)
    assert ends(database) == [(T, "ran")]
    with pytest.raises(Conflict):
        make(database)


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
