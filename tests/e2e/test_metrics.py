"""The real processes' `/metrics`: each shows its own, and promtool finds nothing to say about them."""

from __future__ import annotations

import subprocess

import httpx
import pytest

from atemporal.broker import Link, Outgoing
from atemporal.messages import LAUNCH, REAP, SUBMIT
from tests.e2e.system import SERVICES, System
from tests.metrics import documented, families, series


@pytest.mark.parametrize("name", SERVICES)
def test_a_process_shows_what_the_page_says_and_nothing_else(system: System, name: str) -> None:
    mine = {metric for metric, processes in documented().items() if name in processes}
    assert families(system.metrics(name)).keys() == mine


@pytest.mark.parametrize("name", SERVICES)
def test_promtool_finds_nothing_to_say(system: System, name: str) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=system.metrics(name),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_promtool_bites() -> None:
    text = "# HELP x_ms Time.\n# TYPE x_ms counter\nx_ms 1\n"
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode != 0


def test_no_series_appears_only_when_it_counts(system: System) -> None:
    before = {name: series(system.metrics(name)) for name in SERVICES}
    ended = [system.submit("sh", "-c", f"exit {code}") for code in (0, 7)]
    cancelled = system.submit("true", delay_s=3600)
    assert httpx.delete(f"{system.api_url}/jobs/{cancelled}").status_code == 200
    assert httpx.post(f"{system.api_url}/jobs", json={"image": ""}).status_code == 422
    nonsense = f"{system.api_url}/jobs/{cancelled}/callback"
    assert httpx.post(nonsense, headers={"Authorization": "Bearer x"}).status_code == 401
    link = Link(system.env["ATEMPORAL_BROKER_URL"], name="test")
    link.publish([Outgoing(queue, b"garbage", queue, "") for queue in (SUBMIT, LAUNCH, REAP)])
    link.close()
    for job_id in ended:
        system.wait_closed(job_id)

    def dead_letters() -> float:
        shown = (series(system.metrics(name)) for name in SERVICES)
        return sum(
            value
            for one in shown
            for (name, _), value in one.items()
            if name == "atemporal_dead_letters_total"
        )

    system.wait("garbage is dead-lettered", lambda: dead_letters() >= 3)
    after = {name: series(system.metrics(name)) for name in SERVICES}
    assert {name: after[name].keys() - before[name].keys() for name in SERVICES} == {
        name: set() for name in SERVICES
    }
    counted = {name for shown in after.values() for (name, _), value in shown.items() if value > 0}
    assert {
        "atemporal_submits_total",
        "atemporal_due_jobs_published_total",
        "atemporal_events_relayed_total",
        "atemporal_launches_total",
        "atemporal_launch_duration_seconds_count",
        "atemporal_callbacks_total",
        "atemporal_attempts_ended_total",
    } <= counted
