"""`atemporal list` on a real API: filters, columns, and the view that is drawn anew in place."""

from __future__ import annotations

import shlex
import signal
from contextlib import ExitStack

import pytest

from atemporal.store import listing
from tests.api import Api, serving
from tests.integration.command_line import Cli
from tests.terminal import terminal

pytestmark = pytest.mark.usefixtures("own_output")

SHOWN, GONE = "\x1b[?1049h", "\x1b[?1049l"


def test_a_filter_by_schedule_is_one_by_its_label(api: Api, cli: Cli) -> None:
    nightly = api.submitted(delay_s=3600, labels={"atemporal/schedule": "nightly"})
    api.submitted(delay_s=3600)
    found = cli.json("list", "--schedule", "nightly")
    assert [job["id"] for job in found["jobs"]] == [str(nightly)]
    other = ("--label", "atemporal/schedule=weekly")
    refused = cli("list", "--schedule", "nightly", *other, code=2)
    assert "another schedule" in refused.stderr


def test_an_image_is_looked_for_past_pages_without_it(
    api: Api, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_THROUGH", 2)
    wanted = api.submitted(image="acme/report:7", delay_s=3600)
    for _ in range(5):
        api.submitted(delay_s=3600)
    found = cli.json("list", "--image", "Report")
    assert [job["id"] for job in found["jobs"]] == [str(wanted)]
    assert "no job fits" in cli("list", "--image", "nothing-like-it").stderr

    monkeypatch.setattr("atemporal.cli.listing._PAGES_OF_IMAGE", 1)
    some = cli("list", "--image", "report", "--columns", "id")
    assert some.stdout == ""
    assert "not looked through" in some.stderr
    _, call = some.stderr.split("the next: atemporal ")
    assert "--image report --columns id" in call
    monkeypatch.setattr("atemporal.cli.listing._PAGES_OF_IMAGE", 20)
    assert str(wanted) in cli(*shlex.split(call)).stdout


def test_jobs_are_listed_by_the_time_that_they_were_made_for(api: Api, cli: Cli) -> None:
    def made(**when: str) -> str:
        return str(api.submitted(labels={"team": "times"}, **when))

    late, early = made(time="2031-02-01T12:00:00Z"), made(time="2031-01-31T00:00:00Z")
    before, now = made(time="2031-01-30T23:59:59Z"), made()
    ours = ("--label", "team=times")
    within = (*ours, "--since", "2031-01-31", "--until", "2031-02-01T12:00:01Z")
    found = cli.json("list", *within)
    assert [job["id"] for job in found["jobs"]] == [late, early]
    assert (found["total"], found["next"]) == (2, None)

    first = cli("list", *within, "--reverse", "--limit", "1", "--columns", "id")
    assert first.stdout.split() == ["ID", early]
    _, call = first.stderr.split("2 jobs in all; the next: atemporal ")
    assert cli(*shlex.split(call)).stdout.split() == ["ID", late]

    shown = cli("list", *ours, "--since", "90m", "--limit", "2")
    assert "--since 90m --limit 2" in shown.stderr
    near = cli.json("list", *ours, "--since", "90m", "--until", "2031-01-01")
    assert [job["id"] for job in near["jobs"]] == [now]
    assert "no job fits" in cli("list", *ours, "--since", "3h", "--until", "90m").stderr
    far = cli.json("list", *ours, "--until", "2031-01-31", "--reverse")
    assert [job["id"] for job in far["jobs"]] == [now, before]


def test_a_time_that_ends_before_it_begins_is_refused(api: Api, cli: Cli) -> None:
    for since, until in (("1h", "2h"), ("2031-01-02", "2031-01-01"), ("2031-01-02", "1d")):
        refused = cli("list", "--since", since, "--until", until, code=2)
        assert "is not after since" in refused.stderr
    assert "neither a duration" in cli("list", "--since", "soon", code=2).stderr
    twice = api.http.get("/jobs?since=2031-01-01T00:00Z&since_s=5")
    assert twice.json()["fields"] == {"since": "give since or since_s, not both"}


def test_a_watched_list_obeys_a_time(api: Api, cli: Cli) -> None:
    outside = api.submitted(time="2031-01-30T00:00:00Z")
    inside = api.submitted(time="2031-02-01T00:00:00Z")
    with terminal("list", "--watch", "0.5", "--since", "2031-01-31", env=cli.env) as shown:
        shown.sees(str(inside)[-12:])
        assert str(outside)[-12:] not in shown.text
        shown.press(b"q")
        assert shown.ends() == 0


def test_columns_are_shown_as_asked_and_in_full_on_a_pipe(api: Api, cli: Cli) -> None:
    ref = api.running(labels={"team": "a"}, priority=7)
    asked = "id,priority,started,instance,type,capacity,due,labels"
    done = cli("list", "--state", "running", "--columns", asked)
    header, line = done.stdout.splitlines()
    assert header.split() == asked.upper().split(",")
    shown = line.split()
    job = cli.json("show", str(ref.job_id))
    last = job["instances"][-1]
    assert shown == [
        *(job["id"], "7", last["running_at"], last["instance_id"] or "-"),
        *(last["instance_type"], last["capacity_type"], job["due_at"], "team=a"),
    ]
    assert "'eta' is no column" in cli("list", "--columns", "id,eta", code=2).stderr


def test_a_watched_list_is_drawn_again_and_leaves_the_terminal_as_it_was(
    api: Api, cli: Cli
) -> None:
    first = api.submitted(delay_s=3600)
    with terminal("list", "--watch", "0.5", env=cli.env) as shown:
        shown.sees(str(first)[-12:])
        second = api.submitted(delay_s=3600)
        shown.sees(str(second)[-12:])
        assert shown.text.count(SHOWN) == 1
        shown.press(b"q")
        assert shown.ends() == 0
    assert shown.text.endswith(GONE)
    assert shown.text.count("\x1b[2J") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was_too(
    api: Api, cli: Cli, number: signal.Signals, code: int
) -> None:
    job = api.submitted(delay_s=3600)
    with terminal("list", "--watch", env=cli.env, columns=40) as shown:
        shown.sees(str(job)[-12:])
        shown.process.send_signal(number)
        assert shown.ends() == code
    assert GONE in shown.text


def test_a_watched_list_outlives_an_api_that_is_away(database_url: str) -> None:
    with ExitStack() as up:
        served = up.enter_context(serving(database_url))
        env = Cli(database_url, str(served.http.base_url)).env
        job = str(served.submitted(delay_s=3600))[-12:]
        with terminal("list", "--watch", "0.5", env=env) as shown:
            shown.sees(job)
            up.close()
            shown.sees("does not answer")
            # The view stays above what is said.
            assert job in shown.text.rpartition("\x1b[H")[2]
            shown.press(b"q")
            assert shown.ends() == 0


def test_a_pipe_and_a_program_watch_by_events(cli: Cli) -> None:
    assert "needs a terminal" in cli("list", "--watch", code=2).stderr
    assert "events -f" in cli("list", "--watch", "-o", "json", code=2).stderr
