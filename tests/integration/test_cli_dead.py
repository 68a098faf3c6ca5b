"""`atemporal dead` on a real API and Postgres: what it shows, hides, refuses and exits with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from atemporal.messages import LAUNCH, REAP
from atemporal.model.dead_letter import DeadLetter
from atemporal.store import dead_letters
from tests.api import Api
from tests.integration.command_line import Cli
from tests.letters import by_broker, refused

pytestmark = pytest.mark.usefixtures("own_output")

SECRET = "s3cret-of-the-job"


@pytest.fixture
def cli(database_url: str, api: Api) -> Iterator[Cli]:
    yield Cli(database_url, str(api.http.base_url))
    with api.database.begin() as tx:
        tx.execute(text("TRUNCATE dead_letters"))


def keep(api: Api, *letters: DeadLetter) -> list[str]:
    with api.database.begin() as tx:
        dead_letters.keep(tx, letters)
        page = dead_letters.listing(tx, limit=len(letters))
    return [str(one.id) for one in reversed(page.letters)]


def some(api: Api, number: int) -> list[str]:
    return keep(api, *(refused(message_id=f"m-{n}") for n in range(number)))


def test_the_newest_are_listed_first_with_their_reasons(cli: Cli, api: Api) -> None:
    assert "there are no dead letters" in cli("dead", "list").stderr
    first, second = keep(
        api, refused(errors={"image": "is none"}, message_id="m-1"), by_broker("expired", LAUNCH)
    )
    header, newest, eldest = cli("dead", "list").stdout.splitlines()
    assert header.split() == ["ID", "STATE", "REASON", "QUEUE", "AGE", "MESSAGE", "WHY"]
    assert newest.split()[:4] == [second, "kept", "expired", LAUNCH]
    assert eldest.split()[:4] == [first, "kept", "invalid", "atemporal.submit"]
    assert "m-1" in eldest
    assert "image: is none" in eldest
    listed = cli.json("dead", "list")
    assert [one["id"] for one in listed["dead_letters"]] == [second, first]
    assert listed["next"] is None


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (("--reason", "expired"), [2]),
        (("--queue", "reap"), [1]),
        (("--queue", "atemporal.reap", "--queue", "launch"), [2, 1]),
        (("--kind", "job.cancel"), [1]),
        (("--older-than", "1h"), []),
        (("--newer-than", "1h"), [2, 1, 0]),
        (("--state", "dropped"), []),
        (("--state", "any", "--limit", "2"), [2, 1]),
    ],
)
def test_filters(cli: Cli, api: Api, words: tuple[str, ...], numbers: list[int]) -> None:
    ids = keep(
        api,
        refused(message_id="a"),
        refused(queue=REAP, routing_key="job.cancel", message_id="b"),
        by_broker("expired", LAUNCH),
    )
    found = cli.json("dead", "list", *words)["dead_letters"]
    assert [ids.index(one["id"]) for one in found] == numbers
    if not numbers:
        assert "no dead letter fits" in cli("dead", "list", *words).stderr


def test_a_page_says_how_to_go_on(cli: Cli, api: Api) -> None:
    first, second, third = some(api, 3)
    done = cli("dead", "list", "--limit", "2", "--newer-than", "1h")
    assert f"--newer-than 3600s --limit 2 --after {second}" in done.stderr
    rest = cli.json("dead", "list", "--after", second[-12:])["dead_letters"]
    assert [one["id"] for one in rest] == [first]
    assert third not in str(rest)


def test_show_tells_why_and_reveals_the_body_only_when_asked(cli: Cli, api: Api) -> None:
    body = f'{{"image": 1, "env": {{"KEY": "{SECRET}"}}}}'.encode()
    (letter_id,) = keep(
        api,
        refused(body, {"image": "is no text"}, message_id="m-1", headers={"token": SECRET}),
    )
    done = cli("dead", "show", letter_id[-8:])
    assert SECRET not in done.output
    assert "--reveal shows the body" in done.stderr
    for words in ("invalid: image: is no text", "field      image: is no text", "job.submit"):
        assert words in done.stdout
    assert "header     token=***" in done.stdout
    revealed = cli("dead", "show", letter_id, "--reveal").stdout
    assert revealed.count(SECRET) == 2
    assert SECRET not in str(cli.json("dead", "show", letter_id))
    shown = cli.json("dead", "show", letter_id, "--reveal")
    assert shown["body"] == body.decode()


def test_show_tells_the_brokers_history(cli: Cli, api: Api) -> None:
    (letter_id,) = keep(api, by_broker("delivery_limit", LAUNCH, b"\xff"))
    shown = cli("dead", "show", letter_id, "--reveal").stdout
    (line,) = [one for one in shown.splitlines() if one.startswith(LAUNCH)]
    assert line.split()[:4] == [LAUNCH, "delivery_limit", "1", "2030-04-25T05:27:27.000Z"]
    (why_not,) = [one for one in shown.splitlines() if one.startswith("not shown")]
    assert "it is not UTF-8" in why_not
    assert "1 byte" in why_not
    assert "the body:" not in shown


def test_letters_are_sent_again_by_ids_or_by_filters(cli: Cli, api: Api) -> None:
    first, second, third = some(api, 3)
    done = cli("dead", "replay", first[-8:], first, second)
    assert done.stdout.splitlines() == [
        f"{one} sent again, as soon as a scheduler works" for one in (first, second)
    ]
    assert cli("dead", "replay", first).stdout.startswith(first)
    assert cli("dead", "replay", "--queue", "submit").stdout.startswith(third)
    assert "no dead letter fits" in cli("dead", "replay", "--queue", "submit").stderr
    states = cli.json("dead", "list", "--state", "replaying")["dead_letters"]
    assert len(states) == 3


def test_letters_are_dropped_and_leave_a_trace(cli: Cli, api: Api) -> None:
    first, second = some(api, 2)
    assert cli("dead", "drop", first).stdout == f"{first} dropped\n"
    assert cli("dead", "drop", first).stdout == f"{first} dropped\n"
    assert cli("dead", "drop", "--reason", "invalid").stdout == f"{second} dropped\n"
    shown = cli("dead", "show", first).stdout
    assert "dropped, by api" in shown
    assert cli.json("dead", "show", first, "--reveal")["body"] is None


def test_nothing_is_changed_where_one_of_several_can_not_be(cli: Cli, api: Api) -> None:
    good, foreign = keep(api, refused(message_id="a"), by_broker("expired", "others"))
    refusal = cli("dead", "replay", good, foreign, code=5)
    assert "nothing was sent" in refusal.stderr
    assert "others" in refusal.stderr
    cli("dead", "replay", good, "ffffffffffff", code=4)
    assert len(cli.json("dead", "list")["dead_letters"]) == 2
    cli("dead", "replay", good)
    assert "nothing was dropped" in cli("dead", "drop", foreign, good, code=5).stderr
    cli("dead", "drop", foreign)
    assert "was dropped: nothing was sent" in cli("dead", "replay", foreign, code=5).stderr


def test_a_change_wants_ids_or_filters_and_none_by_a_letter_or_two(cli: Cli, api: Api) -> None:
    (letter_id,) = some(api, 1)
    for verb in ("replay", "drop"):
        assert "give the ids" in cli("dead", verb, code=2).stderr
        assert "give the ids" in cli("dead", verb, "--limit", "5", code=2).stderr
        assert "give the ids" in cli("dead", verb, letter_id, "--queue", "reap", code=2).stderr
        assert "too short" in cli("dead", verb, letter_id[-2:], code=2).stderr
    assert "invalid value" in cli("dead", "list", "--reason", "bad", code=2).stderr.lower()
    for words in (("show", "ffffffffffff"), ("drop", "ffffffffffff")):
        assert "no dead letter" in cli("dead", *words, code=4).stderr
