"""Dead letters over HTTP: what is listed, who may do what, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal.messages import LAUNCH, REAP, SUBMIT
from atemporal.model.dead_letter import DeadLetter
from atemporal.store import api_tokens, dead_letters
from tests.api import Api, bearer, serving
from tests.letters import by_broker, refused


@pytest.fixture(autouse=True)
def _empty(api: Api) -> Iterator[None]:
    yield
    with api.database.begin() as tx:
        tx.execute(text("TRUNCATE dead_letters"))


def keep(api: Api, *letters: DeadLetter) -> list[str]:
    """Keep letters; return their ids."""
    with api.database.begin() as tx:
        assert len(dead_letters.keep(tx, letters)) == len(letters)
        page = dead_letters.listing(tx, limit=len(letters))
    return [str(one.id) for one in reversed(page.letters)]


def listed(api: Api, query: str = "", code: int = 200) -> Any:
    response = api.http.get(f"/dead-letters?{query}")
    assert response.status_code == code, response.text
    sent = response.json()
    return [one["id"] for one in sent["dead_letters"]] if code == 200 else sent


def test_a_letter_is_shown_with_why_and_where_from_and_its_body(api: Api) -> None:
    (letter_id,) = keep(
        api,
        refused(b'{"image":1}', {"image": "is no text"}, message_id="m-1", headers={"a": "b"}),
    )
    shown = api.http.get(f"/dead-letters/{letter_id[-6:]}").json()
    assert {name: shown[name] for name in ("id", "state", "reason", "errors", "queue")} == {
        "id": letter_id,
        "state": "kept",
        "reason": "invalid",
        "errors": {"image": "is no text"},
        "queue": SUBMIT,
    }
    assert (shown["body"], shown["body_not_shown"], shown["body_size"]) == (
        *('{"image":1}', None),
        11,
    )
    assert (shown["message_id"], shown["routing_key"]) == ("m-1", "job.submit")
    assert shown["properties"] == {"headers": {"a": "b"}}
    assert (shown["not_replayable"], shown["replay_of"], shown["decided_by"]) == (None, None, None)
    (in_list,) = api.http.get("/dead-letters").json()["dead_letters"]
    assert in_list == {name: shown[name] for name in in_list} | {"read_at": in_list["read_at"]}
    assert "body" not in in_list


@pytest.mark.parametrize(
    ("body", "why"),
    [(b'{"secrets": {"A": "hush"}}\xff', "not UTF-8"), (b'{"secrets": {"A": "hush"}', "not JSON")],
)
def test_a_body_in_which_secrets_can_not_be_told_is_not_shown_and_is_kept(
    api: Api, body: bytes, why: str
) -> None:
    (letter_id,) = keep(api, refused(body))
    answer = api.http.get(f"/dead-letters/{letter_id}")
    shown = answer.json()
    assert shown["body"] is None
    assert why in shown["body_not_shown"]
    assert f"{len(body)} bytes" in shown["body_not_shown"]
    assert "hush" not in answer.text
    with api.database.begin() as tx:
        assert dead_letters.get(tx, UUID(letter_id)).body == body


def test_the_brokers_history_is_shown(api: Api) -> None:
    (letter_id,) = keep(api, by_broker("delivery_limit", LAUNCH))
    (death,) = api.http.get(f"/dead-letters/{letter_id}").json()["deaths"]
    assert death == {
        "queue": LAUNCH,
        "reason": "delivery_limit",
        "count": 1,
        "time": "2030-04-25T05:27:27.000Z",
        "exchange": "atemporal",
        "routing_keys": ["job.submit"],
    }


def test_filters_narrow_and_pages_follow(api: Api) -> None:
    first, second, third = keep(
        api,
        refused(message_id="a"),
        refused(queue=REAP, routing_key="job.cancel", message_id="b"),
        by_broker("expired", LAUNCH, message_id="c"),
    )
    assert listed(api) == [third, second, first]
    assert listed(api, "queue=atemporal.reap") == [second]
    assert listed(api, "queue=reap&queue=launch") == [third, second]
    assert listed(api, "reason=expired") == [third]
    assert listed(api, "reason=invalid&queue=submit") == [first]
    assert listed(api, "kind=job.cancel") == [second]
    assert listed(api, "older_than_s=60") == []
    assert listed(api, "newer_than_s=60") == [third, second, first]
    with api.database.begin() as tx:
        old = text("UPDATE dead_letters SET received_at = now() - interval '1 h' WHERE id = :id")
        tx.execute(old, {"id": first})
    assert listed(api, "older_than_s=60") == [first]
    assert listed(api, "newer_than_s=60") == [third, second]
    page = api.http.get("/dead-letters?limit=2").json()
    assert page["next"] == second
    assert listed(api, f"limit=2&after={second}") == [first]
    assert listed(api, "limit=&after=&older_than_s=&state=") == [third, second, first]


def test_what_is_decided_is_listed_by_its_state(api: Api) -> None:
    kept, dropped, sent = keep(api, *(refused(message_id=f"m-{n}") for n in range(3)))
    assert api.http.delete(f"/dead-letters/{dropped}").json()["state"] == "dropped"
    response = api.http.post(f"/dead-letters/{sent}/replay")
    assert (response.status_code, response.json()["state"]) == (202, "replaying")
    assert listed(api) == [kept]
    assert listed(api, "state=dropped&state=replaying") == [sent, dropped]
    assert listed(api, "state=any") == [sent, dropped, kept]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=lost", "state"),
        ("reason=bad", "reason"),
        ("older_than_s=-1", "older_than_s"),
        ("older_than_s=soon", "older_than_s"),
        ("newer_than_s=inf", "newer_than_s"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=x", "after"),
        ("colour=red", "colour"),
        ("queue=%00", "queue"),
    ],
)
def test_a_bad_filter_is_named(api: Api, query: str, field: str) -> None:
    assert field in listed(api, query, 422)["fields"]


def test_a_letter_that_can_not_be_sent_again_says_why_and_stays(api: Api) -> None:
    (letter_id,) = keep(api, by_broker("expired", "others"))
    refusal = api.http.post(f"/dead-letters/{letter_id}/replay")
    assert refusal.status_code == 409
    shown = api.http.get(f"/dead-letters/{letter_id}").json()
    assert shown["not_replayable"] in refusal.json()["error"]
    assert shown["state"] == "kept"


def test_a_decision_stays_and_says_whose_it_was(api: Api) -> None:
    dropped, sent = keep(api, refused(message_id="a"), refused(message_id="b"))
    for _ in range(2):
        answer = api.http.delete(f"/dead-letters/{dropped}")
        assert answer.status_code == 200
        assert (answer.json()["body"], answer.json()["decided_by"]) == (None, "api")
        assert api.http.post(f"/dead-letters/{sent}/replay").status_code == 202
    assert api.http.post(f"/dead-letters/{dropped}/replay").status_code == 409
    assert api.http.delete(f"/dead-letters/{sent}").status_code == 409


def test_what_is_none_is_not_found_and_a_change_wants_the_whole_id(api: Api) -> None:
    (letter_id,) = keep(api, refused())
    assert api.http.get("/dead-letters/ffffffffffff").status_code == 404
    assert api.http.get("/dead-letters/abc").status_code == 404
    for call in (api.http.delete, lambda path: api.http.post(f"{path}/replay")):
        for part in (letter_id[-12:], str(UUID(int=1)), "x"):
            assert call(f"/dead-letters/{part}").status_code == 404
    assert listed(api) == [letter_id]


def test_a_row_of_a_newer_release_hides_no_other(api: Api) -> None:
    odd, good = keep(api, refused(message_id="a"), refused(message_id="b"))
    with api.database.begin() as tx:
        tx.execute(text("UPDATE dead_letters SET errors = '[]' WHERE id = :id"), {"id": odd})
    assert listed(api) == [good]
    assert api.http.get(f"/dead-letters/{odd}").status_code == 500


def test_each_call_wants_its_scope(database_url: str) -> None:
    with serving(database_url, callback_url="https://jobs.example.com") as api:
        with api.database.begin() as tx:
            secrets = {
                scope: api_tokens.create(tx, f"letters {scope}", [scope])
                for scope in ("read", "submit", "cancel", "admin")
            }
        first, second = keep(api, refused(message_id="a"), refused(message_id="b"))
        for method, path, scope in (
            ("GET", "/dead-letters", "read"),
            ("GET", f"/dead-letters/{first}", "read"),
            ("POST", f"/dead-letters/{first}/replay", "submit"),
            ("DELETE", f"/dead-letters/{second}", "cancel"),
        ):
            assert api.http.request(method, path).status_code == 401
            for given, secret in secrets.items():
                status = api.http.request(method, path, headers=bearer(secret)).status_code
                allowed = given in (scope, "admin")
                assert (status < 300) if allowed else (status == 403), (method, path, given)
