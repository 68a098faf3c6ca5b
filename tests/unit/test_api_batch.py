"""Many jobs in one request, over a real Postgres; the broker is away all the time."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import httpx
import pytest

from atemporal.errors import NAMED_LINES
from atemporal.job_lines import LINE_LIMIT, MEDIA_TYPE
from atemporal.metrics.submits import SUBMITS
from atemporal.store import listing
from services.api import batch
from tests.api import Api, serving

GOOD = {"image": "nginx:1.9"}


def sent(api: Api, *lines: Any, query: str = "", **headers: str) -> httpx.Response:
    """Post lines, each as it is or as JSON."""
    body = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    headers = {"Content-Type": MEDIA_TYPE, **headers}
    return api.http.post(f"/jobs:batch{query}", content=body.encode(), headers=headers)


def results(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith(MEDIA_TYPE)
    return [json.loads(line) for line in response.text.splitlines()]


def total(api: Api) -> int:
    with api.database.begin() as tx:
        return listing.page(tx, limit=1).total


def test_each_line_is_a_job_as_of_a_single_submit(api: Api) -> None:
    asked = {
        "image": "ghcr.io/acme/report:7",
        "run_at": "2099-01-01T00:00:00Z",
        "payload": "QT0xCg==",
        "labels": {"team": "blue"},
        "key": "single-form",
    }
    one, other = results(sent(api, asked, "", GOOD))
    assert (one["line"], one["status"], one["time"]) == (1, "accepted", "2099-01-01T00:00:00.000Z")
    assert (other["line"], other["status"]) == (3, "accepted")
    job = api.http.get(f"/jobs/{one['id']}").json()
    assert (job["env"], job["labels"], job["key"]) == ({"A": "1"}, {"team": "blue"}, "single-form")
    assert one["id"] < other["id"]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ("{", "line"),
        ("[1]", "line"),
        ('{"image": "a", "image": "b"}', "line"),
        ({}, "image"),
        ({"image": "No Image"}, "image"),
        ({"image": "a", "nonsense": 1}, "nonsense"),
        ({"image": "a", "payload": "?"}, "payload"),
        ({"image": "a", "env": {"A": "x" * 130_000}}, "env"),
        ({"image": "a", "env": {"A": "x" * LINE_LIMIT}}, "line"),
        ({"image": "a", "key": "\0"}, "key"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_line_is_told_by_its_number_and_costs_all_or_itself(
    api: Api, bad: Any, field: str, skip: bool
) -> None:
    before = total(api)
    response = sent(api, GOOD, bad, GOOD, query="?on_error=skip" if skip else "")
    if skip:
        first, second, third = results(response)
        assert (first["status"], third["status"]) == ("accepted", "accepted")
        assert (second["line"], second["status"], [*second["errors"]]) == (2, "rejected", [field])
        assert total(api) == before + 2
    else:
        assert response.status_code == 422
        problem = response.json()
        assert [*problem["lines"]["2"]] == [field]
        assert problem["error"].startswith(f"line 2: {field}: ")
        assert problem["bad_lines"] == 1
        assert total(api) == before


@pytest.mark.parametrize("skip", [False, True])
def test_a_key_that_another_job_has_is_told_and_costs_all_or_itself(api: Api, skip: bool) -> None:
    key = f"taken-{skip}"
    (taken,) = results(sent(api, {**GOOD, "key": key}))
    before = total(api)
    other = {**GOOD, "key": key, "timeout_s": 7}
    response = sent(api, GOOD, other, query="?on_error=skip" if skip else "")
    if skip:
        _, refused = results(response)
        assert (refused["status"], refused["id"]) == ("rejected", taken["id"])
        assert "timeout_s" in refused["errors"]["key"]
    else:
        assert response.status_code == 422
        assert "timeout_s" in response.json()["lines"]["2"]["key"]
    assert total(api) == before + skip


def test_the_same_key_twice_in_a_batch_is_one_job_or_told(api: Api) -> None:
    line = {**GOOD, "key": "twice"}
    first, again = results(sent(api, line, line))
    assert (first["status"], again["status"]) == ("accepted", "duplicate")
    assert first["id"] == again["id"]
    line = {**GOOD, "key": "twice-another"}
    first, other = results(sent(api, line, {**line, "timeout_s": 7}, query="?on_error=skip"))
    assert (first["status"], other["status"], other["id"]) == ("accepted", "rejected", first["id"])


def test_a_batch_that_comes_again_makes_nothing_with_keys_of_lines_or_of_the_batch(
    api: Api,
) -> None:
    lines = [{**GOOD, "key": "own"}, GOOD, GOOD]
    first = results(sent(api, *lines, **{"Idempotency-Key": "night"}))
    before = total(api)
    again = results(sent(api, *lines, **{"Idempotency-Key": "night"}))
    assert total(api) == before
    assert [one["id"] for one in again] == [one["id"] for one in first]
    assert {one["status"] for one in again} == {"duplicate"}
    jobs = [api.http.get(f"/jobs/{one['id']}").json()["key"] for one in first]
    assert jobs == ["own", "night/2", "night/3"]


def test_many_bad_lines_are_counted_and_the_first_are_told(api: Api) -> None:
    problem = sent(api, *["{"] * (NAMED_LINES + 20)).json()
    assert (len(problem["lines"]), problem["bad_lines"]) == (NAMED_LINES, NAMED_LINES + 20)
    assert problem["error"].endswith("and: 20 more lines")


@pytest.mark.parametrize("blank", ["", "\n", "  \n\r\n\n"])
def test_a_batch_of_nothing_is_refused(api: Api, blank: str) -> None:
    response = sent(api, blank)
    assert response.status_code == 422
    assert "body" in response.json()["fields"]


def test_more_than_a_request_may_have_is_refused_with_what_it_may(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = total(api)
    monkeypatch.setattr(batch, "LINES", 10)
    response = sent(api, *[GOOD] * 11)
    assert (response.status_code, "10 jobs" in response.json()["error"]) == (413, True)
    monkeypatch.setattr(batch, "LIMIT", 1000)
    response = sent(api, *[GOOD] * 100)
    assert (response.status_code, "1000 bytes" in response.json()["error"]) == (413, True)
    assert total(api) == before


def test_a_full_batch_is_made(api: Api) -> None:
    made = results(sent(api, *[{**GOOD, "env": {"N": str(n)}} for n in range(batch.LINES)]))
    ids = [one["id"] for one in made]
    assert len(ids) == batch.LINES
    assert ids == sorted(ids)


def test_submits_are_counted_by_line(api: Api) -> None:
    def counts() -> list[float]:
        statuses = ("accepted", "duplicate", "rejected")
        return [SUBMITS.labels("http", status)._value.get() for status in statuses]

    before = counts()
    line = {**GOOD, "key": "counted"}
    sent(api, line, line, "{", query="?on_error=skip")
    sent(api, GOOD, "{", "{")
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 3]


def test_a_batch_needs_the_scope_submit(database_url: str) -> None:
    with serving(database_url, api_host="127.1") as closed:
        assert sent(closed, GOOD).status_code == 401


@pytest.mark.parametrize("query", ["?on_error=perhaps", "?onerror=skip"])
def test_an_unknown_way_is_refused(api: Api, query: str) -> None:
    assert sent(api, GOOD, query=query).status_code == 422


def test_who_finds_no_place_waits_and_a_body_that_stays_away_gives_its_place_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "AT_ONCE", 1)
    monkeypatch.setattr(batch, "READ_S", 1.0)
    with serving(database_url) as narrow:
        url = narrow.http.base_url
        with socket.create_connection((url.host, url.port or 0), timeout=30) as slow:
            head = f"POST /jobs:batch HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: 50\r\n\r\n"
            slow.sendall(head.encode() + b'{"image"')
            done: list[int] = []
            waiting = threading.Thread(
                target=lambda: done.append(sent(narrow, GOOD).status_code), daemon=True
            )
            waiting.start()
            assert b" 408 " in slow.recv(4096)
            waiting.join(30)
            assert done == [200]


def test_the_call_is_in_the_documentation(api: Api) -> None:
    call = api.http.get("/openapi").json()["paths"]["/jobs:batch"]["post"]
    schema = call["requestBody"]["content"][MEDIA_TYPE]["schema"]
    assert {"image", "payload", "machine"} <= schema["properties"].keys()
    assert call["responses"]["200"]["content"][MEDIA_TYPE]["schema"]["properties"]["status"]
    assert "413" in call["responses"]
