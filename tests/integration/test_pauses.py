"""The pause of the whole installation: by HTTP, by the commands, and for whoever dispatches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from atemporal import waiting
from atemporal.client import Client
from atemporal.model import AttemptRef
from atemporal.settings import Settings
from atemporal.states import AttemptState, JobState
from atemporal.store import api_tokens, attempts, counts, events, invariants, jobs, pauses
from atemporal.waiting import Phase
from services.scheduler.backlog import Given
from tests.api import Api, bearer
from tests.backlogs import seeing_all
from tests.chaos.verdict import Verdict, check_pauses
from tests.integration.command_line import Cli
from tests.terminal import terminal

pytestmark = pytest.mark.usefixtures("own_output")


@pytest.fixture(autouse=True)
def empty(api: Api) -> Iterator[None]:
    yield
    with api.database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events, pauses"))


def claim(api: Api) -> Given:
    """What a scheduler claims that has just started."""
    backlog = seeing_all()
    with api.database.begin() as tx:
        return backlog.claim(tx, backlog.survey(tx), actor="t", limit=100, ahead_s=0.0)


def test_nothing_is_dispatched_until_it_is_resumed(cli: Cli, api: Api) -> None:
    job_id = api.submitted()
    assert cli("pause", "--reason", "Postgres is moved").stdout == (
        "paused; 0 attempts are under way and go on\n"
    )
    later = api.submitted()
    assert claim(api) == Given([], full=True)
    shown = cli("show", str(later)).stdout
    assert "somebody to resume the installation" in shown
    assert "Postgres is moved" in shown
    assert "overdue" not in shown
    with api.database.begin() as tx:
        assert counts.oldest_waiting(tx)[Phase.PAUSE][0] == 2
    assert cli("resume").stdout == "resumed\n"
    assert [one.position.job_id for one in claim(api).jobs] == [str(job_id), str(later)]


def test_a_submit_and_the_page_of_health_say_so(cli: Cli, api: Api) -> None:
    assert "Pause of the installation" in api.http.get("/ui/health").text
    cli("pause", "--reason", "Postgres is moved")
    made = cli("submit", "busybox", "--", "true")
    assert "Postgres is moved" in made.stderr
    assert "Postgres is moved" in api.http.get("/ui/health").text


def test_who_dispatches_is_notified_of_the_end(api: Api) -> None:
    api.http.put("/pause", json={}).raise_for_status()
    listener = api.database.listen()
    try:
        listener.wait(0.0)
        api.http.delete("/pause").raise_for_status()
        assert listener.wait(20.0)
    finally:
        listener.close()


def test_what_was_dispatched_and_not_begun_is_scheduled_again_at_no_cost(api: Api) -> None:
    job_id = api.submitted(max_attempts=1, infra_retries=0)
    assert len(claim(api).jobs) == 1
    begun = api.http.put("/pause", json={}).json()
    assert begun["put_back"] == 1
    with api.database.begin() as tx:
        job = jobs.get(tx, job_id)
        assert job.state is JobState.SCHEDULED
        # The message that is under way names an attempt that nobody begins any more.
        assert jobs.lock_queued(tx, [AttemptRef(job_id, 1)]) == {}
        assert invariants.violations(tx) == []
    api.http.delete("/pause").raise_for_status()
    assert len(claim(api).jobs) == 1
    with api.database.begin() as tx:
        assert list(jobs.lock_queued(tx, [AttemptRef(job_id, 2)])) == [AttemptRef(job_id, 2)]
        assert invariants.violations(tx) == []


def test_many_are_put_back_in_parts_for_no_statement_may_last(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "_PART", 2)
    ids = [api.submitted() for _ in range(5)]
    assert len(claim(api).jobs) == 5
    assert api.http.put("/pause", json={}).json()["put_back"] == 5
    with api.database.begin() as tx:
        assert {jobs.get(tx, one).state for one in ids} == {JobState.SCHEDULED}
        history = [[event.type for event in events.of_job(tx, one)] for one in ids]
        assert history == [["job.scheduled", "job.queued", "job.scheduled"]] * 5
        assert invariants.violations(tx) == []


def test_twice_is_a_conflict_that_says_who_and_why(cli: Cli, api: Api) -> None:
    cli("pause", "--reason", "first")
    assert "first" in cli("pause", "--reason", "second", code=5).output
    cli("resume")
    assert "nothing to resume" in cli("resume", code=5).output


@pytest.mark.parametrize(
    ("body", "field"),
    [({"reason": "x" * 501}, "reason"), ({"reason": "a\nb"}, "reason"), ({"why": "x"}, "why")],
)
def test_a_bad_reason_is_refused_before_anything_happens(
    api: Api, body: dict[str, str], field: str
) -> None:
    refused = api.http.put("/pause", json=body)
    assert refused.status_code == 422
    assert field in refused.json()["fields"]
    assert api.http.get("/pause").json()["paused"] is False


def test_to_change_it_wants_admin(api: Api) -> None:
    with api.database.begin() as tx:
        reader = api_tokens.create(tx, "reader", ["read", "submit", "cancel"])
    headers = bearer(reader)
    assert api.http.get("/pause", headers=headers).status_code == 200
    assert api.http.put("/pause", json={}, headers=headers).status_code == 403
    assert api.http.delete("/pause", headers=headers).status_code == 403


def test_the_next_deadline_is_the_one_that_the_first_job_shows(api: Api) -> None:
    deadlines = Settings.model_validate({"callback_keys": "k1:" + "0" * 32}).deadlines
    stages: list[tuple[AttemptState, dict[str, Any], str]] = [
        (AttemptState.RUNNING, {"timeout_s": 86_400}, ""),
        (AttemptState.RUNNING, {"timeout_s": 50_000}, ""),
        (AttemptState.WARMING, {}, ""),
        (AttemptState.WARMING, {}, ", launched_at = now() - interval '5 s'"),
        (AttemptState.WARMING, {}, ", booted_at = now() - interval '2 hours'"),
        (AttemptState.READY, {}, ", ready_at = now()"),
        (
            AttemptState.EXITED,
            {},
            ", exited_at = now() - interval '5 hours', reason = 'completed'",
        ),
        (AttemptState.LAUNCHING, {}, ", created_at = now() - interval '9 hours'"),
        (AttemptState.WARMING, {"start_deadline_s": 60}, ""),
    ]
    ends_of_all: list[datetime] = []
    for state, fields, more in stages:
        running = state is AttemptState.RUNNING
        ref = api.running(**fields) if running else api.warming(**fields)
        with api.database.begin() as tx:
            changed = f"UPDATE attempts SET state = '{state}'{more} WHERE job_id = :job"
            tx.execute(text(changed), {"job": ref.job_id})
            job = jobs.get(tx, ref.job_id)
            wait = waiting.of_job(job)
            assert wait is not None
            ends = waiting.until(wait, job, deadlines)
            assert ends is not None
            ends_of_all.append(ends)
            # Alone, and beside all before it.
            shown = pauses.under_way(tx, deadlines)
            assert shown.next_deadline == min(ends_of_all)
            others = text("DELETE FROM attempts WHERE job_id <> :job")
            with tx.begin_nested() as alone:
                tx.execute(others, {"job": ref.job_id})
                assert pauses.under_way(tx, deadlines).next_deadline == ends
                alone.rollback()
    assert shown.by_state == Counter(state for state, _, _ in stages)


def test_with_nothing_under_way_there_is_no_deadline(api: Api) -> None:
    state = api.http.get("/pause").json()
    assert (state["under_way"], state["by_state"], state["next_deadline"]) == (0, {}, None)


class TestDrain:
    def test_it_returns_when_nothing_is_under_way(self, cli: Cli) -> None:
        assert "drained" in cli("drain").stdout
        assert cli.json("drain")["paused"] is True

    def test_a_pause_that_comes_first_is_kept(
        self, cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cli("pause", "--reason", "first")
        seen: list[dict[str, Any]] = [{"paused": False, "under_way": 0}]
        real = Client.pause
        monkeypatch.setattr(Client, "pause", lambda self: seen.pop() if seen else real(self))
        assert cli.json("drain", "--reason", "second")["reason"] == "first"

    def test_it_names_what_it_waits_for(self, cli: Cli, api: Api) -> None:
        for _ in range(2):
            api.running(timeout_s=3600)
        api.warming(instance_id="i-drained")
        paused = cli("pause").stdout
        assert "3 attempts are under way (1 warming, 2 running) and go on" in paused
        state = json.loads(cli("drain", "--timeout", "0s", "-o", "json", code=124).stdout)
        assert state["by_state"] == {"warming": 1, "running": 2}
        with terminal("drain", env=cli.env) as shown:
            shown.sees("3 attempts are under way (1 warming, 2 running), the next deadline is at")
            shown.sees(state["next_deadline"])
            with api.database.begin() as tx:
                tx.execute(text("TRUNCATE jobs, attempts, events"))
            shown.sees("drained: nothing is under way")
            assert shown.ends() == 0

    def test_what_runs_is_waited_for_and_not_ended(self, cli: Cli, api: Api) -> None:
        ref = api.running()
        waited = cli("drain", "--timeout", "1s", code=124)
        assert "1 attempt is under way (1 running), the next deadline is at 20" in waited.output
        with api.database.begin() as tx:
            assert pauses.current(tx) is not None
            attempt = attempts.get(tx, ref)
            assert attempt is not None
            assert attempt.reason is None


def test_the_judge_of_chaos_runs_sees_a_dispatch_in_a_pause(api: Api) -> None:
    job_id = api.submitted()
    api.http.put("/pause", json={}).raise_for_status()
    for at, broken in (("at - interval '1 second'", 0), ("at + interval '1 second'", 1)):
        verdict = Verdict()
        with api.database.begin() as tx:
            tx.execute(text("UPDATE pauses SET at = now() - interval '1 minute'"))
            tx.execute(
                text(
                    "INSERT INTO events (job_id, attempt, type, actor, at)"
                    f" SELECT :job, 1, 'job.queued', 't', {at} FROM pauses"
                ),
                {"job": job_id},
            )
        check_pauses(verdict, api.database)
        assert len(verdict.broken) == broken
