"""Leads, holds, starts and new times, in a real Postgres: never early, and nothing is lost."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from atemporal.errors import Conflict, NotFound, TooEarly
from atemporal.lead import CLAIM_AHEAD_S, DEFAULT_S, LEAST
from atemporal.model import AttemptRef, ExitRecord, Job, JobSpec, Launch, MachineClock
from atemporal.settings import Settings
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import attempts, events, jobs, launches, leads, starts
from atemporal.store.database import Database, server_time
from atemporal.store.invariants import violations
from atemporal.store.reschedule import reschedule
from services.scheduler.lead import LeadLoop
from tests.claims import claim_due

LAUNCH = Launch(
    image_id="ami-1",
    instance_type="t3.small",
    callback_base="http://api",
    key_id="k1",
    deadline_s=3600,
    hold_s=900,
)
AGREES = MachineClock(synchronised=True, offset_ms=3)


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events"))


def submitted(tx: Connection, **fields: Any) -> UUID:
    (made,) = jobs.submit(tx, [JobSpec(image="nginx", **fields)], actor="test")
    return made.job_id


def begun(tx: Connection, launch: Launch = LAUNCH, **fields: Any) -> AttemptRef:
    """An attempt without an instance, of a job due in a minute unless its fields say otherwise."""
    submitted(tx, **{"delay_s": 60, **fields})
    (ref,) = claim_due(tx, 10, actor="test")
    assert launches.begin(tx, ref, launch, actor="test")
    return ref


def warming(tx: Connection, **fields: Any) -> AttemptRef:
    ref = begun(tx, **fields)
    attempts.launched(tx, ref, f"i-{ref.job_id.hex[-17:]}", actor="test")
    return ref


def ready(tx: Connection, **fields: Any) -> AttemptRef:
    ref = warming(tx, **fields)
    starts.ready(tx, ref, instance_id=None, clock=AGREES, actor="test")
    return ref


def put_at(tx: Connection, ref: AttemptRef, seconds: float) -> None:
    """Put the job's time so many seconds from now, as if it had passed."""
    tx.execute(
        text(
            "UPDATE jobs SET due_at = clock_timestamp() + make_interval(secs => :s),"
            " run_at = clock_timestamp() + make_interval(secs => :s) WHERE id = :id"
        ),
        {"s": seconds, "id": ref.job_id},
    )


def claimed(tx: Connection, ref: AttemptRef, ahead_s: float = CLAIM_AHEAD_S) -> bool:
    return attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test", ahead_s=ahead_s)


def types(tx: Connection, job_id: UUID) -> list[str]:
    return [event.type for event in events.of_job(tx, job_id)]


def row(tx: Connection, job_id: UUID) -> Any:
    return tx.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job_id}).one()


def at(tx: Connection, seconds: float) -> datetime:
    return server_time(tx) + timedelta(seconds=seconds)


