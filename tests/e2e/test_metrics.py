"""The real processes' `/metrics`: each shows its own, and promtool finds nothing to say about them.

A real Prometheus scrapes them, evaluates the rules and answers every query of the dashboards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from atemporal.broker import Link, Outgoing
from atemporal.messages import LAUNCH, REAP, SUBMIT
from atemporal.store import concurrency_limits
from tests.dashboards import queries
from tests.e2e.system import SERVICES, System
from tests.metrics import documented, families, series
from tests.promql import selectors
from tests.servers.prometheus import Prometheus


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


@pytest.fixture
def prometheus(system: System, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that has scraped all services."""
    prometheus = Prometheus(tmp_path, {name: system.port(name) for name in SERVICES})
    try:
        system.wait("all are scraped", lambda: len(prometheus.ask("up == 1")) == len(SERVICES))
        yield prometheus
    finally:
        prometheus.close()


@pytest.fixture
def limit(system: System) -> Iterator[str]:
    """A concurrency limit, whose series are there while it is set."""
    with system.database.begin() as tx:
        concurrency_limits.put(tx, "team=blue", 5, actor="test", instance_type="t3.small")
    yield "team=blue"
    with system.database.begin() as tx:
        concurrency_limits.remove(tx, "team=blue", actor="test")


@pytest.mark.usefixtures("limit")
def test_prometheus_answers_every_query_of_dashboards_and_rules(
    system: System, prometheus: Prometheus
) -> None:
    job_id = system.submit("true", delay_s=3, labels={"team": "blue"})
    system.wait_closed(job_id)
    asked = queries()
    # Each query is answered, and a panel has data when one of its has.
    empty = {one.panel for one in asked}
    empty -= {one.panel for one in asked if prometheus.ask(one.query)}

    def all_have_data() -> bool:
        empty.difference_update(
            [one.panel for one in asked if one.panel in empty and prometheus.ask(one.query)]
        )
        return not empty

    rules = prometheus.rules()
    everything = [*(one.query for one in asked), *(rule["query"] for rule in rules)]
    # An alert has a series only while it is one.
    absent = {one.name for query in everything for one in selectors(query)} - {"ALERTS"}

    def all_are_there() -> bool:
        absent.difference_update([one for one in absent if prometheus.ask(f"count({one})")])
        return not absent

    try:
        # Minutes with a leak are counted once a minute.
        system.wait("each panel has data", all_have_data, within_s=180)
        system.wait("each metric is there", all_are_there)
    except AssertionError as error:
        raise AssertionError(f"none of: {sorted(empty)}, {sorted(absent)}\n{error}") from None
    rules = prometheus.rules()
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
