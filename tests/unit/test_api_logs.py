"""Live logs by HTTP: what machines send is kept once and bounded, and given with its gaps."""

from __future__ import annotations

import base64
import os
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.errors import TooEarly
from atemporal.model import AttemptRef
from atemporal.model.log import CHUNK_LIMIT, LogChunk
from atemporal.states import AttemptState, Outcome, Reason
from atemporal.store import attempts, jobs, logs
from cloud_config import LOG_SHIPPER
from tests.api import Api, bearer, serving, token_of

KEPT = 256 * 1024


def send(
    api: Api, ref: AttemptRef, start: int, data: bytes, *, later: bool = True, token: str = ""
) -> int:
    """Send a chunk as the attempt's machine does, long after the last one; return the status."""
    if later:
        with api.database.begin() as tx:
            tx.execute(text("UPDATE log_chunks SET at = at - interval '1 minute'"))
    return api.http.post(
        f"/jobs/{ref.job_id}/callback/log",
        params={"start": start},
        content=data,
        headers=bearer(token or token_of(ref)),
    ).status_code


def page(api: Api, ref: AttemptRef, **query: Any) -> dict[str, Any]:
    answer = api.http.get(f"/jobs/{ref.job_id}/logs", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def shown(api: Api, ref: AttemptRef, **query: Any) -> list[tuple[int, int | None, bytes]]:
    return [
        (one["start"], one["missing"], base64.b64decode(one["data"]))
        for one in page(api, ref, **query)["parts"]
    ]


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("atemporal_log_bytes_total", {"result": result}) or 0.0


def rows(api: Api, ref: AttemptRef) -> int:
    with api.database.begin() as tx:
        count = text("SELECT count(*) FROM log_chunks WHERE job_id = :id")
        return int(tx.scalar(count, {"id": ref.job_id}) or 0)


class TestTaking:
    def test_a_running_container_is_followed_byte_for_byte(self, api: Api) -> None:
        ref = api.running()
        assert page(api, ref) == {
            "attempt": 1,
            "parts": [],
            "next": 0,
            "more": False,
            "ended": False,
            "next_attempt": None,
            "finished": False,
        }
        assert send(api, ref, 0, b"one\n\x00\xff") == 204
        assert shown(api, ref) == [(0, 0, b"one\n\x00\xff")]
        following = page(api, ref)["next"]
        assert following == 6
        assert send(api, ref, 6, b"two") == 204
        assert shown(api, ref, after=following) == [(6, 0, b"two")]
        assert shown(api, ref, attempt=1) == [(0, 0, b"one\n\x00\xfftwo")]

    def test_what_is_sent_again_is_kept_once_and_its_new_part_as_well(self, api: Api) -> None:
        ref = api.running()
        taken, repeated = counted("taken"), counted("repeated")
        assert [send(api, ref, 0, b"abc"), send(api, ref, 0, b"abc")] == [204, 204]
        # Its answer was lost, and more has come meanwhile.
        assert send(api, ref, 0, b"abcdef") == 204
        assert shown(api, ref) == [(0, 0, b"abcdef")]
        assert (counted("taken") - taken, counted("repeated") - repeated) == (6, 6)

    def test_a_gap_is_shown_and_what_comes_late_is_not_put_into_it(self, api: Api) -> None:
        ref, missing = api.running(), counted("missing")
        assert send(api, ref, 0, b"abc") == 204
        assert send(api, ref, 10, b"k") == 204
        assert send(api, ref, 3, b"defg") == 204
        assert shown(api, ref) == [(0, 0, b"abc"), (10, 7, b"k")]
        assert counted("missing") - missing == 7

    def test_no_more_is_kept_than_the_latest_in_few_rows(self, api: Api) -> None:
        ref = api.running()
        data = os.urandom(CHUNK_LIMIT)
        for number in range(6):
            assert send(api, ref, number * CHUNK_LIMIT, data) == 204
        ((start, missing, kept),) = shown(api, ref)
        assert start == missing == 6 * CHUNK_LIMIT - len(kept)
        assert KEPT <= len(kept) <= KEPT + CHUNK_LIMIT
        ref = api.running()
        for number in range(300):
            assert send(api, ref, number * 100, b"x" * 100) == 204
        assert rows(api, ref) <= 300 * 100 // logs.ROW_BYTES + 1
        assert sum(len(one[2]) for one in shown(api, ref)) == 30_000

    def test_one_that_comes_a_moment_after_another_is_put_off(self, api: Api) -> None:
        ref = api.running()
        assert send(api, ref, 0, b"a") == 204
        assert send(api, ref, 1, b"b", later=False) == 425
        assert send(api, ref, 0, b"a", later=False) == 204, "there is nothing new in it"
        assert shown(api, ref) == [(0, 0, b"a")]

    def test_two_that_come_at_once_are_kept_once(self, api: Api) -> None:
        ref = api.running()
        other = api.database._engine.connect()
        with api.database.begin() as tx:
            logs.append(tx, ref, LogChunk(0, b"abc"), kept=KEPT)
            # The other one has read that there is nothing yet, and waits for the row.
            other.execute(text("SET lock_timeout = '10ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                logs.append(other, ref, LogChunk(0, b"abcdef"), kept=KEPT)
        other.close()
        assert shown(api, ref) == [(0, 0, b"abc")]
        with api.database.begin() as tx, pytest.raises(TooEarly):
            logs.append(tx, ref, LogChunk(0, b"abcdef"), kept=KEPT)

    @pytest.mark.parametrize("start", ["-1", str(2**63), "x", ""])
    def test_a_position_that_can_be_none_is_refused(self, api: Api, start: str) -> None:
        ref = api.running()
        answer = api.http.post(
            f"/jobs/{ref.job_id}/callback/log?start={start}",
            content=b"a",
            headers=bearer(token_of(ref)),
        )
        assert answer.status_code == 422
        assert "start" in answer.json()["fields"]

    def test_a_chunk_that_is_too_large_is_refused(self, api: Api) -> None:
        ref = api.running()
        assert send(api, ref, 0, b"x" * (CHUNK_LIMIT + 1)) == 413
        assert shown(api, ref) == []

    def test_only_the_current_attempts_token_counts(self, api: Api) -> None:
        ref, other = api.running(), api.running()
        assert send(api, ref, 0, b"x", token=token_of(other)) == 401
        assert send(api, AttemptRef(ref.job_id, 2), 0, b"x") == 401
        assert send(api, api.running()._replace(job_id=ref.job_id, number=9), 0, b"x") == 401
        path = f"/jobs/{ref.job_id}/callback"
        assert api.http.post(f"{path}/log?start=0", content=b"x").status_code == 401
        assert api.http.get(path).status_code == 401
        assert shown(api, ref) == []

    def test_before_the_claim_and_after_the_report_nothing_is_taken(self, api: Api) -> None:
        ref = api.warming()
        assert send(api, ref, 0, b"x") == 422
        assert api.claim(ref, claim="c").status_code == 204
        assert send(api, ref, 0, b"x") == 204
        assert api.exit(ref, claim="c", exit_code=0).status_code == 204
        assert send(api, ref, 1, b"y") == 422
        assert shown(api, ref) == [(0, 0, b"x")]


class TestScript:
    def test_a_machine_is_given_the_script_that_its_user_data_names(self, api: Api) -> None:
        ref = api.running()
        answer = api.http.get(f"/jobs/{ref.job_id}/callback", headers=bearer(token_of(ref)))
        assert answer.status_code == 200
        assert answer.text == LOG_SHIPPER

    def test_where_nothing_is_kept_machines_are_given_none(self, database_url: str) -> None:
        with serving(database_url, log_kept_bytes=0) as api:
            ref = api.running()
            path = f"/jobs/{ref.job_id}/callback"
            refused = api.http.get(path, headers=bearer(token_of(ref)))
            assert refused.status_code == 404
            assert "ATEMPORAL_LOG_KEPT_BYTES" in refused.json()["error"]
            assert send(api, ref, 0, b"x") == 422


class TestEnd:
    def end(self, api: Api, ref: AttemptRef, tail: bytes, **more: Any) -> httpx.Response:
        log = base64.b64encode(tail).decode()
        return api.exit(ref, claim="c-1", exit_code=0, log_tail=log, **more)

    def test_the_reported_end_follows_what_was_sent(self, api: Api) -> None:
        ref = api.running()
        assert send(api, ref, 0, b"one\ntwo\n") == 204
        assert self.end(api, ref, b"one\ntwo\nthree\n").status_code == 204
        assert shown(api, ref) == [(0, 0, b"one\ntwo\nthree\n")]
        last = page(api, ref, after=8)
        assert base64.b64decode(last["parts"][0]["data"]) == b"three\n"
        assert (last["ended"], last["finished"], last["next"]) == (True, True, 14)
        plain = api.http.get(f"/jobs/{ref.job_id}/log")
        assert plain.content == b"one\ntwo\nthree\n", "as for older clients"

    def test_a_long_one_is_put_where_the_machine_has_counted_it(self, api: Api) -> None:
        ref = api.running()
        tail = b"y" * 32 * 1024
        assert send(api, ref, 0, b"x" * 10) == 204
        assert self.end(api, ref, tail, log_bytes=50_000).status_code == 204
        assert shown(api, ref) == [(0, 0, b"x" * 10), (50_000 - 32_768, 17_222, tail)]
        assert api.http.get(f"/jobs/{ref.job_id}").json()["instances"][0]["log_bytes"] == 50_000

    def test_one_that_nobody_counted_is_said_to_be(self, api: Api) -> None:
        ref = api.running()
        tail = b"y" * 32 * 1024
        assert send(api, ref, 0, b"x" * 10) == 204
        assert self.end(api, ref, tail).status_code == 204
        assert shown(api, ref) == [(0, 0, b"x" * 10), (10, None, tail)]
        assert page(api, ref, after=10 + len(tail))["parts"] == []

    def test_of_a_container_that_a_cancel_stops_the_end_is_kept_once(self, api: Api) -> None:
        ref = api.running()
        assert send(api, ref, 0, b"begun\n") == 204
        assert api.http.delete(f"/jobs/{ref.job_id}").status_code == 200
        assert page(api, ref)["ended"] is False, "its machine may still report"
        assert send(api, ref, 6, b"stopping\n") == 204
        report = b"begun\nstopping\nstopped\n"
        wrong = api.exit(ref, claim="other", log_tail=base64.b64encode(report).decode())
        assert wrong.status_code == 422
        assert self.end(api, ref, report, stopped=True).status_code == 204
        assert self.end(api, ref, b"again", stopped=True).status_code == 422
        assert shown(api, ref) == [(0, 0, report)]
        job = api.job(ref.job_id)
        assert (job.outcome, job.reason) == (Outcome.CANCELLED, Reason.CANCELLED)
        assert job.attempts[-1].exit_code is None
        assert page(api, ref)["ended"] is True

    def test_a_machine_that_is_gone_ends_it_too(self, api: Api) -> None:
        ref = api.running()
        assert api.http.delete(f"/jobs/{ref.job_id}").status_code == 200
        with api.database.begin() as tx:
            assert attempts.close(tx, ref, actor="test")
        assert page(api, ref)["ended"] is True
        assert api.job(ref.job_id).attempts[-1].state is AttemptState.CLOSED

    def test_it_names_the_attempt_behind(self, api: Api) -> None:
        job_id = api.submitted(max_attempts=2, backoff_s=0)
        none = AttemptRef(job_id, 0)
        assert page(api, none) == page(api, none, attempt=0)
        assert page(api, none)["next_attempt"] is None
        ref = api.running(max_attempts=2, backoff_s=0)
        assert page(api, ref, attempt=0)["next_attempt"] == 1
        assert api.exit(ref, claim="c-1", exit_code=1).status_code == 204
        first = page(api, ref, attempt=1)
        assert (first["ended"], first["finished"], first["next_attempt"]) == (True, False, None)
        with api.database.begin() as tx:
            assert jobs.get(tx, ref.job_id).outcome is None
        assert api.http.get(f"/jobs/{ref.job_id}/logs?attempt=2").status_code == 404


def test_a_page_is_bounded_and_the_next_one_goes_on(database_url: str) -> None:
    with serving(database_url, log_kept_bytes=4 * 1024 * 1024) as api:
        ref = api.running()
        chunks = [os.urandom(CHUNK_LIMIT) for _ in range(logs.PAGE_CHUNKS + 2)]
        for number, data in enumerate(chunks):
            assert send(api, ref, number * CHUNK_LIMIT, data) == 204
        first = page(api, ref)
        assert (first["more"], first["next"]) == (True, logs.PAGE_CHUNKS * CHUNK_LIMIT)
        second = page(api, ref, after=first["next"])
        assert second["more"] is False
        got = [*first["parts"], *second["parts"]]
        assert b"".join(base64.b64decode(one["data"]) for one in got) == b"".join(chunks)