class TestLead:
    """When the launch of a job begins."""

    @pytest.mark.parametrize(
        ("fields", "ahead_s", "planned"),
        [
            ({"delay_s": 3600}, DEFAULT_S, True),
            ({"delay_s": 300}, DEFAULT_S, True),
            ({"delay_s": 60}, 60, False),
            ({"delay_s": 3600, "lead": 90}, 90, True),
            ({"delay_s": 3600, "lead": 0}, None, False),
            ({"delay_s": 0}, None, False),
            ({}, None, False),
        ],
    )
    def test_it_is_there_from_the_submit_on(
        self, database: Database, fields: dict[str, Any], ahead_s: float | None, planned: bool
    ) -> None:
        with database.begin() as tx:
            found = row(tx, submitted(tx, **fields))
        ahead = found.dispatch_at and (found.due_at - found.dispatch_at).total_seconds()
        assert ahead == ahead_s
        assert (found.plan_at is not None) is planned
        assert found.due_at == found.run_at or not fields.get("delay_s")

    def test_a_job_is_claimed_when_its_launch_begins_and_says_for_when(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            later = submitted(tx, delay_s=600)
            ref = begun(tx)
            job = jobs.get(tx, ref.job_id)
            assert job.id != later
        (attempt,) = job.attempts
        assert attempt.start_at == job.due_at == job.run_at
        assert attempt.lead_s == DEFAULT_S
        assert attempt.predicted_skew == timedelta(seconds=DEFAULT_S - 60)

    @pytest.mark.parametrize("fields", [{}, {"lead": 0, "delay_s": 0}, {"delay_s": 0}])
    def test_one_that_is_due_at_once_was_not_begun_ahead(
        self, database: Database, fields: dict[str, Any]
    ) -> None:
        with database.begin() as tx:
            ref = begun(tx, **{"delay_s": 0, **fields})
            (attempt,) = jobs.get(tx, ref.job_id).attempts
        assert (attempt.start_at, attempt.start_skew, attempt.predicted_skew) == (None, None, None)

    def test_one_that_failed_ahead_of_its_time_starts_at_that_time_all_the_same(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            ref = warming(tx, backoff_s=10)
            due_at = row(tx, ref.job_id).due_at
            assert attempts.end(tx, ref, Reason.PULL_FAILED, actor="test")
            found = row(tx, ref.job_id)
            assert found.due_at == due_at
            assert server_time(tx) < found.dispatch_at < due_at
            assert found.plan_at is None

    def test_one_that_failed_after_its_time_has_no_lead(self, database: Database) -> None:
        with database.begin() as tx:
            ref = ready(tx, max_attempts=2, backoff_s=10)
            put_at(tx, ref, 0)
            claimed(tx, ref)
            end = ExitRecord(exit_code=1)
            assert attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=end)
            found = row(tx, ref.job_id)
        assert found.dispatch_at is None
        assert found.plan_at is None


class TestPlan:
    """The lead is that of recent machines, when the launch is near."""

    @pytest.fixture
    def loop(self, database: Database) -> LeadLoop:
        return LeadLoop(database, Settings(), clock=lambda: 0.0)

    def took(self, tx: Connection, seconds: float, many: int = LEAST) -> None:
        """So many machines that were ready so long after their launch was due."""
        for _ in range(many):
            ref = ready(tx, delay_s=0)
            tx.execute(
                text(
                    "UPDATE attempts SET dispatch_at = ready_at - make_interval(secs => :s),"
                    " created_at = ready_at - make_interval(secs => :s),"
                    " launched_at = ready_at - make_interval(secs => :s) WHERE job_id = :id"
                ),
                {"s": seconds, "id": ref.job_id},
            )

    @pytest.mark.parametrize(("seconds", "lead_s"), [(40, 47), (200, 215), (5000, 600)])
    def test_what_machines_took_decides(
        self, database: Database, loop: LeadLoop, seconds: float, lead_s: float
    ) -> None:
        with database.begin() as tx:
            self.took(tx, seconds)
            job_id = submitted(tx, delay_s=900)
            tx.execute(text("UPDATE jobs SET plan_at = now() WHERE id = :id"), {"id": job_id})
        loop.tick()
        with database.begin() as tx:
            found = row(tx, job_id)
        assert found.lead_s == pytest.approx(lead_s)
        assert (found.due_at - found.dispatch_at).total_seconds() == pytest.approx(lead_s, abs=1)
        if lead_s < 500:
            # Once more, before the launch.
            assert found.plan_at < found.dispatch_at

    def test_nothing_known_keeps_the_default(self, database: Database, loop: LeadLoop) -> None:
        with database.begin() as tx:
            self.took(tx, 300, LEAST - 1)
            job_id = submitted(tx, delay_s=599)
        loop.tick()
        with database.begin() as tx:
            found = row(tx, job_id)
        assert (found.due_at - found.dispatch_at).total_seconds() == DEFAULT_S

    @pytest.mark.parametrize("lead", [1, 90, 600])
    def test_a_lead_that_was_asked_for_stays_and_the_estimate_is_beside_it(
        self, database: Database, loop: LeadLoop, lead: int
    ) -> None:
        with database.begin() as tx:
            self.took(tx, 40)
            job_id = submitted(tx, delay_s=700, lead=lead)
            tx.execute(text("UPDATE jobs SET plan_at = now() WHERE id = :id"), {"id": job_id})
        loop.tick()
        with database.begin() as tx:
            found = row(tx, job_id)
        assert (found.due_at - found.dispatch_at).total_seconds() == pytest.approx(lead, abs=1)
        assert (found.lead_s, found.plan_at) == (pytest.approx(47), None)

    def test_what_moved_on_meanwhile_is_left_alone(
        self, database: Database, loop: LeadLoop
    ) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, delay_s=599)
            jobs.cancel(tx, job_id, actor="test")
            before = row(tx, job_id)
        loop.tick()
        with database.begin() as tx:
            assert row(tx, job_id) == before

    def test_two_schedulers_plan_each_job_once(self, database: Database) -> None:
        with database.begin() as tx:
            for _ in range(4):
                submitted(tx, delay_s=599)
        with database.begin() as one, database.begin() as other:
            mine = leads.unplanned(one, limit=3)
            theirs = leads.unplanned(other, limit=10)
        assert len({job.job_id for job in (*mine, *theirs)}) == 4
        assert (len(mine), len(theirs)) == (3, 1)


