"""Start deadlines: what has not started in time ends, wherever it is, and is never started after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection, text

from atemporal.broker import Link
from atemporal.errors import Conflict
from atemporal.messages import REAP, JobCancel, decode
from atemporal.model import AttemptRef, ExitRecord, Job, MachineClock, parse_spec
from atemporal.model.log import LogChunk
from atemporal.recurrence import FireReason
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import (
    attempts,
    concurrency_limits,
    jobs,
    launches,
    logs,
    schedules,
    start_deadlines,
    starts,
)
from atemporal.store.database import Database, server_time
from atemporal.store.reschedule import reschedule
from services.scheduler.recurring import RecurringLoop
from services.scheduler.start_deadlines import StartDeadlineLoop
from tests.backlogs import seeing_all
from tests.claims import claim_due
from tests.integration.recurring import (
    HORIZON,
    HOUR,
    MINUTE,
    Clock,
    T,
    fires_of,
    make,
    run,
    wait_for,
)
from tests.integration.recurring import job as job_of
from tests.invariants import assert_invariants
from tests.launches import LAUNCH

REASON = Reason.START_DEADLINE


@pytest.fixture(autouse=True)
def empty(database: Database) -> Iterator[None]:
    yield
    assert_invariants(database)
    with database.begin() as tx:
        tables = (
            "jobs, attempts, events, schedules, fires, concurrency_limits, limit_changes, slots"
        )
        tx.execute(text(f"TRUNCATE {tables}"))


@pytest.fixture
def ender(database: Database) -> Iterator[StartDeadlineLoop]:
    made = StartDeadlineLoop(database, Link("memory://", name="deadlines"), interval_s=1.0)
    yield made
    made.reset()


def submitted(database: Database, **fields: Any) -> UUID:
    spec = parse_spec({"image": "busybox", "start_deadline_s": 600, **fields})
    with database.begin() as tx:
        return jobs.submit_one(tx, spec, actor="test").job_id


def later(database: Database, seconds: float = 601) -> None:
    """So much time goes by for all jobs."""
    shift = f"interval '{seconds} s'"
    with database.begin() as tx:
        tx.execute(
            text(
                f"UPDATE jobs SET run_at = run_at - {shift}, due_at = due_at - {shift},"
                f" start_by = start_by - {shift}"
            )
        )
        tx.execute(text(f"UPDATE attempts SET running_at = running_at - {shift}"))


def found(database: Database, job_id: UUID) -> Job:
    with database.begin() as tx:
        return jobs.get(tx, job_id)


def scheduled(_database: Database, _job: UUID) -> None:
    """As it was submitted."""


def queued(database: Database, _job: UUID) -> None:
    with database.begin() as tx:
        assert len(claim_due(tx, 1, actor="test")) == 1


def launching(database: Database, job_id: UUID) -> None:
    queued(database, job_id)
    with database.begin() as tx:
        assert launches.begin(tx, AttemptRef(job_id, 1), LAUNCH, actor="test")


def warming(database: Database, job_id: UUID) -> None:
    launching(database, job_id)
    with database.begin() as tx:
        attempts.launched(tx, AttemptRef(job_id, 1), f"i-{job_id.hex[:17]}", actor="test")


def ready(database: Database, job_id: UUID) -> None:
    warming(database, job_id)
    with database.begin() as tx:
        clock = MachineClock()
        assert starts.ready(tx, AttemptRef(job_id, 1), instance_id=None, clock=clock, actor="test")


def claim(tx: Connection, job_id: UUID, number: int = 1) -> bool:
    ref = AttemptRef(job_id, number)
    return attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="machine")


def limited(database: Database, _job: UUID) -> None:
    """Put aside for a limit."""
    with database.begin() as tx:
        concurrency_limits.put(tx, "jobs", 1, actor="ann", instance_type="t3.small")
    submitted(database, priority=1, start_deadline_s=None)
    backlog = seeing_all()
    for _ in range(3):
        with database.begin() as tx:
            levels = backlog.survey(tx)
            backlog.claim(tx, levels, actor="test", limit=10, ahead_s=0.0)


@pytest.mark.parametrize("phase", [scheduled, limited, queued, launching, warming, ready])
def test_what_has_not_started_in_time_ends_wherever_it_is(
    database: Database, ender: StartDeadlineLoop, phase: Any
) -> None:
    job_id = submitted(database)
    phase(database, job_id)
    ender.tick()
    before = found(database, job_id)
    assert before.state is not JobState.FINISHED, "its deadline has not come"
    later(database)
    ender.tick()
    job = found(database, job_id)
    assert (job.state, job.outcome, job.reason) == (
        JobState.FINISHED,
        Outcome.CANCELLED,
        REASON,
    )
    assert [one.reason for one in job.attempts] == [REASON] * len(before.attempts)
    with database.begin() as tx, pytest.raises(Conflict):
        claim(tx, job_id)


def test_the_reaper_hears_of_it_and_it_is_counted(database: Database, memory_url: str) -> None:
    link = Link(memory_url, name="deadlines")
    loop = StartDeadlineLoop(database, link, interval_s=1.0)
    counted = "atemporal_start_deadlines_missed_total"
    before = REGISTRY.get_sample_value(counted) or 0
    job_id = submitted(database)
    warming(database, job_id)
    submitted(database)
    later(database)
    loop.tick()
    assert REGISTRY.get_sample_value(counted) == before + 2
    link.connect()
    (delivery,) = link.receive(REAP, limit=10)
    assert decode(REAP, delivery.body) == JobCancel.of(AttemptRef(job_id, 1))
    loop.reset()


def test_the_loop_sleeps_until_the_next_deadline(
    database: Database, ender: StartDeadlineLoop
) -> None:
    assert ender.tick() == 1.0
    job_id = submitted(database)
    assert ender.tick() == 1.0
    with database.begin() as tx:
        tx.execute(text("UPDATE jobs SET start_by = now() + interval '0.6 s'"))
    assert 0.1 <= ender.tick() <= 0.6
    assert found(database, job_id).state is JobState.SCHEDULED


def test_one_without_a_deadline_waits_on(database: Database, ender: StartDeadlineLoop) -> None:
    job_id = submitted(database, start_deadline_s=None)
    later(database, 10_000_000)
    ender.tick()
    job = found(database, job_id)
    # None at all: what has one is in an index of its own.
    assert (job.state, job.start_by) == (JobState.SCHEDULED, None)
    with database.begin() as tx:
        reschedule(tx, job_id, time=None, delay_s=7200, actor="op")
    assert found(database, job_id).start_by is None
    with database.begin() as tx:
        jobs.cancel(tx, job_id, actor="op")
        jobs.retry(tx, job_id, actor="op")
    assert found(database, job_id).start_by is None


def test_many_jobs_at_once_have_theirs_too(database: Database) -> None:
    fields = ({"image": "busybox"}, {"image": "busybox", "start_deadline_s": 60})
    with database.begin() as tx:
        made = jobs.submit(tx, [parse_spec(one) for one in fields] * 100, actor="test")
    assert [found(database, one.job_id).start_by is None for one in made[:2]] == [True, False]


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "9999-01-01T00:00:00Z"])
def test_a_deadline_at_the_end_of_time_can_be_read(database: Database, time: str) -> None:
    job = found(database, submitted(database, time=time, start_deadline_s=365 * 86_400))
    assert job.start_by is not None
    assert job.start_by >= job.run_at


class TestClaim:
    """No container starts after the deadline, whoever has swept."""

    def test_a_claim_after_the_deadline_is_refused_though_nobody_swept(
        self, database: Database
    ) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        later(database)
        with database.begin() as tx, pytest.raises(Conflict, match="start deadline has passed"):
            claim(tx, job_id)

    def test_nor_is_one_granted_whose_start_would_be_after_it(self, database: Database) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        with database.begin() as tx:
            tx.execute(text("UPDATE jobs SET due_at = start_by + interval '1 ms'"))
            with pytest.raises(Conflict, match="start deadline has passed"):
                claim(tx, job_id)

    def test_a_machine_that_did_not_hear_it_was_granted_is_refused_after_the_deadline(
        self, database: Database
    ) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        with database.begin() as tx:
            assert claim(tx, job_id)
            assert not claim(tx, job_id), "the same machine again, in time"
        later(database)
        with database.begin() as tx, pytest.raises(Conflict, match="start deadline has passed"):
            claim(tx, job_id)

    def test_one_that_has_started_is_left_alone(
        self, database: Database, ender: StartDeadlineLoop
    ) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        with database.begin() as tx:
            assert claim(tx, job_id)
            starts.started(tx, AttemptRef(job_id, 1), server_time(tx), actor="machine")
        later(database)
        ender.tick()
        with database.begin() as tx:
            assert not claim(tx, job_id)
        assert found(database, job_id).state is JobState.RUNNING

    @pytest.mark.parametrize("first", ["claim", "sweep"])
    def test_of_a_claim_and_a_sweep_at_once_one_is_first(
        self, database: Database, ender: StartDeadlineLoop, first: str
    ) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        results: list[str] = []

        def late_claim() -> None:
            try:
                with database.begin() as tx:
                    claim(tx, job_id)
                results.append("granted")
            except Conflict:
                results.append("refused")

        if first == "claim":
            with database.begin() as tx:
                assert claim(tx, job_id)
                # The deadline comes while the claim is not committed: the sweep passes over it.
                later_than(database, ender)
            assert found(database, job_id).state is JobState.RUNNING
            return
        later(database)
        with database.begin() as tx:
            assert len(start_deadlines.expire(tx, limit=10, actor="scheduler").ended) == 1
            thread = threading.Thread(target=late_claim)
            thread.start()
            wait_for(database, tx)
        thread.join(30)
        assert results == ["refused"]


def later_than(database: Database, ender: StartDeadlineLoop) -> None:
    """Sweep as if the deadline had passed; what others hold is not waited for."""
    with database.begin() as tx:
        swept = start_deadlines.expire(tx, limit=10, actor="scheduler")
    assert swept.jobs == []
    ender.tick()


class TestWhatCounts:
    """From which time on it counts, and until when."""

    def test_it_counts_from_the_time_that_was_asked_for(self, database: Database) -> None:
        job = found(database, submitted(database, delay_s=3600))
        assert job.start_by == job.run_at + timedelta(seconds=600)

    def test_one_that_comes_too_late_is_not_started(
        self, database: Database, ender: StartDeadlineLoop
    ) -> None:
        job_id = submitted(database, time="2020-01-01T00:00:00Z")
        ender.tick()
        assert found(database, job_id).reason is REASON

    def test_another_time_is_another_deadline(self, database: Database) -> None:
        job_id = submitted(database, delay_s=60)
        with database.begin() as tx:
            reschedule(tx, job_id, time=None, delay_s=7200, actor="op")
        job = found(database, job_id)
        assert job.start_by == job.run_at + timedelta(seconds=600)

    def test_a_retry_by_hand_counts_from_then_on(
        self, database: Database, ender: StartDeadlineLoop
    ) -> None:
        job_id = submitted(database)
        later(database)
        ender.tick()
        with database.begin() as tx:
            jobs.retry(tx, job_id, actor="op")
        ender.tick()
        job = found(database, job_id)
        assert job.state is JobState.SCHEDULED
        assert job.start_by == job.due_at + timedelta(seconds=600)

    def test_another_attempt_after_a_start_has_none(
        self, database: Database, ender: StartDeadlineLoop
    ) -> None:
        job_id = submitted(database, max_attempts=3)
        ready(database, job_id)
        with database.begin() as tx:
            claim(tx, job_id)
            end = ExitRecord(exit_code=1)
            ref = AttemptRef(job_id, 1)
            attempts.end(tx, ref, end.reason, actor="machine", exit_record=end)
        later(database)
        ender.tick()
        job = found(database, job_id)
        assert (job.state, job.start_by) == (JobState.SCHEDULED, None)

    @pytest.mark.parametrize("granted", [False, True])
    def test_another_attempt_without_a_start_still_has_it(
        self, database: Database, ender: StartDeadlineLoop, granted: bool
    ) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        with database.begin() as tx:
            if granted:
                claim(tx, job_id)
            attempts.end(tx, AttemptRef(job_id, 1), Reason.INSTANCE_LOST, actor="reaper")
        assert found(database, job_id).start_by is not None
        later(database)
        ender.tick()
        job = found(database, job_id)
        assert (job.reason, job.attempts[0].reason) == (REASON, Reason.INSTANCE_LOST)

    def test_what_it_wrote_shows_that_it_started_where_nothing_else_does(
        self, database: Database, ender: StartDeadlineLoop
    ) -> None:
        job_id = submitted(database)
        ready(database, job_id)
        ref = AttemptRef(job_id, 1)
        with database.begin() as tx:
            claim(tx, job_id)
            logs.append(tx, ref, LogChunk(0, b"it works"), kept=1000)
            attempts.end(tx, ref, Reason.INSTANCE_LOST, actor="reaper")
        later(database)
        ender.tick()
        job = found(database, job_id)
        assert (job.state, job.start_by) == (JobState.SCHEDULED, None)


class TestSchedules:
    """The start deadline of a schedule is that of its jobs."""

    def fired(self, database: Database, clock: Clock, loop: RecurringLoop) -> UUID:
        make(database, start_deadline_s=600)
        clock.now = T - HORIZON
        run(loop)
        (fire,) = fires_of(database)
        assert fire.job_id is not None
        return fire.job_id

    def test_a_fires_job_has_to_start_by_then(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        job = found(database, self.fired(database, clock, loop))
        assert (job.spec.start_deadline_s, job.start_by) == (600, T + 10 * MINUTE)

    @pytest.mark.parametrize("launched", [False, True])
    def test_one_that_was_made_in_time_and_has_not_started_was_skipped(
        self,
        database: Database,
        clock: Clock,
        loop: RecurringLoop,
        ender: StartDeadlineLoop,
        launched: bool,
    ) -> None:
        job_id = self.fired(database, clock, loop)
        if launched:
            with database.begin() as tx:
                tx.execute(
                    text("UPDATE jobs SET run_at = now(), due_at = now(), dispatch_at = NULL")
                )
            warming(database, job_id)
        skipped = {"outcome": "skipped", "reason": "start_deadline"}
        before = REGISTRY.get_sample_value("atemporal_fires_total", skipped) or 0
        with database.begin() as tx:
            tx.execute(text("UPDATE jobs SET start_by = now() - interval '1 s'"))
        ender.tick()
        (fire,) = fires_of(database)
        assert (fire.outcome, fire.reason) == ("skipped", FireReason.START_DEADLINE)
        assert (fire.job_id, fire.job_state) == (job_id, "cancelled")
        assert REGISTRY.get_sample_value("atemporal_fires_total", skipped) == before + 1
        # It holds up no later one.
        clock.now = T + 24 * HOUR - HORIZON
        run(loop)
        assert [one.outcome for one in fires_of(database)] == ["skipped", "ran"]

    def test_another_start_deadline_makes_the_jobs_ahead_anew(
        self, database: Database, clock: Clock, loop: RecurringLoop
    ) -> None:
        before = self.fired(database, clock, loop)
        with database.begin() as tx:
            schedules.edit(tx, "nightly", {"start_deadline_s": 60}, version=None, actor="op")
        run(loop)
        (fire,) = fires_of(database)
        assert job_of(database, before).outcome is Outcome.CANCELLED
        assert job_of(database, fire.job_id).start_by == T + MINUTE


def test_an_attempt_can_not_end_so_once_it_runs() -> None:
    assert AttemptState.RUNNING not in REASON.ends
