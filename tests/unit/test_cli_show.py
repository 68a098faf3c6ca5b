"""`atemporal show`: phases from the instants that the API gives, and what is not at its default."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import click
import pytest

from atemporal import concurrency
from atemporal.cli import output, timeline, usual
from atemporal.client import Event, JobDetail
from atemporal.model import Attempt, Job, JobSpec, Launch, Machine, dead_letter, schedule
from atemporal.model.machine_clock import AGREE_MS
from atemporal.states import AttemptState, JobState
from atemporal.store import api_tokens
from atemporal.userdata import OS_FAMILIES
from atemporal.waiting import Phase
from services.api import schemas
from services.api.ui.timeline import phases

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LAUNCH = Launch(
    image_id="ami-1",
    instance_type="t3.small",
    callback_base="http://127.0.0.1:9",
    key_id="k1",
    deadline_s=60,
)


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def an_attempt(number: int, begun: float, state: AttemptState, **times: float) -> Attempt:
    given: dict[str, Any] = {name: after(seconds) for name, seconds in times.items()}
    return Attempt(
        job_id=UUID(int=7),
        number=number,
        state=state,
        launch=LAUNCH,
        created_at=after(begun),
        **given,
    )


FIRST = an_attempt(
    1,
    2,
    AttemptState.CLOSED,
    launched_at=4,
    booted_at=14,
    running_at=20,
    exited_at=50,
    closed_at=60,
)
SECOND = an_attempt(2, 70, AttemptState.WARMING, launched_at=71.5, booted_at=90)


def a_job(*attempts: Attempt) -> JobDetail:
    job = Job(
        id=UUID(int=7),
        spec=JobSpec(image="nginx"),
        state=JobState.WARMING,
        attempt=len(attempts),
        run_at=BEGIN,
        due_at=BEGIN,
        created_at=BEGIN,
        updated_at=BEGIN,
        read_at=after(100),
        attempts=attempts,
    )
    shown = schemas.JobDetail.show(job, {}).model_dump_json()
    return cast(JobDetail, json.loads(shown))


def queued(attempt: int, at: datetime) -> Event:
    return {
        "type": "job.queued",
        "event_id": 1,
        "job_id": str(UUID(int=7)),
        "attempt": attempt,
        "at": at.isoformat(),
        "actor": "test",
        "detail": {},
    }


def test_phases_follow_each_other_and_the_last_one_lasts() -> None:
    found = timeline.spells(a_job(FIRST, SECOND), [queued(1, after(1))])
    assert [(one.attempt, one.phase, one.seconds, one.open) for one in found] == [
        (1, "queued", 1, False),
        (1, "launch", 2, False),
        (1, "boot", 10, False),
        (1, "pull", 6, False),
        (1, "run", 30, False),
        (1, "stop", 10, False),
        (2, "launch", 1.5, False),
        (2, "boot", 18.5, False),
        (2, "pull", 10, True),
    ]


@pytest.mark.parametrize("attempt", [FIRST, SECOND])
def test_they_are_the_phases_that_the_page_draws(attempt: Attempt) -> None:
    drawn = [(one.phase, one.begin, one.seconds, one.open) for one in phases(attempt, after(100))]
    found = timeline.spells(a_job(attempt), [])
    assert [(Phase(one.phase), one.began, one.seconds, one.open) for one in found] == drawn


@pytest.mark.parametrize("width", [120, 80, 60, 30])
def test_a_timeline_fits_its_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    for module in (output, timeline):
        monkeypatch.setattr(module, "for_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    found = timeline.spells(a_job(FIRST, SECOND), [])
    drawn = timeline.drawable()
    columns = timeline.COLUMNS if drawn else timeline.COLUMNS[:-1]
    rows = timeline.rows(found, BEGIN, drawn=drawn)
    output.table(columns, rows, keep=timeline.KEPT)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[-1].split()[:2] == ["2", "pull"]
    assert "10.0s so far" in lines[-1]
    assert ("█" in lines[1]) == (width >= 80)


def test_each_attempt_is_drawn_from_its_own_beginning() -> None:
    found = timeline.spells(a_job(FIRST, SECOND), [])
    bars = {(row[0], row[1]): row[-1] for row in timeline.rows(found, BEGIN, drawn=True)}
    assert bars["1", "launch"].startswith("█")
    assert bars["2", "launch"].startswith("█")
    assert bars["1", "stop"].index("█") > bars["1", "run"].index("█")


def test_the_usual_values_are_those_of_the_model() -> None:
    of_job = JobSpec(image="busybox").model_dump(mode="json")
    assert dict(usual.MACHINE) == Machine().model_dump(mode="json")
    assert list(usual.JOB) == [name for name in of_job if name not in usual.TOLD]
    assert {name: of_job[name] for name in usual.JOB} == usual.JOB
    assert usual.SCOPES == api_tokens.SCOPES
    assert list(usual.OS_FAMILIES) == sorted(OS_FAMILIES)
    assert (usual.SCHEDULE_LABEL, usual.CLOCKS_AGREE_MS) == (schedule.LABEL, AGREE_MS)
    for name in ("NEXT_SHOWN", "MOST_NEXT", "FIRES_SHOWN", "MOST_FIRES"):
        assert getattr(usual, name) == getattr(schedule, name)
    assert usual.MOST_OF_LIMIT == concurrency.MOST
    assert list(usual.DEAD_REASONS) == [one.value for one in dead_letter.DeadReason]
    assert list(usual.LETTER_STATES) == [one.value for one in dead_letter.LetterState]
    assert list(usual.LETTER_QUEUES) == list(dead_letter.QUEUES)