class TestHold:
    """A machine that is ready learns how long it has to hold, and is never granted too early."""

    @pytest.mark.parametrize(
        ("in_s", "least_ms", "most_ms"),
        [(60, 5000, 5000), (4, 0, 2001), (1, 0, 0), (0, 0, 0), (-60, 0, 0)],
    )
    def test_it_is_told_when_to_ask_again(
        self, database: Database, in_s: float, least_ms: int, most_ms: int
    ) -> None:
        with database.begin() as tx:
            ref = ready(tx)
            put_at(tx, ref, in_s)
            hold = starts.hold(tx, ref)
        assert least_ms <= hold.hold_ms <= most_ms
        assert hold.start_in_ms <= max(0, in_s * 1000 + 1)
        assert hold.start_in_ms == max(0, hold.time_ms - hold.now_ms)

    def test_ready_is_written_once_with_its_clock(self, database: Database) -> None:
        with database.begin() as tx:
            ref = warming(tx)
            first = starts.ready(tx, ref, instance_id=None, clock=AGREES, actor="t")
            again = starts.ready(tx, ref, instance_id=None, clock=AGREES, actor="t")
            differs = MachineClock(synchronised=True, offset_ms=-7000)
            starts.ready(tx, ref, instance_id=None, clock=differs, actor="t")
            (attempt,) = jobs.get(tx, ref.job_id).attempts
            assert types(tx, ref.job_id).count("attempt.ready") == 1
        assert (first, again) == (True, False)
        assert attempt.state is AttemptState.READY
        assert (attempt.clock_synchronised, attempt.clock_offset_ms) == (True, -7000)

    def test_one_that_is_ready_before_its_instance_is_known_gets_it_written_down(
        self, database: Database
    ) -> None:
        with database.begin() as tx:
            ref = begun(tx)
            assert starts.ready(tx, ref, instance_id="i-0a", clock=AGREES, actor="t")
            assert not attempts.launched(tx, ref, "i-0a", actor="t")
            (attempt,) = jobs.get(tx, ref.job_id).attempts
        assert (attempt.state, attempt.instance_id) == (AttemptState.READY, "i-0a")

    @pytest.mark.parametrize(
        ("in_s", "ahead_s", "granted"),
        [
            (60, CLAIM_AHEAD_S, False),
            (CLAIM_AHEAD_S + 1, CLAIM_AHEAD_S, False),
            (CLAIM_AHEAD_S - 1, CLAIM_AHEAD_S, True),
            (1, 0, False),
            (0, 0, True),
            (-60, 0, True),
        ],
    )
    def test_none_is_granted_before_its_time_and_an_older_agent_not_a_second_ahead(
        self, database: Database, in_s: float, ahead_s: float, granted: bool
    ) -> None:
        with database.begin() as tx:
            ref = warming(tx)
            put_at(tx, ref, in_s)
            if granted:
                assert claimed(tx, ref, ahead_s)
            else:
                with pytest.raises(TooEarly, match="ask again in"):
                    claimed(tx, ref, ahead_s)
            state = jobs.get(tx, ref.job_id).state
        assert state is (JobState.RUNNING if granted else JobState.WARMING)

    @pytest.mark.parametrize("state", ["warming", "ready"])
    def test_none_is_told_to_hold_after_a_cancel(self, database: Database, state: str) -> None:
        with database.begin() as tx:
            ref = {"warming": warming, "ready": ready}[state](tx)
            assert jobs.cancel(tx, ref.job_id, actor="t") == ref
            with pytest.raises(Conflict):
                starts.ready(tx, ref, instance_id=None, clock=AGREES, actor="t")
            with pytest.raises(Conflict):
                claimed(tx, ref)

    def test_another_machine_is_refused(self, database: Database) -> None:
        with database.begin() as tx:
            ref = ready(tx)
            with pytest.raises(Conflict, match="belongs to instance"):
                starts.ready(tx, ref, instance_id="i-0fe", clock=AGREES, actor="t")


