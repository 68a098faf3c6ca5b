"""`atemporal webhook` and the API's calls for it: what they send, say, refuse and never show."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from atemporal.store import api_tokens, deliveries
from atemporal.webhook.address import networks
from services.scheduler.webhooks import WebhookLoop
from tests.api import Api, bearer, serving
from tests.integration.command_line import Cli
from tests.integration.history import happen, made, no_events
from tests.integration.receivers import receiving

pytestmark = pytest.mark.usefixtures("own_output")


@pytest.fixture(scope="module")
def api(database_url: str) -> Iterator[Api]:
    with serving(database_url, webhook_networks="127.0.0.0/8", webhook_http=True) as served:
        yield served


@pytest.fixture
def cli(database_url: str, api: Api) -> Iterator[Cli]:
    yield Cli(database_url, str(api.http.base_url))
    with api.database.begin() as tx:
        tx.execute(text("DELETE FROM webhooks"))
    no_events(api.database)


URL = "https://hooks.example.com/atemporal"


def test_a_secret_is_shown_once(cli: Cli) -> None:
    words = ("--url", URL, "--label", "team=blue", "--event", "job.finished")
    secret = cli("webhook", "create", "ci", *words).stdout.splitlines()[0]
    assert secret.startswith("whsec_")
    shown = cli.json("webhook", "show", "ci")
    assert (shown["labels"], shown["types"]) == ({"team": "blue"}, ["job.finished"])
    assert shown["state"] == "active"
    everything = [shown, cli.json("webhook", "list"), cli.json("webhook", "pause", "ci")]
    everything += [cli.json("webhook", "resume", "ci"), cli.json("webhook", "failed", "ci")]
    assert "whsec_" not in json.dumps(everything)
    assert secret not in cli("webhook", "show", "ci").output
    rotated = cli("webhook", "rotate-secret", "ci").stdout.splitlines()[0]
    assert rotated.startswith("whsec_")
    assert rotated != secret
    assert "whsec_" not in json.dumps(cli.json("webhook", "delete", "ci"))


def test_what_is_wrong_is_said(cli: Cli) -> None:
    assert "URL" in cli("webhook", "create", "ci", "--url", "hooks", code=2).output
    cli("webhook", "create", "ci", "--url", "https://10.0.0.1/", code=2)
    cli("webhook", "create", "ci", "--url", URL, "--event", "job.begun", code=2)
    cli("webhook", "create", "a b", "--url", URL, code=2)
    cli("webhook", "create", "ci", "--url", URL)
    cli("webhook", "create", "ci", "--url", URL, code=5)
    for verb in ("show", "pause", "resume", "test", "rotate-secret", "delete", "failed", "retry"):
        assert "'other'" in cli("webhook", verb, "other", code=4).output
    assert "nothing was given up" in cli("webhook", "failed", "ci").output
    assert (
        "paused since" in (cli("webhook", "pause", "ci"), cli("webhook", "show", "ci"))[1].output
    )


def test_a_test_says_what_came_of_it(cli: Cli, api: Api) -> None:
    over = threading.Event()
    loop = WebhookLoop(api.database, allowed=networks(["127.0.0.0/8"]), http=True, interval_s=0.05)

    def tick() -> None:
        while not over.wait(0.05):
            loop.tick()
        loop.reset()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        with receiving() as target:
            cli("webhook", "create", "ci", "--url", target.url)
            assert "accepted" in cli("webhook", "test", "ci").stdout
            target.answer = lambda _n: 401
            assert "answers 401" in cli("webhook", "test", "ci", code=1).output
            assert cli.json("webhook", "show", "ci")["tested"]["accepted"] is False
    finally:
        over.set()
        thread.join()


def test_what_was_given_up_is_listed_and_sent_again(cli: Cli, api: Api) -> None:
    cli("webhook", "create", "ci", "--url", URL)
    ids = made(api.database)
    happen(api.database, ids, 1, 2)
    with api.database.begin() as tx:
        assert deliveries.make(tx, upto=10**9) is not None
        tx.execute(text("UPDATE webhook_deliveries SET next_at = NULL, dead_at = now()"))
    found = cli.json("webhook", "failed", "ci")
    assert [one["body"]["detail"].get("n") for one in found] == [None, 1, 2]
    assert str(found[0]["event_id"]) in cli("webhook", "failed", "ci").stdout
    assert cli.json("webhook", "list")[0]["failed"] == 3
    assert (
        "1 event is sent again"
        in cli("webhook", "retry", "ci", "--event", str(found[1]["event_id"])).stdout
    )
    assert cli.json("webhook", "retry", "ci") == {"retried": 2}
    assert cli.json("webhook", "show", "ci")["pending"] == 3
    with api.database.begin() as tx:
        first = text("SELECT event_id FROM webhook_deliveries WHERE next_at IS NOT NULL")
        # The one that was asked for first is on its way: the others wait for it.
        assert list(tx.scalars(first)) == [found[1]["event_id"]]


def test_pages(cli: Cli, api: Api) -> None:
    for name in ("a", "b", "c"):
        cli("webhook", "create", name, "--url", URL)
    page = api.http.get("/webhooks?limit=2").json()
    assert ([one["name"] for one in page["webhooks"]], page["next"]) == (["a", "b"], "b")
    page = api.http.get("/webhooks?limit=2&after=b").json()
    assert ([one["name"] for one in page["webhooks"]], page["next"]) == (["c"], None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"name": "x", "url": URL, "secret": "whsec_mine"}),
        ("/ci/resume", {"skip": "yes"}),
        ("/ci/retry", {"events": "all"}),
        ("/ci/retry", {"event": [1]}),
        ("/ci/retry", {"events": [10**30]}),
    ],
)
def test_unknown_fields_and_wrong_types_are_refused(
    cli: Cli, api: Api, path: str, body: object
) -> None:
    cli("webhook", "create", "ci", "--url", URL)
    assert api.http.post(f"/webhooks{path}", json=body).status_code == 422


def test_to_change_one_wants_admin_and_to_look_wants_read(database_url: str) -> None:
    with serving(database_url, api_host="0.0.0.0", callback_url="https://example.com") as api:
        with api.database.begin() as tx:
            headers = {
                scope: bearer(api_tokens.create(tx, scope, [scope]))
                for scope in ("submit", "read", "cancel", "admin")
            }
        made = {"name": "ci", "url": URL}
        calls = [("POST", "/webhooks")]
        calls += [
            ("POST", f"/webhooks/ci/{verb}")
            for verb in ("pause", "resume", "test", "rotate-secret", "retry")
        ]
        calls += [("DELETE", "/webhooks/ci")]
        for method, path in calls:
            for scope in ("submit", "read", "cancel"):
                answer = api.http.request(method, path, headers=headers[scope])
                assert answer.status_code == 403, (path, scope)
            assert api.http.request(method, path).status_code == 401
        assert api.http.post("/webhooks", json=made, headers=headers["admin"]).status_code == 201
        for path in ("/webhooks", "/webhooks/ci", "/webhooks/ci/failed", "/events"):
            assert api.http.get(path, headers=headers["read"]).status_code == 200
            assert api.http.get(path, headers=headers["submit"]).status_code == 403
        for method, path in calls[1:]:
            assert api.http.request(method, path, headers=headers["admin"]).is_success
