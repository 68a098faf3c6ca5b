"""A short storm on every run of the tests; and that its judge sees what is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atemporal.model import Job, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from tests.chaos import storm
from tests.chaos.clients import Ledger, Wanted
from tests.chaos.verdict import Verdict, _judge_job, _judge_submits, timeline


@pytest.fixture
def job(database: Database) -> Job:
    with database.begin() as tx:
        spec = parse_spec({"image": "busybox", "key": "known"})
        return jobs.get(tx, jobs.submit_one(tx, spec, actor="test").job_id)


@pytest.mark.timeout(900)
def test_a_short_storm_leaves_every_promise_whole(capsys: pytest.CaptureFixture[str]) -> None:
    status = storm.main(["--seed", "5", "--jobs", "20", "--seconds", "25"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert re.search(r"acknowledged +20\n", said), said
    assert re.search(r"kill -9 \w+ +[1-9]", said), said


def test_a_container_that_started_twice_is_seen(job: Job, tmp_path: Path) -> None:
    verdict = Verdict()
    (tmp_path / "known").write_text("start\nstart\n")
    _judge_job(verdict, job, 0, False, tmp_path)
    assert ("started 2 times for 0 claims", job.id) in verdict.broken
    assert ("still scheduled", job.id) in verdict.broken


def test_a_submit_that_was_lost_or_became_two_jobs_is_seen(job: Job) -> None:
    other = Wanted("known", 0, {}, "http", job_id="another")
    lost = Wanted("unknown", 0, {}, "http", job_id="gone")
    verdict = Verdict()
    _judge_submits(verdict, Ledger([other, lost]), {"known": job}, 1)
    assert (verdict.counts["lost"], verdict.counts["doubled"]) == (1, 1)
    assert len(verdict.broken) == 2


def test_a_broken_jobs_timeline_has_its_events_and_what_went_on_around_them(
    database: Database, job: Job
) -> None:
    at = job.created_at.timestamp()
    told = timeline(database, job.id, [(at + 1, "storm: pg restart"), (at - 60, "long before")])
    assert re.search(r"2\.\d\d s  job.scheduled", told), told
    assert re.search(r"3\.\d\d s      storm: pg restart", told), told
    assert "long before" not in told