class TestStarted:
    """The start is written down once, by the clock that counts."""

    @pytest.mark.parametrize(
        ("clock", "shift_s"),
        [
            (AGREES, 0.0),
            (MachineClock(synchronised=True, offset_ms=-90_000), 90.0),
            (MachineClock(synchronised=False, offset_ms=5_000), -5.0),
            (MachineClock(), 0.0),
        ],
    )
    def test_what_it_was_late(
        self, database: Database, clock: MachineClock, shift_s: float
    ) -> None:
        with database.begin() as tx:
            ref = warming(tx)
            starts.ready(tx, ref, instance_id=None, clock=clock, actor="t")
            put_at(tx, ref, 0)
            claimed(tx, ref)
            (attempt,) = jobs.get(tx, ref.job_id).attempts
            assert attempt.start_at is not None
            reported = attempt.start_at + timedelta(seconds=0.125 - shift_s)
            start = starts.started(tx, ref, reported, actor="t")
            assert start is not None
            assert start.skew_s == pytest.approx(0.125)
            assert starts.started(tx, ref, reported, actor="t") is None
            (attempt,) = jobs.get(tx, ref.job_id).attempts
            assert types(tx, ref.job_id)[-1] == "attempt.started"
        assert attempt.start_skew == timedelta(seconds=0.125)

    def test_none_starts_that_was_not_granted(self, database: Database) -> None:
        with database.begin() as tx:
            ref = ready(tx)
            assert starts.started(tx, ref, server_time(tx), actor="t") is None

    def test_nothing_is_written_of_one_that_is_closed(self, database: Database) -> None:
        with database.begin() as tx:
            ref = ready(tx)
            put_at(tx, ref, 0)
            claimed(tx, ref)
            attempts.end(tx, ref, Reason.INSTANCE_LOST, actor="t")
            attempts.close(tx, ref, actor="t")
            assert starts.started(tx, ref, server_time(tx), actor="t") is None


def state_of(tx: Connection, job_id: UUID) -> tuple[JobState, AttemptState | None]:
    job: Job = jobs.get(tx, job_id)
    return job.state, job.attempts[-1].state if job.attempts else None


