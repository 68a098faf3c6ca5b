"""The client of the API: what it sends, and what each answer means to its caller."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from atemporal import client
from atemporal.client import Client
from atemporal.errors import (
    AtemporalError,
    Conflict,
    Denied,
    Invalid,
    InvalidLines,
    NotFound,
    Refused,
    Unavailable,
    Unknown,
)
from tests.answering import Answer, answering

JOB = b'{"id": "7"}'
READ: Callable[[Client], Any] = lambda client: client.job("7")  # noqa: E731
SUBMIT: Callable[[Client], Any] = lambda client: client.submit({"image": "a"})  # noqa: E731
CANCEL: Callable[[Client], Any] = lambda client: client.cancel("7")  # noqa: E731
RETRY: Callable[[Client], Any] = lambda client: client.retry("7")  # noqa: E731


def problem(status: int, **fields: Any) -> Answer:
    return Answer(status, json.dumps({"error": "because", **fields}).encode())


def test_a_submit_carries_its_fields_its_key_and_the_token() -> None:
    with answering(Answer(201, JOB), Answer(200, JOB)) as (url, asked):
        client = Client(f"{url}/", "atp_1")
        fields = {"image": "nginx", "env": {"NAME": "b\u00f6nd\n"}}
        for new in (True, False):
            job, created = client.submit(fields, key="n-1")
            assert (job["id"], created) == ("7", new)
    first, _ = asked
    assert (first.method, first.path) == ("POST", "/jobs")
    assert json.loads(first.body) == {**fields, "key": "n-1"}
    assert first.headers["content-type"] == "application/json"
    assert first.headers["authorization"] == "Bearer atp_1"


def test_each_call_about_schedules_goes_its_way() -> None:
    one = Answer(200, b'{"name": "n"}')
    with answering(*[one] * 8, Answer(201, JOB)) as (url, asked):
        client = Client(url)
        client.create_schedule({"name": "n", "cron": "@daily", "job": {"image": "a"}})
        client.schedules(limit=2, after="m")
        client.schedule("n", next_fires=1, fires=0)
        client.edit_schedule("n", {"cron": "@hourly"}, version=3)
        client.pause_schedule("n")
        client.resume_schedule("n")
        client.delete_schedule("a/b")
        client.schedule("n")
        job, created = client.run_schedule("n", key="k")
        with pytest.raises(NotFound, match="name is empty"):
            client.schedule(" ")
    assert (job["id"], created) == ("7", True)
    assert [(one.method, one.path) for one in asked] == [
        ("POST", "/schedules"),
        ("GET", "/schedules?limit=2&after=m"),
        ("GET", "/schedules/n?next=1&fires=0"),
        ("PATCH", "/schedules/n"),
        ("POST", "/schedules/n/pause"),
        ("POST", "/schedules/n/resume"),
        ("DELETE", "/schedules/a%2Fb"),
        ("GET", "/schedules/n"),
        ("POST", "/schedules/n/run"),
    ]
    assert json.loads(asked[3].body) == {"cron": "@hourly", "version": 3}
    assert json.loads(asked[8].body) == {"key": "k"}


def test_each_call_about_webhooks_and_events_goes_its_way() -> None:
    one = Answer(200, b'{"name": "n", "retried": 2}')
    with answering(*[one] * 12) as (url, asked):
        client = Client(url)
        client.create_webhook({"name": "n", "url": "https://example.com"})
        client.webhooks(limit=2, after="m")
        client.webhook("a/b")
        client.pause_webhook("n")
        client.resume_webhook("n", skip=True)
        client.rotate_webhook_secret("n")
        client.test_webhook("n")
        client.failed_deliveries("n", after=7)
        assert client.retry_deliveries("n", [7]) == 2
        client.delete_webhook("n")
        client.event_page(last=3)
        client.event_page(
            after=0, job_id="7", labels={"a": "b"}, types=["job"], since="t", limit=5
        )
        with pytest.raises(NotFound, match="name is empty"):
            client.webhook("")
    assert [(one.method, one.path) for one in asked] == [
        ("POST", "/webhooks"),
        ("GET", "/webhooks?limit=2&after=m"),
        ("GET", "/webhooks/a%2Fb"),
        ("POST", "/webhooks/n/pause"),
        ("POST", "/webhooks/n/resume"),
        ("POST", "/webhooks/n/rotate-secret"),
        ("POST", "/webhooks/n/test"),
        ("GET", "/webhooks/n/failed?limit=100&after=7"),
        ("POST", "/webhooks/n/retry"),
        ("DELETE", "/webhooks/n"),
        ("GET", "/events?last=3&limit=1000"),
        ("GET", "/events?after=0&job=7&since=t&limit=5&label=a%3Db&type=job"),
    ]
    assert json.loads(asked[4].body) == {"skip": True}
    assert json.loads(asked[8].body) == {"events": [7]}


def test_output_is_gone_through_page_by_page_and_no_further_than_asked() -> None:
    def page(*data: str, after: int, more: bool) -> Answer:
        parts = [{"start": after, "missing": 0, "data": one} for one in data]
        end = {"ended": False, "next_attempt": 2, "finished": False}
        fields = {"attempt": 1, "parts": parts, "next": after + 1, "more": more}
        return Answer(200, json.dumps({**fields, **end}).encode())

    with answering(
        page("YQ==", after=7, more=True), page("Yg==", after=8, more=False), Answer(503)
    ) as (url, asked):
        client = Client(url)
        pieces = list(client.logs("7", after=7))
        with pytest.raises(Unavailable):
            list(client.logs("7"))
    assert [(one.attempt, one.start, one.data, one.end) for one in pieces] == [
        (1, 7, b"a", 8),
        (1, 8, b"b", 9),
    ]
    assert [one.path for one in asked] == [
        "/jobs/7/logs?after=7",
        "/jobs/7/logs?after=8&attempt=1",
        "/jobs/7/logs?after=0",
    ]


def test_filters_and_ids_are_escaped() -> None:
    with answering(Answer(200, b'{"jobs": []}'), Answer(404, b'{"error": "none"}')) as (
        url,
        asked,
    ):
        client = Client(url)
        client.jobs(
            states=["failed", "lost"], labels={"a": "b&c=\u00e9"}, limit=5, newest_first=True
        )
        with pytest.raises(NotFound):
            client.job("../metrics?x#y")
    assert [one.path for one in asked] == [
        "/jobs?limit=5&state=failed&state=lost&label=a%3Db%26c%3D%C3%A9&order=newest",
        "/jobs/..%2Fmetrics%3Fx%23y",
    ]


@pytest.mark.parametrize(
    ("answer", "call", "is_a"),
    [
        (problem(422, fields={"image": "no"}), SUBMIT, Invalid),
        (problem(422), SUBMIT, Conflict),
        (problem(409, differs={"env": "A"}), SUBMIT, Conflict),
        (problem(401), READ, Denied),
        (problem(403), READ, Denied),
        (problem(404), READ, NotFound),
        (problem(413), SUBMIT, Refused),
        (problem(503), READ, Unavailable),
        (problem(503), SUBMIT, Unavailable),
        (problem(500), READ, Unavailable),
        (problem(500), SUBMIT, Unknown),
        (problem(502), SUBMIT, Unknown),
        (problem(504), CANCEL, Unknown),
        (problem(502), READ, Unavailable),
        (Answer(502, b"<html>"), READ, Unavailable),
        (Answer(502, b"<html>"), SUBMIT, Unknown),
        (Answer(504, b""), CANCEL, Unknown),
        (Answer(503, b"no server"), RETRY, Unknown),
        (Answer(429, b"slow"), SUBMIT, Unavailable),
        (Answer(400, b"\xff"), SUBMIT, Refused),
        (Answer(404, b"<html>"), READ, Refused),
        (Answer(200, b"<html>"), READ, Refused),
        (Answer(200, b"[]"), READ, Refused),
        (Answer(0), READ, Unavailable),
        (Answer(0), SUBMIT, Unknown),
        (Answer(0), CANCEL, Unknown),
    ],
)
def test_every_answer_is_one_kind_of_error(
    answer: Answer, call: Callable[[Client], Any], is_a: type[AtemporalError]
) -> None:
    with answering(answer) as (url, _), pytest.raises(is_a) as caught:
        call(Client(url))
    assert type(caught.value) is is_a
    assert str(caught.value)


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_id_is_no_job(blank: str) -> None:
    client = Client("http://127.0.0.1:1")
    for call in (client.job, client.events, client.cancel, client.retry):
        with pytest.raises(NotFound, match="is empty"):
            call(blank)


def test_a_key_may_be_any_text() -> None:
    for key in ("\u043a\u043b\u044e\u0447", "a b", "\u2026"):
        with answering(Answer(201, JOB)) as (url, asked):
            Client(url).submit({"image": "a"}, key=key)
        assert json.loads(asked[0].body)["key"] == key


def test_nothing_listens_so_nothing_was_done() -> None:
    for call in (READ, SUBMIT, CANCEL, RETRY):
        with pytest.raises(Unavailable, match="does not answer"):
            call(Client("http://127.0.0.1:1"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("call", [READ, SUBMIT])
def test_a_redirect_is_told_and_the_token_goes_nowhere_else(
    status: int, call: Callable[[Client], Any]
) -> None:
    with answering() as (elsewhere, followed):
        moved = Answer(status, headers={"Location": f"{elsewhere}/jobs"})
        with answering(moved) as (url, _), pytest.raises(Refused, match="ATEMPORAL_API_URL"):
            call(Client(url, "atp_1"))
    assert followed == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_for_this_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(Answer(200, JOB)) as (url, _):
        assert READ(Client(url)) == {"id": "7"}


def test_a_proxy_is_asked_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(Answer(200, JOB)) as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        assert READ(Client("http://atemporal.example")) == {"id": "7"}
    assert [one.path for one in asked] == ["http://atemporal.example/jobs/7"]


def test_many_jobs_go_as_lines_and_come_back_as_lines() -> None:
    answer = b'{"line": 1, "status": "accepted", "id": "7"}\n{"line": 2, "status": "rejected"}\n'
    with answering(Answer(200, answer), Answer(200, answer)) as (url, asked):
        client = Client(url)
        for skip in (False, True):
            results = client.submit_lines([b'{"image": "a"}', b"{"], skip_errors=skip)
            assert [one["status"] for one in results] == ["accepted", "rejected"]
    assert [one.path for one in asked] == [
        "/jobs:batch?on_error=refuse",
        "/jobs:batch?on_error=skip",
    ]
    assert asked[0].body == b'{"image": "a"}\n{\n'
    assert asked[0].headers["content-type"] == "application/x-ndjson"


def test_refused_lines_are_named_by_their_numbers() -> None:
    answer = problem(422, lines={"3": {"image": "no"}}, bad_lines=120)
    with answering(answer) as (url, _), pytest.raises(InvalidLines) as refusal:
        Client(url).submit_lines([b"{}"])
    assert refusal.value.lines == {3: {"image": "no"}}
    assert str(refusal.value) == "line 3: image: no; and: 119 more lines"


def test_all_that_is_public_says_what_it_is_and_of_which_types() -> None:
    shapes = [getattr(client, name) for name in client.__all__]
    public = [one for one in shapes if isinstance(one, type)]
    methods = [
        one for name, one in vars(Client).items() if callable(one) and not name.startswith("_")
    ]
    assert len(methods) >= 9
    for one in [*public, *methods]:
        assert one.__doc__, one
    for method in methods:
        names = inspect.signature(method).parameters.keys() - {"self"}
        assert names | {"return"} <= get_type_hints(method).keys(), method
    assert (Path(client.__file__).parents[1] / "py.typed").exists()
