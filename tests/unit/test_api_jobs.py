"""The API for clients, over a real Postgres; the broker is away all the time."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg2
import pytest
import structlog.testing

from atemporal import model
from atemporal.clock import parse_utc
from atemporal.errors import Invalid, Refused
from atemporal.settings import Settings
from atemporal.states import JobState, Outcome, Reason
from atemporal.store import api_tokens, attempts
from atemporal.store.database import Database, server_time
from services.api import schemas
from services.api.server import ApiServer
from tests.api import KEYS, Api, bearer, serving, until


@pytest.fixture(scope="module")
def closed(database_url: str) -> Iterator[Api]:
    """Listens on loopback too, under a name that does not say so."""
    with serving(database_url, api_host="127.1") as served:
        yield served


def posted(api: Api, status: int = 201, **fields: Any) -> dict[str, Any]:
    response = api.http.post("/jobs", json={"image": "nginx:1.9", **fields})
    assert response.status_code == status, response.text
    return dict(response.json())


def test_the_root_returns_the_servers_utc_clock(api: Api) -> None:
    response = api.http.get("/").json()
    assert response.keys() >= {"message", "now"}
    with api.database.begin() as tx:
        assert abs((parse_utc(response["now"]) - server_time(tx)).total_seconds()) < 60
    assert response["now"].endswith("Z")


def unread(job: dict[str, Any]) -> dict[str, Any]:
    """A job but for when it was read."""
    return {name: value for name, value in job.items() if name != "read_at"}


def test_a_job_reads_back_as_it_was_posted(api: Api) -> None:
    payload = base64.b64encode(b"A=1\nB=two words\n").decode()
    sent = {"image": "nginx:1.9", "time": "2015-04-25T05:27:27.069Z", "payload": payload}
    made = api.http.post("/jobs", data=sent)
    assert made.status_code == 201
    job = made.json()
    assert {name: job[name] for name in sent} == sent
    assert job["state"] == "scheduled"
    assert job["instances"] == []
    assert job["env"] == {"A": "1", "B": "two words"}
    for path in (made.headers["Location"], f"/jobs/{job['id']}.json"):
        assert unread(api.http.get(path).json()) == unread(job)


def test_every_kind_of_field_can_be_posted_and_is_shown(api: Api) -> None:
    asked: dict[str, Any] = {
        "run_at": "2099-01-01T00:00:00.000Z",
        "command": ["sh", "-c", "echo é"],
        "env": {"A": "two\nlines $`'\""},
        "labels": {"team": "blue"},
        "ports": ["8080:80/tcp"],
        "timeout_s": 60,
        "max_attempts": 3,
        "machine": {
            "instance_types": ["t3.micro"],
            "capacity_type": "spot",
            "subnets": [],
            "disk_gb": 9,
        },
    }
    job = posted(api, **asked)
    assert job["time"] == asked.pop("run_at")
    assert {name: job[name] for name in asked} == asked
    assert job["due_at"] == job["time"]


def test_a_job_without_a_time_is_due_now(api: Api) -> None:
    job = posted(api)
    assert job["time"] == job["created_at"]
    assert parse_utc(posted(api, delay_s=3600)["time"]) > parse_utc(job["time"])


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"image": "andrerocker; sh -c ' echo RAHHH!'"}, "image"),
        ({"image": None}, "image"),
        ({"time": "tomorrow"}, "time"),
        ({"payload": "%%%"}, "payload"),
        ({"payload": "QT0xCg==", "env": {"A": "1"}}, "payload"),
        ({"env": {"A": 1}}, "env.A"),
        ({"env": {"A": "x" * 130_000}}, "env"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"colour": "red"}, "colour"),
        ({"machine": {"disk": 1}}, "machine.disk"),
        ({"key": ""}, "key"),
        ({"key": "a\0"}, "key"),
    ],
)
def test_bad_fields_of_a_submit_are_named_and_nothing_is_written(
    api: Api, fields: dict[str, Any], bad: str
) -> None:
    before = api.http.get("/jobs?limit=1").json()["total"]
    response = posted(api, 422, **fields)
    assert bad in response["fields"]
    assert bad in response["error"]
    assert api.http.get("/jobs?limit=1").json()["total"] == before


def test_a_body_that_is_too_large_is_refused_unread(api: Api) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * 60_000

    announced = api.http.post("/jobs", content=b"x" * 300_000)
    unannounced = api.http.post("/jobs", content=endless())
    for response in (announced, unannounced):
        assert response.status_code == 413
        assert "262144" in response.json()["error"]


def test_the_same_key_is_the_same_job(api: Api) -> None:
    header = {"Idempotency-Key": str(uuid4())}
    first = api.http.post("/jobs", json={"image": "nginx", "env": {"A": "1"}}, headers=header)
    again = api.http.post("/jobs", data={"image": "nginx", "payload": "QT0xCg=="}, headers=header)
    assert (first.status_code, again.status_code) == (201, 200)
    assert unread(again.json()) == unread(first.json())
    assert posted(api, 200, image="nginx", env={"A": "1"}, key=header["Idempotency-Key"])
    other = api.http.post("/jobs", json={"image": "nginx", "env": {"A": "sec"}}, headers=header)
    assert other.status_code == 409
    assert other.json()["differs"] == {"env": "variables A"}
    assert first.json()["id"] in other.json()["error"]
    assert "sec" not in other.text


def test_unknown_and_malformed_ids_are_404(api: Api) -> None:
    for job_id in ("7", str(uuid4()), "x" * 200, "%00", f"{{{uuid4()}}}"):
        for method in ("GET", "DELETE"):
            response = api.http.request(method, f"/jobs/{job_id}.json")
            assert response.status_code == 404
            assert response.json().keys() == {"error"}
        assert api.http.post(f"/jobs/{job_id}/retry").status_code == 404
        assert api.http.patch(f"/jobs/{job_id}/callback").status_code == 404


def test_wrong_paths_and_methods_are_json_errors(api: Api) -> None:
    for response in (api.http.get("/nope"), api.http.put("/jobs"), api.http.get("/jobs/7/8/9")):
        assert response.status_code in (404, 405)
        assert response.json().keys() == {"error"}


def test_a_listing_is_ordered_filtered_and_paged(api: Api) -> None:
    mark = uuid4().hex
    ids = [
        posted(api, labels={"mark": mark, "n": str(number % 2)}, delay_s=3600)["id"]
        for number in range(5)
    ]
    api.http.delete(f"/jobs/{ids[0]}")
    path = f"/jobs.json?label=mark={mark}"
    everything = api.http.get(path).json()
    assert [job["id"] for job in everything["jobs"]] == ids
    assert (everything["total"], everything["next"]) == (5, None)
    page = api.http.get(f"{path}&limit=2").json()
    assert [job["id"] for job in page["jobs"]] == ids[:2]
    assert (page["total"], page["next"]) == (5, ids[1])
    rest = api.http.get(f"{path}&after={page['next']}").json()
    assert [job["id"] for job in rest["jobs"]] == ids[2:]
    odd = api.http.get(f"{path}&label=n=1").json()
    assert [job["id"] for job in odd["jobs"]] == [ids[1], ids[3]]
    assert api.http.get(f"{path}&state=finished").json()["total"] == 1
    assert api.http.get(f"{path}&state=finished&state=scheduled").json()["total"] == 5
    empty = api.http.get(f"{path}&state=&limit=&after=&order=").json()
    assert [job["id"] for job in empty["jobs"]] == ids
    newest = api.http.get(f"{path}&order=newest&limit=2").json()
    assert [job["id"] for job in newest["jobs"]] == ids[:2:-1]
    older = api.http.get(f"{path}&order=newest&after={newest['next']}").json()
    assert [job["id"] for job in older["jobs"]] == ids[2::-1]
    assert api.http.get(f"{path}&order=oldest").json()["jobs"][0]["id"] == ids[0]


@pytest.mark.parametrize(
    ("query", "bad"),
    [
        ("state=sleeping", "state"),
        ("label=team", "label"),
        ("label=a=1&label=a=2", "label"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=7", "after"),
        ("order=random", "order"),
        ("order=newest&order=oldest", "order"),
        ("lable=a=1", "lable"),
        ("statee=running", "statee"),
        ("State=running", "State"),
        ("limit=1&limit=2", "limit"),
        ("label=a%3D%00", "label"),
        ("label=%00%3Da", "label"),
        ("state=%00", "state"),
        ("after=%00", "after"),
        ("%00=1", "\0"),
    ],
)
def test_a_bad_filter_of_a_listing_is_named(api: Api, query: str, bad: str) -> None:
    response = api.http.get(f"/jobs?{query}")
    assert response.status_code == 422
    assert list(response.json()["fields"]) == [bad]


def test_a_job_is_shown_by_a_part_of_its_id_and_changed_by_all_of_it(api: Api) -> None:
    job = posted(api, delay_s=3600)["id"]
    for part in (job, job.upper(), job[:-2], job[-12:]):
        assert api.http.get(f"/jobs/{part}").json()["id"] == job
        assert api.http.get(f"/jobs/{part}/events").json()["events"][0]["job_id"] == job
    for part in (job[:3], job[-3:], "not-an-id-at-all", "%"):
        for path in ("", "/events", "/log"):
            assert api.http.get(f"/jobs/{part}{path}").status_code == 404
    posted(api, delay_s=3600)
    ambiguous = api.http.get(f"/jobs/{job[:8]}")
    assert ambiguous.status_code == 404
    assert job in ambiguous.json()["error"]
    assert api.http.delete(f"/jobs/{job[:-2]}").status_code == 404
    assert api.http.get(f"/jobs/{job}").json()["state"] == "scheduled"


def test_no_call_passes_over_a_query_it_does_not_know(api: Api) -> None:
    job = posted(api, delay_s=3600)["id"]
    before = api.http.get("/jobs").json()["total"]
    calls = [
        *(("POST", "/jobs"), ("GET", f"/jobs/{job}"), ("DELETE", f"/jobs/{job}")),
        ("POST", f"/jobs/{job}/retry"),
    ]
    for method, path in calls:
        response = api.http.request(method, f"{path}?image=nginx", json={"image": "nginx"})
        assert (response.status_code, list(response.json()["fields"])) == (422, ["image"]), path
    assert api.http.get("/jobs").json()["total"] == before
    assert api.http.get(f"/jobs/{job}").json()["state"] == "scheduled"


@pytest.mark.parametrize("text", ["%00", "a%00b", "%ED%A0%80", "%FF", "..%2F"])
def test_text_that_no_database_keeps_is_the_callers_fault(api: Api, text: str) -> None:
    for method, path in (
        ("GET", f"/jobs/{text}"),
        ("DELETE", f"/jobs/{text}"),
        ("GET", f"/{text}"),
    ):
        assert api.http.request(method, path).status_code in (404, 405), path
    assert api.http.get(f"/jobs?label=a%3D{text}").status_code in (200, 422)
    key = {"Idempotency-Key": text}
    assert api.http.post("/jobs", json={"image": "a"}, headers=key).status_code in (200, 201)
    assert api.http.post("/jobs", json={"image": "a", "key": "\0"}).status_code == 422


def test_a_cancel_finishes_once_and_a_retry_begins_again(api: Api) -> None:
    ref = api.running()
    path = f"/jobs/{ref.job_id}"
    assert api.http.post(f"{path}/retry").status_code == 409
    cancelled = api.http.delete(path)
    assert cancelled.status_code == 200
    assert (cancelled.json()["state"], cancelled.json()["outcome"]) == ("finished", "cancelled")
    assert api.http.delete(path).status_code == 200
    assert api.http.post(f"{path}/retry").json()["state"] == "scheduled"
    assert ("job.finished.cancelled", "api") in api.actors(ref.job_id)
    api.emit(ref.job_id)
    assert api.job(ref.job_id).attempt == 2


def test_a_job_that_finished_otherwise_can_not_be_cancelled(api: Api) -> None:
    ref = api.running()
    assert api.exit(ref, exit_code=0).status_code == 204
    response = api.http.delete(f"/jobs/{ref.job_id}")
    assert response.status_code == 409
    assert "succeeded" in response.json()["error"]


def test_instances_and_log_are_shown(api: Api) -> None:
    ref = api.warming(instance_id=f"i-{uuid4().hex[:17]}")
    with api.database.begin() as tx:
        attempts.set_address(tx, ref, "ec2.example", "192.0.2.1")
    log = base64.b64encode("größe \n".encode() + b"\xff").decode()
    assert api.exit(ref, exit_code=3, log_tail=log).status_code == 204
    job = api.http.get(f"/jobs/{ref.job_id}").json()
    (instance,) = job["instances"]
    assert instance["id"] == 1
    assert instance["aws_id"] == api.job(ref.job_id).attempts[0].instance_id
    assert (instance["dns"], instance["ip"]) == ("ec2.example", "192.0.2.1")
    assert (job["state"], job["outcome"], job["exit_code"]) == ("finished", "failed", 3)
    assert job["log_tail"] == "größe \n\ufffd"


def test_a_history_is_what_happened_in_its_order(api: Api) -> None:
    ref = api.running()
    events = api.http.get(f"/jobs/{ref.job_id}/events").json()["events"]
    assert [(one["type"], one["actor"]) for one in events] == api.actors(ref.job_id)
    assert [one["event_id"] for one in events] == sorted(one["event_id"] for one in events)


def test_the_log_of_an_attempt_is_its_very_bytes(api: Api) -> None:
    ref, printed = api.running(), b"<b>\xff\r\n\0</b>"
    path = f"/jobs/{ref.job_id}/log"
    assert api.http.get(path).content == b""
    assert api.exit(ref, exit_code=0, log_tail=base64.b64encode(printed).decode()).is_success
    for query in ("", "?attempt=1", "?attempt="):
        sent = api.http.get(f"{path}{query}")
        assert sent.content == printed
        assert sent.headers["Content-Type"].startswith("text/plain")
        assert sent.headers["X-Content-Type-Options"] == "nosniff"
    assert api.http.get(f"{path}?attempt=2").status_code == 404
    for query in ("attempt=0", "attempt=x", "attempt=1&attempt=1", "try=1"):
        assert api.http.get(f"{path}?{query}").status_code == 422, query


def test_an_unexpected_error_shows_nothing_of_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret cause")

    monkeypatch.setattr(schemas.JobPage, "show", broken)
    with structlog.testing.capture_logs() as lines:
        response = api.http.get("/jobs?label=hidden=1")
        until(lambda: any(line["event"] == "request" for line in lines))
    assert response.status_code == 500
    assert response.json().keys() == {"error"}
    assert "secret" not in response.text
    # Other threads log as well.
    failed, line = (one for one in lines if one["event"].startswith("request"))
    assert (failed["event"], failed["exc_info"]) == ("request failed", True)
    assert (line["path"], line["status"]) == ("/jobs", 500)
    assert "hidden" not in str(lines)
    assert api.http.get("/").status_code == 200


def test_a_submit_whose_commit_was_not_answered_is_neither_done_nor_not_done(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = api.database._engine.dialect
    commit = dialect.do_commit

    def unanswered(connection: Any) -> None:
        commit(connection)
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    before = api.http.get("/jobs").json()["total"]
    monkeypatch.setattr(dialect, "do_commit", unanswered)
    doubtful = api.http.post("/jobs", json={"image": "nginx"})
    reading = api.http.get("/jobs")
    monkeypatch.undo()
    assert doubtful.status_code == 500
    assert "nobody knows whether this was done" in doubtful.json()["error"]
    assert "Retry-After" not in doubtful.headers
    assert reading.status_code == 503
    assert api.http.get("/jobs").json()["total"] == before + 1


def test_the_documentation_is_served_with_the_bodies_it_reads(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "application/x-www-form-urlencoded"}
    exit_body = document["paths"]["/jobs/{job_id}/callback"]["delete"]["requestBody"]["content"]
    assert (
        exit_body["application/json"]["schema"]["properties"].keys()
        == model.ExitRecord.model_fields.keys()
    )
    assert "HTTPValidationError" not in json.dumps(document["paths"])


def test_probes_and_metrics_respond(api: Api) -> None:
    assert api.http.get("/healthz").json() == {"ok": True}
    assert api.http.get("/readyz").json() == {"ok": True}
    posted(api)
    assert 'atemporal_submits_total{result="accepted",via="http"}' in api.http.get("/metrics").text
    assert api.http.head("/").status_code == 200


def test_beyond_loopback_each_call_needs_a_token_that_allows_it(closed: Api) -> None:
    http = closed.http
    names = {scope: f"{scope}-{uuid4().hex}" for scope in api_tokens.SCOPES}
    with closed.database.begin() as tx:
        secrets = {scope: api_tokens.create(tx, names[scope], [scope]) for scope in names}
    job_id = closed.submitted(delay_s=3600)
    allowed = {
        ("POST", "/jobs"): "submit",
        ("GET", "/jobs"): "read",
        ("GET", f"/jobs/{job_id}"): "read",
        ("GET", f"/jobs/{job_id}/events"): "read",
        ("GET", "/metrics"): "read",
        ("DELETE", f"/jobs/{job_id}"): "cancel",
        ("POST", f"/jobs/{job_id}/retry"): "cancel",
    }
    for (method, path), scope in allowed.items():

        def call(headers: dict[str, str], method: str = method, path: str = path) -> int:
            content = b"image=nginx" if path == "/jobs" and method == "POST" else None
            return http.request(method, path, content=content, headers=headers).status_code

        assert call({}) == 401
        assert call(bearer("atp_wrong")) == 401
        assert call({"Authorization": f"Basic {secrets[scope]}"}) == 401
        for other in {"submit", "read", "cancel"} - {scope}:
            assert call(bearer(secrets[other])) == 403
        assert call(bearer(secrets[scope])) < 300
        assert call(bearer(secrets["admin"])) in (200, 201, 409)
    for path in ("/", "/healthz", "/readyz", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
        assert http.get(path).status_code == 200
    actors = {actor for _, actor in closed.actors(job_id)}
    assert f"api:{names['cancel']}" in actors
    refused = http.get("/jobs")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json().keys() == {"error"}


def test_machines_need_no_api_token(closed: Api) -> None:
    ref = closed.warming()
    assert closed.claim(ref, claim="c").status_code == 204
    assert closed.exit(ref, exit_code=0).status_code == 204
    assert closed.job(ref.job_id).outcome is Outcome.SUCCEEDED


def test_with_api_open_no_call_needs_a_token(database_url: str) -> None:
    with serving(database_url, api_host="127.1", api_open=True) as served:
        for header in ({}, {"Authorization": "Basic YTpi"}, bearer("eyJhbGciOi.of.others")):
            assert served.http.get("/jobs", headers=header).status_code == 200
        shown_tokens_count(served, wrong=["Bearer atp_wrong"])


def test_on_loopback_a_token_that_is_shown_counts(api: Api) -> None:
    secret = "atp_wrong"
    shown_tokens_count(
        api, wrong=[f"Bearer {secret}", f"Basic {secret}", "Bearer", secret, "Bearer \u00e9"]
    )


def shown_tokens_count(served: Api, wrong: list[str]) -> None:
    """Where no token is needed a right one is in the history, and a wrong one is refused."""
    name, job = uuid4().hex, {"image": "nginx"}
    with served.database.begin() as tx:
        secret = api_tokens.create(tx, name, ["submit"])
    submitted = served.http.post("/jobs", json=job, headers=bearer(secret))
    assert submitted.status_code == 201
    assert {actor for _, actor in served.actors(UUID(submitted.json()["id"]))} == {f"api:{name}"}
    for shown in wrong:
        header = {b"Authorization": shown.encode("latin-1")}
        refused = served.http.post("/jobs", json=job, headers=header)
        assert refused.status_code == 401, shown
    assert served.http.get("/jobs", headers=bearer(secret)).status_code == 403
    with served.database.begin() as tx:
        api_tokens.revoke(tx, name)
    assert served.http.post("/jobs", json=job, headers=bearer(secret)).status_code == 401


def test_a_page_of_another_host_gets_nothing_out_of_an_open_api(api: Api) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8080"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"Via": "1.1 proxy"},
    ):
        assert api.http.get("/jobs", headers=headers).status_code == 403, headers
    assert api.http.get("/jobs", headers={"Host": "localhost:1234"}).status_code == 200

    def call(origin: str) -> httpx.Response:
        return api.http.post("/jobs", data={"image": "nginx"}, headers={"Origin": origin})

    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "http://[x"):
        assert call(origin).status_code == 403
    for origin in ("http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080"):
        assert call(origin).status_code == 201


def test_without_callback_keys_nothing_listens(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(Invalid, match="ATEMPORAL_CALLBACK_KEYS"):
        ApiServer(Settings(), database)
    database.dispose()


def test_an_address_that_is_taken_is_refused_at_the_start(api: Api) -> None:
    taken = {"api_port": httpx.URL(api.http.base_url).port, "callback_keys": KEYS}
    server = ApiServer(Settings.model_validate(taken), api.database)
    with pytest.raises(Refused, match="can not listen on 127"):
        server.start()


def test_no_piece_of_a_response_waits_for_the_clients_ack(api: Api) -> None:
    given = {"api_port": 0, "callback_keys": KEYS, "broker_url": "amqp://127.0.0.1:1//"}
    server = ApiServer(Settings.model_validate(given), api.database)
    server.start()
    try:
        assert server._socket is not None
        assert server._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        assert server.stop()


def test_a_queued_job_is_shown_as_queued(api: Api) -> None:
    job_id = UUID(posted(api)["id"])
    api.emit(job_id)
    assert api.http.get(f"/jobs/{job_id}").json()["state"] == JobState.QUEUED


class TestReschedule:
    """Another time, over HTTP; what it means in each phase is tested at the store."""

    def retimed(self, api: Api, job_id: UUID, **body: Any) -> httpx.Response:
        return api.http.patch(f"/jobs/{job_id}", json=body)

    def test_a_job_that_waits_gets_another_time(self, api: Api) -> None:
        job_id = api.submitted(delay_s=3600)
        answer = self.retimed(api, job_id, time="2040-01-02T03:04:05Z")
        assert answer.status_code == 200
        assert answer.json()["time"] == answer.json()["due_at"] == "2040-01-02T03:04:05.000Z"
        assert self.retimed(api, job_id, time="2040-01-02T03:04:05Z").status_code == 200
        events = api.http.get(f"/jobs/{job_id}/events").json()["events"]
        assert [one["type"] for one in events] == ["job.scheduled", "job.rescheduled"]
        assert events[-1]["detail"]["time"] == "2040-01-02T03:04:05.000Z"

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"time": None},
            {"time": "tomorrow"},
            {"time": 7},
            {"delay_s": -1},
            {"delay_s": "9"},
            {"time": "2040-01-02T03:04:05Z", "delay_s": 3},
            {"delay_s": 3, "image": "nginx"},
        ],
    )
    def test_bad_input_is_refused_and_changes_nothing(self, api: Api, body: Any) -> None:
        job_id = api.submitted(delay_s=3600)
        before = api.job(job_id)
        answer = self.retimed(api, job_id, **body)
        assert answer.status_code == 422
        assert answer.json()["fields"]
        assert api.job(job_id).due_at == before.due_at

    def test_one_that_runs_or_is_not_there_is_told_so(self, api: Api) -> None:
        running = api.running()
        answer = self.retimed(api, running.job_id, delay_s=60)
        assert answer.status_code == 409
        assert "keeps its time" in answer.json()["error"]
        assert self.retimed(api, UUID(int=1), delay_s=60).status_code == 404

    def test_a_machine_that_can_not_wait_so_long_is_ended(self, api: Api) -> None:
        ref = api.warming(delay_s=60)
        assert self.retimed(api, ref.job_id, delay_s=86_400).status_code == 200
        job = api.job(ref.job_id)
        assert (job.state, job.attempts[0].reason) == (JobState.SCHEDULED, Reason.RESCHEDULED)

    @pytest.mark.parametrize(
        ("lead", "status"),
        [
            *[("auto", 201), (0, 201), (90, 201), (600, 201)],
            *[(601, 422), (-1, 422), ("90", 422), (1.5, 422), (True, 422), ("now", 422)],
        ],
    )
    def test_a_lead_is_auto_or_whole_seconds(self, api: Api, lead: Any, status: int) -> None:
        answer = api.http.post("/jobs", json={"image": "nginx", "lead": lead})
        assert answer.status_code == status, answer.text
        if status == 201:
            assert answer.json()["lead"] == lead
        else:
            assert "write auto, or whole seconds" in answer.json()["fields"]["lead"]

    @pytest.mark.parametrize(("text", "lead"), [("90", 90), ("auto", "auto")])
    def test_a_form_gives_it_as_text(self, api: Api, text: str, lead: Any) -> None:
        answer = api.http.post("/jobs", data={"image": "nginx", "lead": text})
        assert answer.json()["lead"] == lead