class TestReschedule:
    """Another time, in every phase."""

    def retimed(self, tx: Connection, job_id: UUID, seconds: float) -> Any:
        return reschedule(tx, job_id, time=at(tx, seconds), delay_s=None, actor="op")

    @pytest.mark.parametrize("seconds", [-60, 30, 600, 86_400])
    def test_one_that_waits_gets_a_new_plan(self, database: Database, seconds: float) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, delay_s=7200)
            assert self.retimed(tx, job_id, seconds).changed
            found, fresh = row(tx, job_id), row(tx, submitted(tx, time=at(tx, seconds)))
            for name in ("run_at", "due_at", "dispatch_at", "lead_s", "plan_at"):
                assert getattr(found, name) == getattr(fresh, name), name
            assert types(tx, job_id) == ["job.scheduled", "job.rescheduled"]

    def test_the_same_time_again_changes_nothing(self, database: Database) -> None:
        with database.begin() as tx:
            job_id, wanted = submitted(tx, delay_s=7200), at(tx, 600)
            for changed in (True, False, False):
                done = reschedule(tx, job_id, time=wanted, delay_s=None, actor="op")
                assert done.changed is changed
            assert types(tx, job_id).count("job.rescheduled") == 1

    def test_so_many_seconds_from_now(self, database: Database) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, delay_s=7200)
            reschedule(tx, job_id, time=None, delay_s=90, actor="op")
            assert row(tx, job_id).run_at == at(tx, 90)

    @pytest.mark.parametrize(
        ("seconds", "state"), [(3600, "scheduled"), (61, "queued"), (-5, "queued")]
    )
    def test_one_that_is_queued_goes_back_if_that_is_worth_it(
        self, database: Database, seconds: float, state: str
    ) -> None:
        with database.begin() as tx:
            job_id = submitted(tx, delay_s=60, max_attempts=1, infra_retries=0)
            (ref,) = claim_due(tx, 1, actor="t")
            assert self.retimed(tx, job_id, seconds) == (True, None)
            assert row(tx, job_id).state == state
            if state == "scheduled":
                assert not launches.begin(tx, ref, LAUNCH, actor="t"), "a message that comes late"
                tx.execute(text("UPDATE jobs SET dispatch_at = now() - interval '1 s'"))
                (ref,) = claim_due(tx, 1, actor="t")
            assert launches.begin(tx, ref, LAUNCH, actor="t")
            assert violations(tx) == []

    @pytest.mark.parametrize("phase", [begun, warming, ready])
    @pytest.mark.parametrize("seconds", [-5, 10, 120, 800])
    def test_a_machine_that_can_hold_so_long_holds(
        self, database: Database, phase: Any, seconds: float
    ) -> None:
        with database.begin() as tx:
            ref = phase(tx)
            before = state_of(tx, ref.job_id)
            assert self.retimed(tx, ref.job_id, seconds) == (True, None)
            assert state_of(tx, ref.job_id) == before
            job = jobs.get(tx, ref.job_id)
            assert job.run_at == at(tx, seconds)
            assert job.attempts[-1].start_at == job.due_at == max(job.run_at, at(tx, 0))
            hold = starts.hold(tx, ref)
            assert hold.start_in_ms <= max(0, seconds * 1000)
            if seconds > CLAIM_AHEAD_S:
                with pytest.raises(TooEarly):
                    claimed(tx, ref)
            else:
                assert claimed(tx, ref)

    @pytest.mark.parametrize("phase", [begun, warming, ready])
    @pytest.mark.parametrize(
        ("seconds", "launch"),
        [(901, LAUNCH), (86_400, LAUNCH), (90, LAUNCH.model_copy(update={"hold_s": 0}))],
    )
    def test_one_that_can_not_is_ended_at_no_cost_and_the_job_starts_then(
        self, database: Database, phase: Any, seconds: float, launch: Launch
    ) -> None:
        with database.begin() as tx:
            ref = phase(tx, launch=launch, max_attempts=1, infra_retries=0)
            assert self.retimed(tx, ref.job_id, seconds) == (True, ref)
            job = jobs.get(tx, ref.job_id)
            assert (job.state, job.run_at) == (JobState.SCHEDULED, at(tx, seconds))
            assert job.attempts[-1].reason is Reason.RESCHEDULED
            with pytest.raises(Conflict):
                claimed(tx, ref)
            tx.execute(text("UPDATE jobs SET dispatch_at = now() - interval '1 s'"))
            (again,) = claim_due(tx, 1, actor="t")
            assert launches.begin(tx, again, LAUNCH, actor="t")
            put_at(tx, again, 0)
            claimed(tx, again)
            end = ExitRecord(exit_code=0)
            attempts.end(tx, again, Reason.COMPLETED, actor="t", exit_record=end)
            assert jobs.get(tx, ref.job_id).outcome is Outcome.SUCCEEDED
            assert [one.invariant for one in violations(tx)] == []

    @pytest.mark.parametrize("finished", [False, True])
    def test_one_that_was_granted_or_has_finished_keeps_its_time(
        self, database: Database, finished: bool
    ) -> None:
        with database.begin() as tx:
            ref = ready(tx)
            put_at(tx, ref, 0)
            claimed(tx, ref)
            if finished:
                jobs.cancel(tx, ref.job_id, actor="t")
            before = row(tx, ref.job_id)
            with pytest.raises(Conflict, match="keeps its time"):
                self.retimed(tx, ref.job_id, 600)
            assert row(tx, ref.job_id) == before

    def test_one_that_is_not_there(self, database: Database) -> None:
        with database.begin() as tx, pytest.raises(NotFound):
            self.retimed(tx, UUID(int=7), 600)
