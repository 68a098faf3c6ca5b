"""`atemporal top` and `atemporal open` on a real API, on a terminal and on a pipe."""

from __future__ import annotations

import click
import pytest

from tests.api import Api
from tests.integration.command_line import Cli
from tests.terminal import terminal

pytestmark = pytest.mark.usefixtures("own_output")


def test_the_overview_tells_what_is_under_way_next_and_over(api: Api, cli: Cli) -> None:
    soon = api.submitted(image="soon", delay_s=3600, priority=-5)
    later = api.submitted(image="later", delay_s=7200, priority=5)
    running = api.running(image="at-work")
    booting = api.warming(image="booting")
    over = api.submitted(image="over", delay_s=9000)
    cli("cancel", str(over))

    found = cli.json("top")
    phases = {one["phase"]: one["count"] for one in found["waiting"]}
    assert (phases["run"], phases["boot" if "boot" in phases else "launch"]) == (1, 1)
    assert [job["id"] for job in found["running"]] == [str(running.job_id)]
    assert [job["id"] for job in found["next"]] == [str(soon), str(later)]
    assert found["ended"][0]["id"] == str(over)
    assert str(booting.job_id) not in str(found)
    assert [job["id"] for job in cli.json("top", "--rows", "1")["next"]] == [str(soon)]

    shown = cli("top").stdout
    assert click.unstyle(shown) == shown
    titles = [line for line in shown.splitlines() if line in ("running", "next", "ended")]
    assert titles == ["running", "next", "ended"]
    for job in (soon, later, running.job_id, over):
        assert str(job) in shown
    refused = cli("top", "--every", "5", code=2)
    assert "on a terminal" in refused.stderr


def test_on_a_terminal_it_is_drawn_again_until_q(api: Api, cli: Cli) -> None:
    first = str(api.submitted(image="first", delay_s=60))[-12:]
    with terminal("top", "--every", "0.5", env=cli.env, columns=60, lines=24) as shown:
        shown.sees(first)
        second = str(api.submitted(image="second", delay_s=30))[-12:]
        shown.sees(second)
        shown.press(b"q")
        assert shown.ends() == 0
    views = shown.text.split("\x1b[H")[1:]
    assert all(len(view.splitlines()) <= 24 for view in views)
    assert (
        max(len(click.unstyle(line)) for view in views[:-1] for line in view.split("\r\n")) <= 70
    )


def test_no_colour_is_none(api: Api, cli: Cli) -> None:
    api.running()
    with terminal("top", "--once", env={**cli.env, "NO_COLOR": "1"}) as shown:
        assert shown.ends() == 0
    assert "\x1b" not in shown.text
    with terminal("top", "--once", env=cli.env) as shown:
        assert shown.ends() == 0
    assert "\x1b[1m" in shown.text


def test_a_terminal_that_can_not_draw_gets_it_once(api: Api, cli: Cli) -> None:
    api.running()
    dumb = {**cli.env, "TERM": "dumb", "NO_COLOR": "1"}
    with terminal("top", env=dumb) as shown:
        assert shown.ends() == 0
    assert "\x1b" not in shown.text
    with terminal("list", "--watch", env=dumb) as shown:
        assert shown.ends() == 2
    assert "can draw" in shown.text


def test_open_prints_the_page_of_the_api_or_of_a_job(
    api: Api, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, opened = api.submitted(delay_s=3600), list[str]()

    def launch(url: str) -> int:
        opened.append(url)
        return 0

    monkeypatch.setattr(click, "launch", launch)
    url = f"{cli.env['ATEMPORAL_API_URL'].rstrip('/')}/ui"
    assert cli("open", "--print").stdout.strip() == url
    assert cli.json("open") == {"url": url}
    assert opened == []
    assert cli("open", str(job)[-12:]).stdout.strip() == f"{url}/jobs/{job}"
    assert opened == [f"{url}/jobs/{job}"]
    assert api.http.get(opened[0]).is_success

    monkeypatch.setattr(click, "launch", lambda _url: 1)
    assert "no browser" in cli("open").stderr
    cli("open", "ffffffffffff", code=4)
