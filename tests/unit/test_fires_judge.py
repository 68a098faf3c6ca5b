"""The judge of a schedule's fires, which chaos run and simulation share: it sees what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from atemporal.model import Job, parse_spec
from atemporal.model.schedule import RecordedFire, Schedule
from atemporal.recurrence import FireOutcome, FireReason, Overlap
from atemporal.states import JobState, Outcome
from tests.fires import broken_fires

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


class Ran(NamedTuple):
    started: float
    ended: float | None


def schedule(**fields: Any) -> Schedule:
    """One fire a minute, begun at noon and paused three minutes later."""
    return Schedule.model_construct(
        **{
            "id": UUID(int=9),
            "name": "often",
            "cron": "* * * * *",
            "zone": "UTC",
            "overlap": Overlap.ALLOW,
            "created_at": NOON,
            "paused_at": NOON + 3 * MINUTE,
            "next_fire_at": NOON + 4 * MINUTE,
            "problem": None,
            **fields,
        }
    )


def fire(minute: int, job_id: UUID | None = None, **fields: Any) -> RecordedFire:
    """One that ran if it has a job, else one that was skipped."""
    at = NOON + minute * MINUTE
    outcome = FireOutcome.RAN if job_id else FireOutcome.SKIPPED
    reason = None if job_id else FireReason.PAUSED
    given = {"fire_time": at, "outcome": outcome, "reason": reason, "job_id": job_id}
    return RecordedFire(**{**given, "decided_at": at, **fields})


def job(job_id: UUID, minute: int, outcome: Outcome = Outcome.SUCCEEDED, key: str = "k") -> Job:
    at = NOON + minute * MINUTE
    return Job(
        id=job_id,
        spec=parse_spec({"image": "busybox", "key": key}),
        state=JobState.FINISHED,
        outcome=outcome,
        run_at=at,
        due_at=at,
        created_at=at,
        updated_at=at,
    )


FIRES = [fire(1, ONE), fire(2), fire(3, TWO)]
JOBS = {ONE: job(ONE, 1), TWO: job(TWO, 3)}


def broken(
    fires: list[RecordedFire] = FIRES,
    jobs: dict[UUID, Job] = JOBS,
    runs: dict[UUID, list[Ran]] | None = None,
    **fields: Any,
) -> list[str]:
    return list(broken_fires(schedule(**fields), fires, jobs, runs or {}, by_hand={"by-hand"}))


def test_what_is_whole_is_whole() -> None:
    assert broken() == []
    assert (
        broken([fire(1, ONE), fire(2, count=2, until=NOON + 3 * MINUTE)], {ONE: JOBS[ONE]}) == []
    )
    assert broken(FIRES[:2], {ONE: JOBS[ONE]}, next_fire_at=NOON + 3 * MINUTE) == []
    more = {**JOBS, THREE: job(THREE, 2, key="by-hand")}
    assert broken(jobs=more) == []
    taken_back = {**JOBS, THREE: job(THREE, 5, Outcome.CANCELLED)}
    assert broken(jobs=taken_back) == []


@pytest.mark.parametrize(
    ("fires", "what"),
    [
        (FIRES[:2], "fires not decided: 2030-01-01T12:03"),
        ([*FIRES, fire(2, count=1)], "fires decided twice: 2030-01-01T12:02"),
        ([*FIRES, fire(4)], "fires decided, and not due: 2030-01-01T12:04"),
        ([fire(1, ONE), fire(2, count=5, until=NOON + 3 * MINUTE)], "decided twice"),
        ([fire(1, ONE), fire(2), fire(3, ONE)], "two fires have one job"),
        ([fire(1, ONE), fire(2), fire(3, THREE)], "has no job of that time"),
        ([fire(1, ONE, reason=FireReason.PAUSED), *FIRES[1:]], "is none of its own"),
        ([*FIRES[:2], fire(3, outcome=FireOutcome.RAN, reason=None)], "is none of its own"),
    ],
)
def test_a_fire_that_is_not_accounted_for_once_is_seen(
    fires: list[RecordedFire], what: str
) -> None:
    assert any(what in promise for promise in broken(fires)), broken(fires)


def test_a_job_that_is_no_fires_is_seen() -> None:
    for stray in (job(THREE, 2), job(THREE, 2, Outcome.FAILED)):
        assert any("is no fire's" in one for one in broken(jobs={**JOBS, THREE: stray}))
    ran = {THREE: [Ran(1.0, 2.0)]}
    cancelled = {**JOBS, THREE: job(THREE, 5, Outcome.CANCELLED)}
    assert any("is no fire's" in one for one in broken(jobs=cancelled, runs=ran))


def test_a_job_beside_another_is_seen_where_that_is_to_be_skipped() -> None:
    at = NOON.timestamp()
    for first, seen in (((at, at + 60), False), ((at, at + 200), True)):
        runs = {ONE: [Ran(*first)], TWO: [Ran(at + 180, at + 190)]}
        assert bool(broken(runs=runs, overlap=Overlap.SKIP)) is seen
        assert broken(runs=runs) == []


def test_one_that_is_not_paused_is_not_judged() -> None:
    assert "not paused" in broken(paused_at=None)[0]
    assert "no such zone" in broken(problem="no such zone")[0]
