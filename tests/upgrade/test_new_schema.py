"""The release before works on the schema of this one: what "a step only adds" promises."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from atemporal import migrations
from atemporal.model.webhook import WebhookSpec
from atemporal.states import Outcome
from atemporal.store import concurrency_limits, pauses, webhooks
from tests.e2e.system import SERVICES, TwinProcess
from tests.upgrade.before import Before
from tests.upgrade.rolling import Rolling, before

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def system(
    tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess, release: Before
) -> Iterator[Rolling]:
    """The four daemons of the release before, on the schema that was theirs."""
    system = Rolling(
        tmp_path,
        twin,
        release,
        step=release.step,
        database_url=database_url,
        broker_url=broker_url,
    )
    system.start(*before(*SERVICES))
    yield system
    system.close()


@pytest.fixture
def http(system: Rolling) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.api_url, timeout=20) as client:
        yield client


def test_the_daemons_of_the_release_before_go_on_while_and_after_the_schema_is_changed(
    system: Rolling, http: httpx.Client, database_url: str, tmp_path: Path
) -> None:
    sign = tmp_path / "end"
    template = {"image": "busybox:1.36", "command": ["true"], "ports": [], "lead": 0}
    for name in ("paused", "minutely"):
        schedule = {"name": name, "cron": "* * * * *", "job": template}
        http.post("/schedules", json=schedule).raise_for_status()
    http.post("/schedules/paused/pause").raise_for_status()
    running = system.hold_until(sign)
    to_cancel = system.run("sleep 600", outcome=Outcome.CANCELLED)
    far = system.run("true", outcome=Outcome.SUCCEEDED, delay_s=3600, lead=0)
    for job_id in (running, to_cancel):
        system.wait("its container runs", partial(system.runs_of, job_id))

    migrations.upgrade(database_url)
    _use_what_is_new(system)
    (changed_at,) = _ids(system, "now()", "jobs LIMIT 1")

    system.cancel(to_cancel)
    sign.touch()
    http.patch(f"/jobs/{far}", json={"delay_s": 0}).raise_for_status()
    system.every_kind()
    system.ended()
    # A fire is decided ahead of its time.
    fires = f"fires WHERE outcome = 'ran' AND fire_time BETWEEN '{changed_at}' AND now()"
    system.wait("the schedule fires", lambda: _ids(system, "job_id", fires), within_s=200)
    (fired,) = _ids(system, "job_id", f"{fires} LIMIT 1")
    assert system.wait_closed(fired).outcome is Outcome.SUCCEEDED
    http.post("/schedules/paused/resume").raise_for_status()
    for name in ("paused", "minutely"):
        http.delete(f"/schedules/{name}").raise_for_status()
    for job_id in _ids(system, "id", "jobs"):
        system.wait_closed(job_id)
    # As on the day of an upgrade: they also begin on what they find.
    for name in before(*SERVICES):
        system.stop(name)
    system.start(*before(*SERVICES))
    system.every_kind()
    system.ended()
    unpublished = "events WHERE NOT relayed"
    system.wait("all events are published", lambda: not _ids(system, "id", unpublished))
    system.in_sync()
    assert not system.logs_with("left out")


def _use_what_is_new(system: Rolling) -> None:
    """Put rows into tables that the release before does not know; none of them is about its jobs."""
    with system.database.begin() as tx:
        concurrency_limits.put(tx, "team=reports", 1, actor="a test", instance_type="c5.large")
        webhooks.create(tx, WebhookSpec(name="hook", url="https://hooks.example.com/x"))
        pauses.begin(tx, actor="a test", reason="is over")
        pauses.end(tx, actor="a test")


def _ids(system: Rolling, what: str, where: str) -> list[Any]:
    with system.database.begin() as tx:
        return list(tx.scalars(text(f"SELECT {what} FROM {where}")))
