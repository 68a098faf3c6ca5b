"""The machines' callbacks, over a real Postgres; the broker is away all the time."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.model import LOG_TAIL_LIMIT, AttemptRef
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import attempts, launches
from tests.api import Api, bearer, token_of
from tests.launches import LAUNCH


def raw(api: Api, ref: AttemptRef, body: bytes, method: str = "DELETE") -> httpx.Response:
    path = f"/jobs/{ref.job_id}/callback.json"
    return api.http.request(method, path, content=body, headers=bearer(token_of(ref)))


def test_an_attempt_goes_from_warming_over_running_to_finished(api: Api) -> None:
    ref = api.warming()
    granted = api.claim(ref, claim="c", instance_id="i-0a")
    assert (granted.status_code, granted.content) == (204, b"")
    job = api.job(ref.job_id)
    assert (job.state, job.attempts[0].state) == (JobState.RUNNING, AttemptState.RUNNING)
    (attempt,) = job.attempts
    # Which instance it is, EC2 has not reported.
    assert (attempt.claim, attempt.claimed_instance_id) == ("c", "i-0a")
    assert attempt.instance_id is None
    tail = base64.b64encode(b"bye\n").decode()
    ended = api.exit(ref, claim="c", instance_id="i-0a", exit_code=7, log_tail=tail)
    assert (ended.status_code, ended.content) == (204, b"")
    job = api.job(ref.job_id)
    assert (job.state, job.outcome, job.exit_code) == (JobState.FINISHED, Outcome.FAILED, 7)
    assert job.attempts[0].log_tail == b"bye\n"
    assert ("attempt.exited", "machine") in api.actors(ref.job_id)


@pytest.mark.parametrize("claimed", ["i-0123456789abcdef0", "*", "localhost"])
def test_who_was_granted_the_claim_is_heard_whatever_instance_it_says_it_is(
    api: Api, claimed: str
) -> None:
    ref = api.warming()
    assert api.claim(ref, claim="c", instance_id=claimed).status_code == 204
    with api.database.begin() as tx:
        attempts.launched(tx, ref, f"i-{ref.job_id.hex[-17:]}", actor="test")
    assert api.claim(ref, claim="c", instance_id=claimed).status_code == 204, "its answer was lost"
    assert api.exit(ref, claim="other", instance_id=claimed, exit_code=7).status_code == 422
    assert api.exit(ref, instance_id=claimed, exit_code=7).status_code == 422
    assert api.exit(ref, claim="c", instance_id=claimed, exit_code=7).status_code == 204
    assert api.job(ref.job_id).exit_code == 7


def test_bare_callbacks_work_as_in_the_original(api: Api) -> None:
    ref = api.warming()
    assert raw(api, ref, b"", "PATCH").status_code == 204
    assert raw(api, ref, b"").status_code == 204
    job = api.job(ref.job_id)
    assert (job.state, job.outcome, job.reason) == (
        JobState.FINISHED,
        Outcome.LOST,
        Reason.UNREPORTED,
    )


def test_an_attempt_can_end_without_ever_running(api: Api) -> None:
    ref = api.warming(infra_retries=0)
    assert api.exit(ref, phase="pull", claim="c").status_code == 204
    assert api.job(ref.job_id).reason is Reason.PULL_FAILED


def test_an_image_that_is_surely_absent_costs_one_machine(api: Api) -> None:
    ref = api.warming(infra_retries=5, max_attempts=5)
    assert api.exit(ref, phase="pull", definite=True, claim="c").status_code == 204
    job = api.job(ref.job_id)
    assert (job.state, job.reason) == (JobState.FINISHED, Reason.IMAGE_REFUSED)
    assert job.attempts[0].detail is None


def test_a_disk_that_is_too_small_costs_one_machine_and_says_what_to_do(api: Api) -> None:
    ref = api.warming(infra_retries=5, max_attempts=5)
    log = base64.b64encode(b"failed to register layer: no space left on device\n").decode()
    assert api.exit(ref, phase="pull", definite=True, log_tail=log).status_code == 204
    job = api.job(ref.job_id)
    assert (job.state, job.reason) == (JobState.FINISHED, Reason.IMAGE_REFUSED)
    assert "give the job a larger one (disk_gb)" in (job.attempts[0].detail or "")


def test_a_claim_is_granted_once_and_to_the_same_machine_again(api: Api) -> None:
    ref = api.warming()
    assert api.claim(ref, claim="a").status_code == 204
    assert api.claim(ref, claim="a").status_code == 204
    for other in ({"claim": "b"}, {}):
        refused = api.claim(ref, **other)
        assert refused.status_code == 422
        assert refused.json().keys() == {"error"}
    assert api.job(ref.job_id).attempts[0].claim == "a"


def test_of_many_machines_one_is_granted_the_claim(api: Api) -> None:
    ref = api.warming()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: api.claim(ref, claim=f"c{n}").status_code, range(8)))
    assert sorted(statuses) == [204] + [422] * 7


def test_a_claim_of_another_instance_is_refused(api: Api) -> None:
    ref = api.warming(instance_id="i-0b")
    assert api.claim(ref, claim="c", instance_id="i-0c").status_code == 422
    assert api.exit(ref, phase="pull", instance_id="i-0c").status_code == 422
    assert api.job(ref.job_id).state is JobState.WARMING


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"claim": 7}', b'{"claim": "a\\u0000"}', b'{"claim": "' + b"x" * 65 + b'"}'],
)
def test_a_claim_that_can_not_be_read_is_refused(api: Api, body: bytes) -> None:
    ref = api.warming()
    assert raw(api, ref, body, "PATCH").status_code == 422
    assert api.job(ref.job_id).state is JobState.WARMING


def test_an_exit_is_written_once(api: Api) -> None:
    ref = api.running("c")
    assert api.exit(ref, claim="c", exit_code=0).status_code == 204
    again = api.exit(ref, claim="c", exit_code=1)
    assert again.status_code == 422
    assert again.json().keys() == {"error"}
    assert api.claim(ref, claim="c").status_code == 422
    job = api.job(ref.job_id)
    assert (job.outcome, job.exit_code) == (Outcome.SUCCEEDED, 0)


def test_only_the_machine_that_has_the_claim_can_report_the_exit(api: Api) -> None:
    ref = api.running("mine")
    assert api.exit(ref, claim="other", exit_code=0).status_code == 422
    assert api.exit(ref, claim=["mine"], exit_code=0).status_code == 422
    assert api.job(ref.job_id).state is JobState.RUNNING
    assert api.exit(ref, claim="mine", exit_code=0).status_code == 204


def test_a_damaged_exit_record_still_ends_the_attempt(api: Api) -> None:
    ref = api.running("c")
    log = base64.b64encode(b"x" * 3 * LOG_TAIL_LIMIT + b"end").decode()
    response = api.exit(ref, claim="c", exit_code=9, log_tail=log, started_at="never")
    assert response.status_code == 204
    (attempt,) = api.job(ref.job_id).attempts
    assert (attempt.reason, attempt.exit_code) == (Reason.EXIT_NONZERO, 9)
    assert attempt.log_tail is not None
    assert attempt.log_tail.endswith(b"xend")
    assert attempt.detail == "its exit record was damaged in: log_tail, started_at"


@pytest.mark.parametrize("body", [b'{"exit_code": 0', b"\xff", b"x" * 1_100_000])
def test_an_unreadable_exit_record_still_ends_the_attempt(api: Api, body: bytes) -> None:
    ref = api.running()
    assert raw(api, ref, body).status_code == 204
    (attempt,) = api.job(ref.job_id).attempts
    assert (attempt.reason, attempt.state) == (Reason.UNREPORTED, AttemptState.EXITED)
    assert attempt.detail is not None


def test_without_the_attempts_token_a_callback_changes_nothing(api: Api) -> None:
    ref, other = api.warming(), api.warming()
    path = f"/jobs/{ref.job_id}/callback"
    wrong = [
        {},
        {"Authorization": "Bearer"},
        bearer("k1.00"),
        bearer("k9." + token_of(ref).partition(".")[2]),
        bearer(token_of(other)),
        bearer(token_of(AttemptRef(ref.job_id, 2))),
        {"Authorization": token_of(ref)},
        {"Authorization": f"Basic {token_of(ref)}"},
    ]
    for headers in wrong:
        for method in ("PATCH", "DELETE"):
            response = api.http.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.json().keys() == {"error"}
            assert response.headers["WWW-Authenticate"] == "Bearer"
    assert api.job(ref.job_id).state is JobState.WARMING
    assert api.http.patch(f"/jobs/{uuid4()}/callback").status_code == 404


def test_an_earlier_attempts_token_is_refused(api: Api) -> None:
    ref = api.running("c", max_attempts=2, backoff_s=0)
    assert api.exit(ref, claim="c", exit_code=1).status_code == 204
    api.emit(ref.job_id)
    second = AttemptRef(ref.job_id, 2)
    assert api.exit(second, exit_code=0).status_code == 422
    with api.database.begin() as tx:
        assert launches.begin(tx, second, LAUNCH, actor="test")
    assert api.claim(ref, claim="c").status_code == 401
    assert api.exit(ref, claim="c", exit_code=0).status_code == 401
    assert api.claim(second, claim="d").status_code == 204
    assert api.exit(second, claim="d", exit_code=0).status_code == 204
    job = api.job(ref.job_id)
    assert [one.exit_code for one in job.attempts] == [1, 0]
    assert job.outcome is Outcome.SUCCEEDED


def test_once_its_instance_is_gone_an_attempts_token_changes_nothing(api: Api) -> None:
    ref = api.running("c")
    assert api.exit(ref, claim="c", exit_code=0).status_code == 204
    with api.database.begin() as tx:
        assert attempts.close(tx, ref, actor="test")
    closed = api.job(ref.job_id)
    path, headers = f"/jobs/{ref.job_id}/callback", bearer(token_of(ref))
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for body in ({}, {"claim": "c", "exit_code": 9, "log_tail": "eA=="}):
            answer = api.http.request(method, path, json=body, headers=headers)
            # That it is up has no consequence by then.
            assert answer.status_code == (200 if method == "POST" else 422), method
    assert api.http.post(f"{path}/log?start=0", content=b"x", headers=headers).status_code == 422
    left = api.job(ref.job_id)
    assert (left.attempts, left.outcome) == (closed.attempts, closed.outcome)
    assert api.http.get(f"/jobs/{ref.job_id}/log").content == b""


def test_a_cancelled_attempt_may_not_begin(api: Api) -> None:
    ref = api.warming()
    assert api.http.delete(f"/jobs/{ref.job_id}").status_code == 200
    assert api.claim(ref, claim="c").status_code == 422
    assert api.exit(ref, claim="c", exit_code=0).status_code == 422
    assert api.job(ref.job_id).outcome is Outcome.CANCELLED


def put(api: Api, ref: AttemptRef, **body: Any) -> httpx.Response:
    """Say that the container could start, as the machine of this attempt."""
    path = f"/jobs/{ref.job_id}/callback"
    return api.http.put(path, json=body, headers=bearer(token_of(ref)))


def due_in(api: Api, ref: AttemptRef, seconds: float) -> None:
    """Put the job's time so many seconds from now, as if the rest had passed."""
    when = "clock_timestamp() + make_interval(secs => :s)"
    with api.database.begin() as tx:
        tx.execute(
            text(f"UPDATE jobs SET due_at = {when}, run_at = {when} WHERE id = :id"),
            {"s": seconds, "id": ref.job_id},
        )
        tx.execute(
            text(f"UPDATE attempts SET start_at = {when} WHERE job_id = :id"),
            {"s": seconds, "id": ref.job_id},
        )


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class TestHold:
    """A machine that is ready holds until the job's time."""

    def test_it_is_ready_then_granted_shortly_before_its_time(self, api: Api) -> None:
        ref = api.warming(delay_s=60)
        clock = {"synchronised": True, "offset_ms": -4}
        before = metric("atemporal_machine_clocks_total", state="agrees")
        answer = put(api, ref, claim="c", clock=clock)
        assert answer.status_code == 200
        assert answer.json().keys() == {"hold_ms", "start_in_ms", "time_ms", "now_ms"}
        # In the order that the agent reads.
        assert answer.text.startswith('{"hold_ms":5000,"start_in_ms":')
        assert api.job(ref.job_id).attempts[0].state is AttemptState.READY
        assert put(api, ref, claim="c", clock=clock).json()["hold_ms"] == 5000
        assert metric("atemporal_machine_clocks_total", state="agrees") == before + 1
        early = api.claim(ref, claim="c", holds=True)
        assert early.status_code == 425
        assert "ask again in" in early.json()["error"]
        due_in(api, ref, 1.5)
        assert put(api, ref, claim="c").json()["hold_ms"] == 0
        granted = api.claim(ref, claim="c", holds=True)
        assert granted.status_code == 200
        assert 0 < granted.json()["start_in_ms"] <= 1501
        assert api.claim(ref, claim="c", holds=True).status_code == 200, "its answer was lost"
        assert api.claim(ref, claim="d", holds=True).status_code == 422

    @pytest.mark.parametrize("body", [{}, {"claim": "c"}, {"claim": "c", "holds": False}])
    def test_the_agent_of_an_older_launcher_waits_outside_for_the_very_time(
        self, api: Api, body: dict[str, Any]
    ) -> None:
        ref = api.warming(delay_s=60)
        due_in(api, ref, 1.5)
        assert api.claim(ref, **body).status_code == 425
        assert api.job(ref.job_id).state is JobState.WARMING
        due_in(api, ref, 0)
        assert api.claim(ref, **body).status_code == 204

    @pytest.mark.parametrize("ends", ["cancel", "another instance"])
    def test_one_that_is_not_wanted_any_more_is_told_to_go(self, api: Api, ends: str) -> None:
        instance_id = f"i-0{ends[0]}"
        ref = api.warming(instance_id, delay_s=60)
        assert put(api, ref, claim="c", instance_id=instance_id).status_code == 200
        if ends == "cancel":
            assert api.http.delete(f"/jobs/{ref.job_id}").status_code == 200
        else:
            instance_id = "i-0fe"
        assert put(api, ref, claim="c", instance_id=instance_id).status_code == 422

    @pytest.mark.parametrize(
        "clock", [{"synchronised": "maybe"}, {"offset_ms": "far"}, {"offset_ms": 10**16}, 7]
    )
    def test_a_clock_that_can_not_be_read_is_refused(self, api: Api, clock: Any) -> None:
        ref = api.warming(delay_s=60)
        assert put(api, ref, claim="c", clock=clock).status_code == 422
        assert api.job(ref.job_id).attempts[0].state is not AttemptState.READY


