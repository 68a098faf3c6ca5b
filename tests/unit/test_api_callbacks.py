"""The machines' callbacks, over a real Postgres; the broker is away all the time."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from atemporal.model import LOG_TAIL_LIMIT, AttemptRef
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import attempts
from tests.api import LAUNCH, Api, bearer, serving, token_of


@pytest.fixture(scope="module")
def api(database_url: str) -> Iterator[Api]:
    with serving(database_url) as served:
        yield served


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
    # Which instance it is, EC2 has not said.
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


@pytest.mark.parametrize("body", [b'{"exit_code": 0', b"\xff", b"x" * 300_000])
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
        assert attempts.begin(tx, second, LAUNCH, actor="test")
    assert api.claim(ref, claim="c").status_code == 401
    assert api.exit(ref, claim="c", exit_code=0).status_code == 401
    assert api.claim(second, claim="d").status_code == 204
    assert api.exit(second, claim="d", exit_code=0).status_code == 204
    job = api.job(ref.job_id)
    assert [one.exit_code for one in job.attempts] == [1, 0]
    assert job.outcome is Outcome.SUCCEEDED


def test_a_cancelled_attempt_may_not_begin(api: Api) -> None:
    ref = api.warming()
    assert api.http.delete(f"/jobs/{ref.job_id}").status_code == 200
    assert api.claim(ref, claim="c").status_code == 422
    assert api.exit(ref, claim="c", exit_code=0).status_code == 422
    assert api.job(ref.job_id).outcome is Outcome.CANCELLED
