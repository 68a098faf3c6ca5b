"""The invariants hold for what the store writes, and each of them finds what breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from atemporal.model import AttemptRef, ExitRecord, parse_spec
from atemporal.states import Reason
from atemporal.store import attempts, jobs, launches
from atemporal.store.database import Database
from atemporal.store.invariants import INVARIANTS, moved, violations
from tests.claims import claim_due
from tests.invariants import assert_invariants
from tests.launches import LAUNCH

# For each invariant, statements that break it, by a hand that no guard and no constraint stops.
# `{a}` is a job that runs, `{b}` one that finished after two attempts.
BREAKS = {
    "one_live_attempt": ["UPDATE attempts SET state = 'ready' WHERE job_id = '{b}'"],
    "instance_of_one_attempt": ["UPDATE attempts SET instance_id = 'i-1'"],
    "finished_says_how": ["UPDATE jobs SET outcome = NULL WHERE id = '{b}'"],
    "reason_of_the_last_attempt": ["UPDATE jobs SET reason = 'timed_out' WHERE id = '{b}'"],
    "live_attempt_of_active_job": ["UPDATE jobs SET state = 'scheduled' WHERE id = '{a}'"],
    "active_job_has_its_attempt": ["UPDATE attempts SET state = 'ready' WHERE job_id = '{a}'"],
    "attempt_numbers": ["UPDATE jobs SET attempt = 0 WHERE id = '{a}'"],
    "within_budget": [
        "UPDATE jobs SET spec = jsonb_set(spec, '{{max_attempts}}', '1') WHERE id = '{b}'"
    ],
    "ended_says_why": ["UPDATE attempts SET exited_at = NULL WHERE job_id = '{b}'"],
    "exit_code_fits": ["UPDATE attempts SET exit_code = 0 WHERE job_id = '{b}'"],
    "not_before_its_time": ["UPDATE jobs SET run_at = now() + '1 h' WHERE id = '{a}'"],
    "not_after_its_start_deadline": [
        "UPDATE jobs SET start_by = now() - interval '1 h' WHERE id = '{a}'"
    ],
    "not_before_its_backoff": [
        "UPDATE events SET detail = detail || '{{\"in_s\": 9}}' WHERE type = 'job.scheduled'"
    ],
    "job_transitions": ["DELETE FROM events WHERE type = 'job.warming'"],
    "attempt_transitions": ["DELETE FROM events WHERE type = 'attempt.launching'"],
    "finished_is_final": [
        "INSERT INTO events (job_id, attempt, type, actor) VALUES ('{b}', 2, 'job.scheduled', '')"
    ],
    "closed_is_final": [
        "INSERT INTO events (job_id, attempt, type, actor) VALUES ('{b}', 2, 'attempt.ready', '')"
    ],
    "job_has_its_event": ["DELETE FROM events WHERE type LIKE 'job.finished%'"],
    "within_limits": [
        "INSERT INTO concurrency_limits VALUES ('jobs', 0, now() - interval '1 s', 'ann')",
        "INSERT INTO slots VALUES ('jobs', '{a}', 1, NULL, now())",
    ],
    "limited_job_holds_its_slot": [
        "INSERT INTO concurrency_limits VALUES ('instances', 9, now(), 'ann')"
    ],
    "attempt_has_its_event": ["DELETE FROM events WHERE type = 'attempt.closed'"],
}


@pytest.fixture
def tx(database: Database) -> Iterator[Connection]:
    """A transaction that is rolled back after the test."""
    with database._engine.connect() as connection:
        yield connection
        connection.rollback()


def run_to(tx: Connection, ref: AttemptRef) -> None:
    claim_due(tx, 10, actor="test")
    assert launches.begin(tx, ref, LAUNCH, actor="test")
    attempts.launched(tx, ref, f"i-{ref.id}", actor="test")
    attempts.claim(tx, ref, claim_id="c", instance_id=f"i-{ref.id}", actor="test")


@pytest.fixture
def story(tx: Connection) -> dict[str, str]:
    """Two jobs: one runs, one has failed twice and is over."""
    spec = parse_spec({"image": "busybox", "max_attempts": 2, "backoff_s": 0})
    running, failed = (one.job_id for one in jobs.submit(tx, [spec, spec], actor="test"))
    for number in (1, 2):
        ref = AttemptRef(failed, number)
        run_to(tx, ref)
        record = ExitRecord(exit_code=7)
        attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=record)
        attempts.close(tx, ref, actor="test")
    run_to(tx, AttemptRef(running, 1))
    return {"a": str(running), "b": str(failed)}


def test_what_the_store_writes_breaks_none(tx: Connection, story: dict[str, str]) -> None:
    assert violations(tx) == []


def test_a_retry_before_the_jobs_time_breaks_none(tx: Connection) -> None:
    spec = parse_spec({"image": "busybox", "delay_s": 3600})
    job_id = jobs.submit_one(tx, spec, actor="test").job_id
    jobs.cancel(tx, job_id, actor="test")
    jobs.retry(tx, job_id, actor="test")
    run_to(tx, AttemptRef(job_id, 1))
    assert violations(tx) == []


def test_every_invariant_has_a_break() -> None:
    assert set(BREAKS) == {one.name for one in INVARIANTS}


@pytest.mark.parametrize("history", [True, False], ids=["of all jobs", "of those that moved"])
@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_it_is_found(
    tx: Connection, story: dict[str, str], name: str, history: bool
) -> None:
    moved_jobs = moved(tx).jobs
    rules = tx.execute(
        text(
            "SELECT conrelid::regclass AS of, conname FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u')"
        )
    ).all()
    for rule in rules:
        tx.execute(text(f"ALTER TABLE {rule.of} DROP CONSTRAINT {rule.conname}"))
    tx.execute(text("DROP INDEX uq_attempts_one_live_a_job"))
    for statement in BREAKS[name]:
        tx.execute(text(statement.format(**story)))
    found = violations(tx, None if history else moved_jobs)
    assert name in {one.invariant.name for one in found}
    assert all(str(one.job_id) in story.values() and one.what for one in found)


def far_behind(tx: Connection) -> int:
    """Let the next event be far from those before; return the number before it."""
    place = "pg_get_serial_sequence('events', 'id')"
    far: int = tx.scalar(text(f"SELECT setval({place}, nextval({place}) + 100000)")) or 0
    return far


class TestMoved:
    def test_each_event_is_looked_at_and_what_is_open_always(
        self, tx: Connection, story: dict[str, str]
    ) -> None:
        running, failed = UUID(story["a"]), UUID(story["b"])
        at_first = moved(tx)
        assert at_first.jobs == {running, failed}
        assert not at_first.more
        begin = far_behind(tx)
        new = jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="test").job_id
        then = moved(tx, after=begin)
        assert then.jobs == {running, new}
        assert moved(tx, after=begin + 1000) == ({running}, begin + 1000, False)

    def test_what_is_written_late_by_an_earlier_transaction_is_not_missed(
        self, tx: Connection, story: dict[str, str]
    ) -> None:
        until = moved(tx).until
        late = text("UPDATE events SET id = :id WHERE id = :last")
        tx.execute(text("DELETE FROM attempts WHERE job_id = :a"), story)
        tx.execute(late, {"id": until + 400, "last": until})
        assert UUID(story["a"]) in moved(tx, after=until + 500).jobs

    def test_many_are_taken_a_part_at_a_time(self, tx: Connection, story: dict[str, str]) -> None:
        begin = far_behind(tx)
        specs = [parse_spec({"image": "busybox"})] * 1200
        made = {one.job_id for one in jobs.submit(tx, specs, actor="test")}
        seen: set[UUID] = set()
        until, more = begin, True
        for _ in range(20):
            part = moved(tx, after=until, limit=100)
            assert len(part.jobs) <= 100 + 500 + 2
            seen |= part.jobs
            until, more = part.until, part.more
            if not more:
                break
        assert not more
        assert made <= seen

    def test_where_nothing_has_happened_nothing_has_moved(self, tx: Connection) -> None:
        assert moved(tx) == (set(), 0, False)


def test_a_failure_tells_the_job_s_story(database: Database) -> None:
    with database.begin() as tx:
        spec = parse_spec({"image": "busybox"})
        (made,) = jobs.submit(tx, [spec], actor="test")
        tx.execute(text("UPDATE jobs SET state = 'queued', attempt = 1"))
    with pytest.raises(AssertionError) as failure:
        assert_invariants(database)
    assert "job_has_its_event" in str(failure.value)
    assert f"job {made.job_id}: queued" in str(failure.value)
    assert "job.scheduled 0 by test" in str(failure.value)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events"))
