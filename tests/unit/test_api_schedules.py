"""Recurring schedules over HTTP: what is refused, who may do what, and what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal.messages import JobCancel, Message
from atemporal.model.schedule import LABEL
from atemporal.recurrence import HORIZON_S
from atemporal.store import api_tokens
from atemporal.store import fires as fire_store
from services.api.publisher import Publisher
from tests.api import Api, bearer, serving
from tests.integration.recurring import begin

JOB = {"image": "nginx:1.9", "env": {"A": "1"}, "labels": {"team": "blue"}}
NIGHTLY = {"name": "nightly", "cron": "0 2 * * *", "zone": "America/Sao_Paulo", "job": JOB}


@pytest.fixture(autouse=True)
def _empty(api: Api) -> Iterator[None]:
    yield
    with api.database.begin() as tx:
        tx.execute(text("TRUNCATE schedules, fires, jobs, attempts, events"))


def made(api: Api, code: int = 201, **fields: Any) -> dict[str, Any]:
    response = api.http.post("/schedules", json=NIGHTLY | fields)
    assert response.status_code == code, response.text
    sent: dict[str, Any] = response.json()
    return sent


def fire(api: Api, at: datetime) -> None:
    """Let a scheduler decide at another time."""
    with api.database.begin() as tx:
        tx.execute(text("UPDATE schedules SET look_at = :at"), {"at": at})
        rows = fire_store.due(tx, at, limit=100)
        fire_store.decide_due(tx, rows, at, rules=rows[0].rules_version, actor="scheduler")


def test_a_schedule_reads_back_as_it_was_made(api: Api) -> None:
    sent = made(api, catch_up="one", window_s=3600, overlap="skip", start_deadline_s=600)
    assert {name: sent[name] for name in NIGHTLY if name != "job"} == {
        name: value for name, value in NIGHTLY.items() if name != "job"
    }
    assert {name: sent["job"][name] for name in JOB} == JOB
    assert not {"time", "key", "delay_s"} & sent["job"].keys()
    rules = (sent["catch_up"], sent["window_s"], sent["overlap"], sent["start_deadline_s"])
    assert rules == ("one", 3600, "skip", 600)
    assert (sent["version"], sent["paused_at"], sent["problem"], sent["fires"]) == (
        1,
        None,
        None,
        [],
    )
    again = api.http.get("/schedules/nightly").json()
    assert {**again, "read_at": ""} == {**sent, "read_at": ""}
    (listed,) = api.http.get("/schedules").json()["schedules"]
    assert listed == {name: again[name] for name in listed} | {"read_at": listed["read_at"]}


def test_the_next_fires_are_told_in_both_times_and_the_latest_with_their_ends(api: Api) -> None:
    sent = made(api)
    first, second = (datetime.fromisoformat(one["time"]) for one in sent["next_fires"][:2])
    assert sent["next_fires"][0]["local"] == f"{first.date()}T02:00:00-03:00"
    assert (first.hour, second - first) == (5, timedelta(days=1))
    assert sent["next_fire_at"] == sent["next_fires"][0]["time"]
    fire(api, first - timedelta(seconds=HORIZON_S))
    shown = api.http.get("/schedules/nightly?next=1&fires=3").json()
    (coming,) = shown["next_fires"]
    assert shown["fires"] == []
    job = api.http.get(f"/jobs/{coming['job_id']}").json()
    assert (job["time"], job["labels"]) == (coming["time"], {"team": "blue", LABEL: "nightly"})
    assert api.http.get(f"/jobs?label={LABEL}=nightly").json()["total"] == 1
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    with api.database.begin() as tx:
        tx.execute(text("UPDATE fires SET fire_time = :past"), {"past": past})
    (ended,) = api.http.get("/schedules/nightly").json()["fires"]
    assert (ended["outcome"], ended["job_state"]) == ("ran", "scheduled")
    assert ended["job_id"] == coming["job_id"]


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"name": "a b"}, "name"),
        ({"name": ""}, "name"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": None}, "cron"),
        ({"zone": "Mars/Base"}, "zone"),
        ({"catch_up": "some"}, "catch_up"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": "60"}, "window_s"),
        ({"overlap": "kill"}, "overlap"),
        ({"start_deadline_s": -1}, "start_deadline_s"),
        ({"colour": "red"}, "colour"),
        ({"job": None}, "job"),
        ({"job": {"image": "a b"}}, "job.image"),
        ({"job": {**JOB, "time": "2031-01-01T00:00:00Z"}}, "job.time"),
        ({"job": {**JOB, "delay_s": 60}}, "job.delay_s"),
        ({"job": {**JOB, "key": "k"}}, "job.key"),
        ({"job": {**JOB, "labels": {LABEL: "x"}}}, "job.labels"),
        ({"job": {**JOB, "labels": {f"l{n}": "" for n in range(32)}}}, "job.labels"),
        ({"job": {**JOB, "env": {"A": "x" * 130_000}}}, "job.env"),
    ],
)
def test_bad_fields_are_named_and_nothing_is_written(
    api: Api, fields: dict[str, Any], bad: str
) -> None:
    assert bad in made(api, 422, **fields)["fields"]
    assert api.http.get("/schedules").json() == {"schedules": [], "next": None}


def test_several_bad_fields_are_told_at_once(api: Api) -> None:
    bad = made(api, 422, cron="x", zone="y", job={"image": ""})["fields"]
    assert bad.keys() == {"cron", "zone", "job.image"}


def test_a_name_is_taken_once_and_an_unknown_one_is_none(api: Api) -> None:
    made(api)
    assert "nightly" in made(api, 409)["error"]
    for name in ("other", "a%20b", "%00"):
        assert api.http.get(f"/schedules/{name}").status_code == 404


def test_pages_go_by_name(api: Api) -> None:
    for name in ("c", "a", "b"):
        made(api, name=name)
    first = api.http.get("/schedules?limit=2").json()
    assert ([one["name"] for one in first["schedules"]], first["next"]) == (["a", "b"], "b")
    second = api.http.get("/schedules?limit=2&after=b").json()
    assert ([one["name"] for one in second["schedules"]], second["next"]) == (["c"], None)


def test_a_change_keeps_what_is_not_given_and_minds_the_version(api: Api) -> None:
    made(api)
    change = {"cron": "0 3 * * *", "job": {"timeout_s": 60}, "version": 1}
    changed = api.http.patch("/schedules/nightly", json=change).json()
    assert (changed["cron"], changed["version"]) == ("0 3 * * *", 2)
    assert (changed["job"]["timeout_s"], changed["job"]["env"]) == (60, {"A": "1"})
    again = api.http.patch("/schedules/nightly", json=change)
    assert again.status_code == 409
    for bad in ({"cron": "x"}, {"name": "other"}, {"version": "1"}, {"version": True}):
        assert api.http.patch("/schedules/nightly", json=bad).status_code == 422
    assert api.http.patch("/schedules/other", json={}).status_code == 404


def test_an_empty_field_of_the_job_clears_it(api: Api) -> None:
    made(api)
    change: dict[str, Any] = {"job": {"env": {}, "labels": []}}
    job = api.http.patch("/schedules/nightly", json=change).json()["job"]
    assert (job["env"], job["labels"], job["image"]) == ({}, {}, JOB["image"])


def test_the_old_name_of_a_field_is_taken_as_a_submit_takes_it(api: Api) -> None:
    made(api, job={**JOB, "machine": {"market": "on-demand", "disk_gb": 20}})
    change = {"job": {"machine": {"market": "spot"}}}
    changed = api.http.patch("/schedules/nightly", json=change)
    assert changed.status_code == 200, changed.text
    machine = changed.json()["job"]["machine"]
    assert (machine["capacity_type"], machine["disk_gb"]) == ("spot", 20)
    # PHP writes an empty object as an empty list: nothing of the machine is given.
    again = api.http.patch("/schedules/nightly", json={"job": {"machine": []}}).json()
    assert (again["job"]["machine"], again["version"]) == (machine, 2)


def test_one_that_can_not_be_read_is_shown_with_the_reason_and_can_be_paused_and_deleted(
    api: Api,
) -> None:
    for name in ("a", "b", "c"):
        made(api, name=name)
    with api.database.begin() as tx:
        tx.execute(text("UPDATE schedules SET spec = '{}' WHERE name = 'b'"))
        tx.execute(text("UPDATE schedules SET zone = 'Mars/Base' WHERE name = 'c'"))
    page = api.http.get("/schedules?limit=2").json()
    assert ([one["name"] for one in page["schedules"]], page["next"]) == (["a", "b"], "b")
    assert "image" in page["schedules"][1]["problem"]
    shown = api.http.get("/schedules/c").json()
    assert (shown["next_fire_at"], shown["next_fires"]) == (None, [])
    assert "Mars/Base" in shown["problem"]
    for name in ("b", "c"):
        assert api.http.post(f"/schedules/{name}/pause").json()["paused_at"] is not None
        assert api.http.delete(f"/schedules/{name}").json()["name"] == name


@pytest.mark.parametrize("how", ["pause", "delete", "edit"])
def test_the_reaper_is_told_of_a_machine_that_is_not_wanted_any_more(
    api: Api, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    sent: list[Message] = []
    monkeypatch.setattr(Publisher, "put", lambda _publisher, message: sent.append(message))
    first = datetime.fromisoformat(made(api)["next_fire_at"])
    fire(api, first - timedelta(seconds=HORIZON_S))
    (coming, *_) = api.http.get("/schedules/nightly").json()["next_fires"]
    ref = begin(api.database, UUID(coming["job_id"]), running=False)
    calls = {"pause": ("POST", "/pause"), "delete": ("DELETE", ""), "edit": ("PATCH", "")}
    method, path = calls[how]
    change = {"cron": "0 4 * * *"} if how == "edit" else None
    done = api.http.request(method, f"/schedules/nightly{path}", json=change)
    assert done.status_code == 200, done.text
    assert sent == [JobCancel.of(ref)]


def test_paused_it_has_no_next_fire_until_it_is_resumed(api: Api) -> None:
    sent = made(api)
    for _ in range(2):
        paused = api.http.post("/schedules/nightly/pause").json()
    assert (paused["next_fire_at"], paused["next_fires"], paused["version"]) == (None, [], 2)
    assert paused["paused_at"] is not None
    for _ in range(2):
        resumed = api.http.post("/schedules/nightly/resume").json()
    assert (resumed["next_fire_at"], resumed["paused_at"]) == (sent["next_fire_at"], None)


def test_a_job_runs_now_once_for_each_key(api: Api) -> None:
    made(api)
    codes = [api.http.post("/schedules/nightly/run", json={"key": "k"}) for _ in range(2)]
    assert [one.status_code for one in codes] == [201, 200]
    assert codes[0].json()["id"] == codes[1].json()["id"]
    job = api.http.post("/schedules/nightly/run").json()
    assert (job["time"], job["key"]) == (job["created_at"], None)
    assert job["labels"][LABEL] == "nightly"
    for bad in ({"key": ""}, {"key": 5}, {"image": "other"}):
        assert api.http.post("/schedules/nightly/run", json=bad).status_code == 422


def test_deleted_it_is_gone_and_its_name_is_free(api: Api) -> None:
    made(api)
    assert api.http.delete("/schedules/nightly").json()["name"] == "nightly"
    assert api.http.delete("/schedules/nightly").status_code == 404
    made(api)


def test_each_call_needs_its_scope(database_url: str) -> None:
    with serving(database_url, callback_url="https://jobs.example.com") as api:

        def create(name: str, *scopes: str) -> str:
            with api.database.begin() as tx:
                return api_tokens.create(tx, f"schedules {name}", list(scopes))

        secrets = {scope: create(scope, scope) for scope in ("read", "submit", "cancel")}
        path = "/schedules/nightly"
        secrets["both"] = create("both", "submit", "cancel")
        over = {"overlap": "cancel"}
        calls: list[tuple[str, str, Any, tuple[str, ...]]] = [
            ("POST", "/schedules", NIGHTLY | over, ("both",)),
            ("POST", "/schedules", NIGHTLY | {"name": "other"}, ("submit", "both")),
            ("GET", "/schedules", None, ("read",)),
            ("GET", path, None, ("read",)),
            ("PATCH", path, {"cron": "0 3 * * *"}, ("submit", "both")),
            ("PATCH", path, over, ("both",)),
            ("POST", f"{path}/pause", None, ("both",)),
            ("POST", f"{path}/resume", None, ("submit", "both")),
            ("POST", f"{path}/run", None, ("submit", "both")),
            ("DELETE", path, None, ("both",)),
        ]
        for method, where, body, allowed in calls:
            assert api.http.request(method, where, json=body).status_code == 401
            for other in secrets.keys() - set(allowed):
                headers = bearer(secrets[other])
                denied = api.http.request(method, where, json=body, headers=headers)
                assert denied.status_code == 403, (method, where, other)
            headers = bearer(secrets[allowed[0]])
            done = api.http.request(method, where, json=body, headers=headers)
            assert done.status_code < 300, done.text