class TestStart:
    """When a container started is counted once, from whichever word comes first."""

    def counted(self) -> float:
        return metric("atemporal_start_skew_seconds_count")

    @pytest.mark.parametrize("by_exit_too", [False, True])
    def test_its_skew_is_observed_once(self, api: Api, by_exit_too: bool) -> None:
        ref = api.warming(delay_s=60)
        put(api, ref, claim="c")
        due_in(api, ref, 0)
        api.claim(ref, claim="c", holds=True)
        start_at = api.job(ref.job_id).attempts[0].start_at
        assert start_at is not None
        reported = (start_at + timedelta(milliseconds=40)).isoformat()
        before = self.counted()
        assert (
            raw(api, ref, json.dumps({"started_at": reported}).encode(), "POST").status_code == 200
        )
        if by_exit_too:
            assert api.exit(ref, claim="c", exit_code=0, started_at=reported).status_code == 204
        assert self.counted() == before + 1
        (shown,) = api.http.get(f"/jobs/{ref.job_id}").json()["instances"]
        assert shown["start_skew_s"] == 0.04
        assert shown["predicted_skew_s"] is not None

    def test_the_exit_record_says_it_too(self, api: Api) -> None:
        ref = api.warming(delay_s=60)
        due_in(api, ref, 0)
        api.claim(ref, claim="c", holds=True)
        before = self.counted()
        reported = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        assert api.exit(ref, claim="c", exit_code=0, started_at=reported).status_code == 204
        assert self.counted() == before + 1

    @pytest.mark.parametrize("fields", [{}, {"delay_s": 0}])
    def test_one_that_was_due_at_once_has_none(self, api: Api, fields: dict[str, Any]) -> None:
        ref = api.running("c", **fields)
        before = self.counted()
        reported = datetime.now(UTC).isoformat()
        assert (
            raw(api, ref, json.dumps({"started_at": reported}).encode(), "POST").status_code == 200
        )
        assert self.counted() == before
        assert api.job(ref.job_id).attempts[0].started_at is not None
