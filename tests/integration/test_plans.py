"""No statement that a daemon sends again and again, or that a person waits for, reads a table whole.

More than a million rows, and every loop and every call goes its way once: what it sends is explained
as it is sent. So a new statement is checked without being named here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from atemporal import migrations
from atemporal.broker import Link, Outgoing
from atemporal.calendar import rules_version
from atemporal.daemon import Loop
from atemporal.errors import NotFound
from atemporal.messages import SUBMIT
from atemporal.model import AttemptRef
from atemporal.settings import Settings
from atemporal.states import AttemptState, JobState, Outcome
from atemporal.store import (
    attempts,
    counts,
    events,
    fires,
    jobs,
    listing,
    reconciliation,
    retention,
)
from atemporal.store.database import Database
from services.launcher.__main__ import loops as launcher_loops
from services.reaper.__main__ import loops as reaper_loops
from services.scheduler.__main__ import loops as scheduler_loops
from tests import crowd
from tests.api import KEYS, Api, bearer, serving, token_of
from tests.integration.reaping import DEPLOYMENT, World
from tests.plans import Explained, recording

# On a machine that is busy otherwise so many rows take minutes to make.
pytestmark = pytest.mark.timeout(900)

# With their attempts and events more than a million rows.
FUTURE, FINISHED = 400_000, 150_000
# With their fires.
SCHEDULES, FIRES = 20_000, 20


@pytest.fixture(scope="module")
def million(database_url: str) -> str:
    """A database with a million rows."""
    migrations.upgrade(database_url)
    crowd.fill(database_url, future=FUTURE, finished=FINISHED, thin=True)
    crowd.fill_schedules(database_url, schedules=SCHEDULES, fires=FIRES)
    return database_url


@pytest.fixture(scope="module")
def database(million: str) -> Iterator[Database]:
    database = Database(million)
    yield database
    database.dispose()


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    """An empty cloud beside it."""
    world = World(database)
    world.open(tmp_path / "twin")
    yield world
    assert world._twin is not None
    world._twin.stop(power_off=True)
    world.close()


@pytest.fixture
def settings(world: World) -> Settings:
    return Settings.model_validate(
        {
            "broker_url": "memory://",
            "callback_keys": KEYS,
            "deployment": DEPLOYMENT,
            "ec2_endpoint_url": world.settings.ec2_endpoint_url,
            "poll_interval_s": 0.05,
            "retention": 30,
        }
    )


def found_in(seen: list[Explained]) -> dict[str, tuple[str, ...]]:
    return {one.statement: one.walks for one in seen if one.walks}


def assert_none_walks(seen: list[Explained]) -> None:
    bad = [f"{', '.join(walks)}:\n{sql}" for sql, walks in found_in(seen).items()]
    assert not bad, "\n\n".join(bad)


def tick(loops: list[Loop], *names: str) -> None:
    """Let the loops of these names, or all, tick once."""
    for loop in loops:
        if not names or loop.name in names:
            loop.tick()


def states(database: Database) -> set[str]:
    with database.begin() as tx:
        return set(counts.open_states(tx).values())


def test_no_tick_of_a_daemon_reads_a_table_whole(
    database: Database, settings: Settings, world: World
) -> None:
    with ExitStack() as stack:
        scheduler = scheduler_loops(settings, database)
        launcher = launcher_loops(settings, database)
        reaper = reaper_loops(settings, database)
        for loop in (*scheduler, *launcher, *reaper):
            stack.callback(loop.reset)
        seen = stack.enter_context(recording())
        link = Link("memory://", name="test")
        stack.callback(link.close)
        message = {"v": 1, "job": {"image": "busybox", "key": "of a message"}}
        tick(scheduler)
        link.publish([Outgoing(SUBMIT, json.dumps(message).encode(), "m-1", "")])
        api = stack.enter_context(serving_the(database, settings))
        planned = api.submitted(delay_s=200)
        refs = [AttemptRef(api.submitted(), 1) for _ in range(3)]
        tick(scheduler)
        tick(scheduler)
        tick(launcher)
        tick(launcher, "launch-sweep")
        assert AttemptState.WARMING in states(database)
        first, second, third = refs
        call_back(api, first)
        api.http.delete(f"/jobs/{second.job_id}")
        tick(reaper)
        world.change(*(instance_of(database, third),), state="terminated")
        tick(reaper, "reap", "reap-sweep")
        tick(reaper, "reap-sweep")
        tick(scheduler, "relay")
        with database.begin() as tx:
            lead = text("SELECT lead_s FROM jobs WHERE id = :id AND plan_at > now()")
            assert tx.scalar(lead, {"id": planned}) is not None
            assert jobs.get(tx, first.job_id).outcome is Outcome.SUCCEEDED
    assert len({one.statement for one in seen}) > 40
    assert_none_walks(seen)


def instance_of(database: Database, ref: AttemptRef) -> str:
    with database.begin() as tx:
        attempt = attempts.get(tx, ref)
    assert attempt is not None
    assert attempt.instance_id is not None
    return attempt.instance_id


def call_back(api: Api, ref: AttemptRef) -> None:
    """What the machine of an attempt says in its life."""
    path, headers = f"/jobs/{ref.job_id}/callback", bearer(token_of(ref, DEPLOYMENT))
    reports: list[tuple[str, Any]] = [
        ("POST", {}),
        ("PUT", {"clock": {}}),
        ("PATCH", {"claim": "c"}),
        ("DELETE", {"exit_code": 0}),
    ]
    for method, body in reports:
        answer = api.http.request(method, path, json=body, headers=headers)
        assert answer.status_code in (200, 204, 409, 422), answer.text


def serving_the(database: Database, settings: Settings) -> Any:
    given = settings.model_dump(include={"deployment", "ec2_endpoint_url"})
    return serving(
        str(database._engine.url.render_as_string(False)), broker_url="memory://", **given
    )


@pytest.fixture
def api(database: Database, settings: Settings) -> Iterator[Api]:
    with serving_the(database, settings) as api:
        yield api


def a_job(database: Database, **wanted: Any) -> UUID:
    with database.begin() as tx:
        return listing.page(tx, **wanted, limit=1, newest_first=True).jobs[0].id


def test_what_is_done_for_recurring_schedules_reads_no_table_whole(
    database: Database, settings: Settings, api: Api
) -> None:
    minutely = {"name": "minutely", "cron": "* * * * *", "job": {"image": "busybox"}}
    with ExitStack() as stack:
        loops = [one for one in scheduler_loops(settings, database) if one.name == "recurring"]
        stack.callback(loops[0].reset)
        seen = stack.enter_context(recording())
        for overlap in ("skip", "allow", "cancel"):
            name = f"minutely-{overlap}"
            made = api.http.post("/schedules", json={**minutely, "name": name, "overlap": overlap})
            assert made.is_success
        tick(loops)
        tick(loops)
        path = "/schedules/minutely-cancel"
        assert api.http.get(path).json()["next_fires"][0]["job_id"]
        assert api.http.get("/schedules?limit=20&after=minutely").is_success
        assert api.http.patch(path, json={"cron": "*/2 * * * *"}).is_success
        tick(loops)
        for verb in ("pause", "resume", "run"):
            assert api.http.post(f"{path}/{verb}").is_success
        tick(loops)
        assert api.http.delete(path).is_success
        with database.begin() as tx:
            assert retention.delete_old_fires(tx, keep_s=3600, limit=10) == 10
    assert len({one.statement for one in seen}) > 20
    assert_none_walks(seen)


def test_no_call_reads_a_table_whole(database: Database, api: Api) -> None:
    over = behind = a_job(database, outcomes=[Outcome.SUCCEEDED], labels=crowd.LABELS)
    later = a_job(database, states=[JobState.SCHEDULED], labels=crowd.LABELS)
    filters = [
        "",
        *(f"state={one}" for one in (*JobState, *Outcome)),
        "state=running&state=failed",
        "label=team=reports",
        "label=part=7",
        "label=team=nobody",
        "state=failed&label=part=7",
        "state=scheduled&label=team=reports",
    ]
    with recording() as seen:
        for one in filters:
            for order in ("oldest", "newest"):
                for after in ("", f"&after={behind}"):
                    assert api.http.get(f"/jobs?{one}&limit=20&order={order}{after}").is_success
        for part in (str(over), str(over)[:13], str(over)[-12:]):
            assert api.http.get(f"/jobs/{part}").json()["id"] == str(over)
        assert api.http.get("/jobs/ffffffffffff").status_code == 404
        for path in ("events", "log"):
            assert api.http.get(f"/jobs/{over}/{path}").is_success
        for path in ("", "healthz", "readyz", "metrics"):
            assert api.http.get(f"/{path}").is_success
        key = {"image": "busybox", "key": "once", "delay_s": 9999}
        assert [api.http.post("/jobs", json=key).status_code for _ in range(2)] == [201, 200]
        lines = "\n".join(json.dumps({"image": "busybox", "delay_s": 9999}) for _ in range(150))
        assert api.http.post("/jobs:batch", content=lines).is_success
        assert api.http.patch(f"/jobs/{later}", json={"delay_s": 8000}).is_success
        assert api.http.delete(f"/jobs/{later}").is_success
        assert api.http.post(f"/jobs/{over}/retry").is_success
        assert api.http.delete(f"/jobs/{over}").is_success
    assert_none_walks(seen)


def expire(tx: Connection) -> object:
    return jobs.expire_queued(tx, deadline_s=60, actor="test")


def a_page(tx: Connection) -> object:
    return reconciliation.page(
        tx, instance_ids=["i-1"], refs=[], within_s=3600, settled_for_s=7200
    )


# An index, and what is lost without it.
NEEDED: dict[str, Callable[[Connection], object]] = {
    "ix_attempts_closed": a_page,
    "ix_attempts_open": counts.open_states,
    "ix_jobs_due_by_priority": counts.oldest_waiting,
    "ix_jobs_queued": expire,
    "ix_schedules_look": lambda tx: fires.due(tx, datetime.now(UTC), limit=10),
    "ix_schedules_rules": lambda tx: fires.of_other_rules(
        tx, rules_version(), datetime.now(UTC), limit=10
    ),
    "ix_fires_settled": lambda tx: retention.delete_old_fires(tx, keep_s=3600, limit=10),
    "ix_jobs_end_of_id": lambda tx: jobs_resolve(tx, "00000000000e"),
    "ix_events_job_id": lambda tx: events.of_job(tx, UUID(int=1)),
    "ix_events_unrelayed": lambda tx: events.unrelayed(tx, 10),
}


def jobs_resolve(tx: Connection, part: str) -> object:
    try:
        return jobs.resolve(tx, part)
    except NotFound:
        return None


@pytest.mark.parametrize("index", NEEDED)
def test_an_index_that_is_not_used_is_noticed(database: Database, index: str) -> None:
    with database._engine.connect() as tx:
        with recording() as with_it:
            NEEDED[index](tx.execution_options(left_out={}))
        tx.execute(text(f"DROP INDEX {index}"))
        with recording() as without:
            NEEDED[index](tx.execution_options(left_out={}))
        tx.rollback()
    assert not found_in(with_it)
    assert found_in(without)
