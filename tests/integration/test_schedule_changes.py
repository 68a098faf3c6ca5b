"""What a pause, an edit, a delete and other zone rules do to the fires of a schedule."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from atemporal import calendar
from atemporal.broker import Link
from atemporal.errors import Conflict, Invalid, NotFound
from atemporal.model import ExitRecord
from atemporal.model.schedule import Schedule
from atemporal.recurrence import FireReason
from atemporal.states import JobState, Outcome, Reason
from atemporal.store import attempts, reschedule, schedules
from atemporal.store import fires as fire_store
from atemporal.store.database import Database
from atemporal.store.schedules import Changed
from services.scheduler.recurring import RULES_AGAIN_S, RecurringLoop
from tests.integration.recurring import (
    HORIZON,
    HOUR,
    MINUTE,
    SECOND,
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
    wait_for,
)

pytestmark = pytest.mark.usefixtures("no_schedules")


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

    def test_edited_meanwhile_the_fires_until_then_are_those_of_the_old_line(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - HOUR
        with database.begin() as tx:
            schedules.pause(tx, "nightly", actor="test")
        clock.now = T + 10 * HOUR
        with database.begin() as tx:
            edited = schedules.edit(tx, "nightly", {"cron": "0 4 * * *"}, version=None, actor="t")
        assert [one.time for one in edited.passed_over] == [T]
        clock.now = T + 30 * HOUR
        with database.begin() as tx:
            schedules.resume(tx, "nightly")
        assert ends(database) == [(T, FireReason.PAUSED), (T + 26 * HOUR, FireReason.PAUSED)]
        assert shown(database).next_fire_at == T + 50 * HOUR


class TestDue:
    """The fire has come, and its job has not begun: it waits for a machine, or its machine boots."""

    def change(self, database: Database, how: str) -> Changed:
        with database.begin() as tx:
            if how == "edit":
                changes = {"cron": "0 9 * * *", "job": {"image": "alpine"}}
                return schedules.edit(tx, "nightly", changes, version=None, actor="t")
            change = schedules.pause if how == "pause" else schedules.remove
            return change(tx, "nightly", actor="test")

    @pytest.mark.parametrize("warming", [False, True])
    @pytest.mark.parametrize("how", ["pause", "remove"])
    def test_a_pause_and_a_delete_cancel_it(
        self, database: Database, clock: Clock, loop: RecurringLoop, how: str, warming: bool
    ) -> None:
        make(database)
        clock.now = T - MINUTE
        run(loop)
        (fire,) = fires_of(database)
        if warming:
            begin(database, fire.job_id, running=False)
        clock.now = T + MINUTE
        assert len(self.change(database, how).ended) == int(warming)
        assert job(database, fire.job_id).outcome is Outcome.CANCELLED
        if how == "pause":
            (after,) = fires_of(database)
            assert (after.fire_time, after.job_id) == (T, fire.job_id)
            assert after.job_state == "cancelled"

    def test_also_one_that_was_given_a_later_time_and_all_that_are_caught_up_on(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database, cron="*/20 * * * *", catch_up="all")
        clock.now = T + HOUR
        run(loop)
        late = [one.job_id for one in fires_of(database) if one.fire_time < T + HOUR]
        assert len(late) >= 3
        assert late[0] is not None
        with database.begin() as tx:
            reschedule.reschedule(tx, late[0], time=T + 24 * HOUR, delay_s=None, actor="test")
        self.change(database, "pause")
        assert {one.outcome for one in all_jobs(database)} == {Outcome.CANCELLED}

    def test_an_edit_leaves_it_as_it_is(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database)
        clock.now = T - MINUTE
        run(loop)
        clock.now = T + MINUTE
        self.change(database, "edit")
        (fire,) = fires_of(database)
        assert (fire.fire_time, fire.job_state) == (T, "scheduled")
        assert job(database, fire.job_id).spec.image == "docker.io/library/busybox:latest"

    def test_one_that_has_begun_and_waits_for_another_attempt_goes_on(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        make(database, job={"image": "busybox", "max_attempts": 2})
        clock.now = T - MINUTE
        run(loop)
        (fire,) = fires_of(database)
        ref = begin(database, fire.job_id, running=True)
        with database.begin() as tx:
            failed = ExitRecord(exit_code=1)
            attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=failed)
        assert job(database, fire.job_id).state is JobState.SCHEDULED
        clock.now = T + MINUTE
        self.change(database, "pause")
        assert job(database, fire.job_id).state is JobState.SCHEDULED


BUSYBOX, NGINX = (f"docker.io/library/{name}:latest" for name in ("busybox", "nginx"))


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

    @pytest.mark.parametrize(
        ("changes", "after"),
        [
            ({"cron": "30 2 * * *"}, ("30 2 * * *", "allow", BUSYBOX)),
            ({"overlap": "skip"}, ("0 2 * * *", "skip", BUSYBOX)),
            ({"job": {"image": "nginx"}}, ("0 2 * * *", "allow", NGINX)),
        ],
    )
    def test_what_an_earlier_release_took_and_nobody_changes_stays(
        self, database: Database, changes: dict[str, Any], after: tuple[str, str, str]
    ) -> None:
        make(database)
        with database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE schedules SET spec = spec ||"
                    """ '{"labels": {"team": "a,b"}, "ports": ["80"]}'"""
                )
            )
        changed = self.edit(database, **changes)
        assert (changed.version, changed.job.labels) == (2, {"team": "a,b"})
        assert changed.job.ports == ("80",)
        assert (changed.cron, changed.overlap, changed.job.image) == after

    def test_what_is_changed_keeps_the_rules(self, database: Database) -> None:
        make(database)
        with database.begin() as tx:
            tx.execute(
                text("""UPDATE schedules SET spec = spec || '{"labels": {"team": "a,b"}}'""")
            )
        with pytest.raises(Invalid, match=r"job\.labels.*','"):
            self.edit(database, job={"labels": {"team": "c,d"}})
        assert self.edit(database, job={"labels": {"team": "c"}}).job.labels == {"team": "c"}

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
                wait_for(database, tx)
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

    def test_a_scheduler_looks_for_other_rules_once_an_hour(
        self, database: Database, clock: Clock
    ) -> None:
        seconds = [0.0]
        link = Link("memory://", name="recurring")
        loop = RecurringLoop(
            database, link, interval_s=1.0, time_of=clock, clock=lambda: seconds[0]
        )
        run(loop)
        self.stale(database, clock)
        seconds[0] = RULES_AGAIN_S - 1
        run(loop)
        assert shown(database).rules_version == "1999.1"
        seconds[0] = RULES_AGAIN_S
        run(loop)
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
