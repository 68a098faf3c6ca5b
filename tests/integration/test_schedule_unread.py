"""Schedules, fires and jobs that this release can not read: what is told, and done all the same."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from atemporal.errors import Invalid, NotFound, Unreadable
from atemporal.lead import LIMIT_S
from atemporal.recurrence import HORIZON_S
from atemporal.states import JobState, Outcome
from atemporal.store import schedules
from atemporal.store.database import Database
from atemporal.store.fires import PROBLEM_S
from services.scheduler.recurring import RecurringLoop
from tests.integration.recurring import (
    HORIZON,
    HOUR,
    MINUTE,
    SECOND,
    ZONE,
    Clock,
    T,
    a_loop,
    all_jobs,
    begin,
    ends,
    fires_of,
    job,
    make,
    run,
    shown,
)

pytestmark = pytest.mark.usefixtures("no_schedules")


def tear(database: Database, name: str, column: str, value: str) -> None:
    """Write what no release of ours would."""
    with database.begin() as tx:
        tx.execute(
            text(f"UPDATE schedules SET {column} = :value WHERE name = :name"),
            {"name": name, "value": value},
        )


def test_it_says_why_and_holds_up_no_other(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    for name in ("bad", "good", "torn"):
        make(database, name=name)
    tear(database, "bad", "zone", "Mars/Base")
    tear(database, "torn", "spec", "{}")
    clock.now = T - HORIZON
    run(loop)
    assert ends(database, "good") == [(T, "ran")]
    for name, why in (("bad", "Mars/Base"), ("torn", "image")):
        with database.begin() as tx:
            problem = schedules.shown(tx, name).problem
            recorded = tx.scalar(
                text("SELECT problem FROM schedules WHERE name = :n"), {"n": name}
            )
        assert problem is not None
        assert why in problem
        assert why in recorded
    with database.begin() as tx:
        schedules.edit(tx, "bad", {"zone": ZONE}, version=None, actor="t")
        schedules.edit(tx, "torn", {"job": {"image": "busybox"}}, version=None, actor="t")
    run(loop)
    for name in ("bad", "torn"):
        assert ends(database, name) == [(T, "ran")]
        assert shown(database, name).problem is None


def test_a_scheduler_that_can_not_read_the_zone_leaves_it_to_one_that_can(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    """It starts beside one whose zone rules have that zone, and looks for other rules first."""
    assert PROBLEM_S < HORIZON_S - LIMIT_S
    make(database)
    tear(database, "nightly", "zone", "Mars/Base")
    tear(database, "nightly", "rules_version", "1999.1")
    clock.now = T - HORIZON
    run(loop)
    again = clock.now + timedelta(seconds=PROBLEM_S)
    # Another one that can not starts, and does not put it off once more.
    clock.now += 10 * SECOND
    run(a_loop(database, clock))
    with database.begin() as tx:
        row = tx.execute(text("SELECT * FROM schedules")).one()
    assert (row.next_fire_at, row.rules_version) == (T, "1999.1")
    assert row.look_at == again
    tear(database, "nightly", "zone", ZONE)
    clock.now = row.look_at
    run(loop)
    assert ends(database) == [(T, "ran")]


def test_it_is_listed_in_its_place_and_ends_no_page_early(
    database: Database, clock: Clock
) -> None:
    for name in ("a", "b", "c"):
        make(database, name=name)
    tear(database, "b", "spec", "{}")
    with database.begin() as tx:
        first = schedules.listing(tx, limit=2)
        second = schedules.listing(tx, limit=2, after="b")
        whole = schedules.listing(tx, limit=3)
    assert ([one.name for one in first.schedules], first.next) == (["a", "b"], "b")
    assert "image" in (first.schedules[1].problem or "")
    assert ([one.name for one in second.schedules], second.next) == (["c"], None)
    assert whole.next is None


def test_it_is_paused_resumed_and_deleted_like_any_other(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    make(database)
    clock.now = T - HORIZON
    run(loop)
    (made,) = all_jobs(database)
    tear(database, "nightly", "spec", "[]")
    with pytest.raises(Unreadable), database.begin() as tx:
        schedules.run_now(tx, "nightly", key=None, actor="t")
    with pytest.raises(Invalid, match="image"), database.begin() as tx:
        schedules.edit(tx, "nightly", {"job": {"timeout_s": 5}}, version=None, actor="t")
    with database.begin() as tx:
        paused = schedules.pause(tx, "nightly", actor="t").schedule
    assert (paused.paused_at, paused.version) == (clock.now, 2)
    assert job(database, made.id).outcome is Outcome.CANCELLED
    with database.begin() as tx:
        assert schedules.resume(tx, "nightly").schedule.paused_at is None
        schedules.remove(tx, "nightly", actor="t")
    with pytest.raises(NotFound), database.begin() as tx:
        schedules.shown(tx, "nightly")


def test_one_job_that_can_not_be_read_keeps_no_other_from_being_withdrawn(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    clock.now = T - 16 * MINUTE
    make(database, cron="*/5 * * * *")
    run(loop)
    first, *others = (one.job_id for one in fires_of(database))
    assert len(others) >= 2
    with database.begin() as tx:
        tx.execute(text("UPDATE jobs SET spec = '{}' WHERE id = :id"), {"id": first})
    with database.begin() as tx:
        schedules.pause(tx, "nightly", actor="t")
    for one in others:
        assert job(database, one).outcome is Outcome.CANCELLED
    assert [one.job_id for one in fires_of(database)] == [first]


def test_an_earlier_job_that_can_not_be_read_does_not_make_its_schedule_stuck(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    make(database, cron="0 * * * *", overlap="cancel")
    clock.now = T - SECOND
    run(loop)
    first = fires_of(database)[-1].job_id
    begin(database, first, running=True)
    with database.begin() as tx:
        tx.execute(text("UPDATE jobs SET spec = '{}' WHERE id = :id"), {"id": first})
    clock.now = T + HOUR
    run(loop)
    assert ends(database)[-1] == (T + HOUR, "ran")
    assert shown(database).problem is None
    with database.begin() as tx:
        state = tx.scalar(text("SELECT state FROM jobs WHERE id = :id"), {"id": first})
    assert state == JobState.RUNNING


def test_what_a_newer_release_wrote_outlives_an_edit(database: Database, clock: Clock) -> None:
    make(database, job={"image": "busybox", "machine": {"disk_gb": 20}})
    with database.begin() as tx:
        tx.execute(
            text(
                "UPDATE schedules SET spec = jsonb_set(spec || '{\"gpu\": 1}',"
                " '{machine,shape}', '\"flat\"')"
            )
        )
    changes = {"job": {"timeout_s": 60, "machine": {"disk_gb": 30}}}
    with database.begin() as tx:
        changed = schedules.edit(tx, "nightly", changes, version=None, actor="t").schedule
        stored = tx.scalar(text("SELECT spec FROM schedules"))
    assert (changed.job.timeout_s, changed.job.machine.disk_gb) == (60, 30)
    assert (stored["gpu"], stored["timeout_s"]) == (1, 60)
    assert (stored["machine"]["shape"], stored["machine"]["disk_gb"]) == ("flat", 30)


def test_a_fire_with_a_reason_that_is_unknown_is_left_out_and_fails_no_look(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    make(database)
    clock.now = T - MINUTE
    run(loop)

    def outcomes(tx: Connection) -> list[str]:
        schedule = schedules.get(tx, "nightly")
        return [str(one.outcome) for one in schedules.latest_fires(tx, schedule, limit=9)]

    with database.begin() as tx:
        tx.execute(text("ALTER TABLE fires DROP CONSTRAINT ck_fires_reason"))
        tx.execute(
            text(
                "INSERT INTO fires (schedule_id, fire_time, outcome, reason, settled)"
                " SELECT id, :at, 'skipped', 'holiday', true FROM schedules"
            ),
            {"at": T - HOUR},
        )
        assert outcomes(tx) == ["ran"]
        tx.rollback()
