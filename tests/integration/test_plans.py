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
from atemporal.broker import DEAD, Link, Outgoing
from atemporal.calendar import rules_version
from atemporal.daemon import Loop
from atemporal.errors import NotFound
from atemporal.messages import SCHEDULE, SUBMIT
from atemporal.model import AttemptRef
from atemporal.model.dead_letter import DeadReason, LetterState
from atemporal.settings import Settings
from atemporal.states import AttemptState, JobState, Outcome
from atemporal.store import (
    api_tokens,
    attempts,
    cost_limits,
    costs,
    counts,
    dead_letters,
    events,
    expired,
    fires,
    jobs,
    limit_waits,
    listing,
    logs,
    reconciliation,
    retention,
    schedule_messages,
    slots,
    start_deadlines,
)
from atemporal.store.database import Database
from atemporal.store.invariants import moved, violations
from atemporal.waiting import Phase
from services.launcher.__main__ import loops as launcher_loops
from services.reaper.__main__ import loops as reaper_loops
from services.scheduler.__main__ import loops as scheduler_loops
from services.scheduler.webhooks import WebhookLoop
from tests import crowd
from tests.api import KEYS, Api, bearer, serving, token_of
from tests.integration.reaping import DEPLOYMENT, World
from tests.integration.receivers import receiving
from tests.letters import refused
from tests.page import ORIGIN, signed_in
from tests.plans import Explained, recording

# On a machine that is busy otherwise so many rows take minutes to make.
pytestmark = pytest.mark.timeout(900)

# With their attempts and events more than a million rows.
FUTURE, FINISHED = 400_000, 150_000
# With their fires.
SCHEDULES, FIRES = 20_000, 20
LETTERS = 200_000
MESSAGES = 100_000


@pytest.fixture(scope="module")
def million(database_url: str) -> str:
    """A database with a million rows."""
    migrations.upgrade(database_url)
    crowd.fill(database_url, future=FUTURE, finished=FINISHED, thin=True)
    crowd.fill_schedules(database_url, schedules=SCHEDULES, fires=FIRES)
    crowd.fill_schedule_messages(database_url, messages=MESSAGES)
    crowd.fill_dead_letters(database_url, letters=LETTERS)
    crowd.fill_deliveries(database_url, webhooks=20, deliveries=10_000)
    crowd.fill_log_chunks(database_url, attempts=10_000, chunks=30)
    crowd.fill_costs(database_url, hours=5_000, each=20)
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
            "webhook_networks": "127.0.0.0/8",
            "webhook_http": True,
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
    given = settings.model_dump(
        include={"deployment", "ec2_endpoint_url", "webhook_networks", "webhook_http"}
    )
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


def test_what_is_done_for_messages_about_schedules_reads_no_table_whole(
    database: Database, settings: Settings
) -> None:
    nightly = {"name": "by-message", "cron": "0 2 * * *", "job": {"image": "busybox"}}
    sent: list[tuple[str, dict[str, Any]]] = [
        ("put", {"schedule": nightly}),
        ("put", {"schedule": {**nightly, "overlap": "skip"}}),
    ]
    sent += [(what, {"name": "by-message"}) for what in ("run", "pause", "resume", "delete")]
    with ExitStack() as stack:
        every = scheduler_loops(settings, database)
        loops = [one for one in every if one.name == "schedule-messages"]
        link = Link("memory://", name="test")
        stack.callback(link.close)
        stack.callback(loops[0].reset)
        seen = stack.enter_context(recording())
        tick(loops)
        for serial, (what, more) in enumerate(sent):
            message = {"type": f"schedule.{what}", "v": 1, "serial": serial, **more}
            link.publish([Outgoing(SCHEDULE, json.dumps(message).encode(), f"m-{serial}", "")])
        tick(loops)
        with database.begin() as tx:
            count = "SELECT count(*) FROM schedule_messages WHERE name = 'by-message'"
            assert tx.scalar(text(count)) == len(sent)
    assert_none_walks([one for one in seen if not one.statement.startswith("SELECT count")])


def test_what_is_done_about_dead_letters_reads_no_table_whole(
    database: Database, settings: Settings, api: Api
) -> None:
    filters = [
        "",
        "state=any",
        # Of the state that nearly all have, the newest are found by passing over a few.
        *(f"state={one}" for one in LetterState if one is not LetterState.REPLAYED),
        *(f"reason={one}" for one in DeadReason),
        "queue=launch",
        "queue=others&state=any",
        "kind=job.submit",
        "reason=rejected&queue=reap",
        "older_than_s=86400",
        "newer_than_s=60",
    ]
    with ExitStack() as stack:
        loops = [one for one in scheduler_loops(settings, database) if one.name == "dead-letters"]
        stack.callback(loops[0].reset)
        link = Link("memory://", name="test")
        stack.callback(link.close)
        seen = stack.enter_context(recording())
        link.publish([Outgoing(DEAD, b"?", f"m-{n}", "") for n in range(3)])
        tick(loops)
        for one in filters:
            page = api.http.get(f"/dead-letters?{one}&limit=20")
            assert page.is_success
            if after := page.json()["next"]:
                assert api.http.get(f"/dead-letters?{one}&limit=20&after={after}").is_success
        kept = api.http.get("/dead-letters?queue=submit&limit=2").json()["dead_letters"]
        first, second = (one["id"] for one in kept)
        assert api.http.get(f"/dead-letters/{first[-12:]}").json()["id"] == first
        assert api.http.post(f"/dead-letters/{first}/replay").is_success
        assert api.http.delete(f"/dead-letters/{second}").is_success
        tick(loops)
        with database.begin() as tx:
            again = [refused(redelivered=True)]
            assert len(dead_letters.keep(tx, again)) == 1
            assert retention.delete_old_letters(tx, keep_s=86_400, limit=10)[0] == 10
    assert len({one.statement for one in seen}) > 15


def test_what_is_done_for_limits_reads_no_table_whole(
    database: Database, settings: Settings, api: Api
) -> None:
    def as_the_reaper_looks() -> None:
        with database.begin() as tx:
            assert Phase.LIMIT in counts.oldest_waiting(tx)
            assert limit_waits.uses(tx)
            assert violations(tx, moved(tx).jobs) == []

    with ExitStack() as stack:
        scheduler = scheduler_loops(settings, database)
        launcher = launcher_loops(settings, database)
        for loop in (*scheduler, *launcher):
            stack.callback(loop.reset)
        seen = stack.enter_context(recording())
        for name, most in (("team=*", 1), ("team=plans", 1), ("vcpus", 64), ("instances", 50)):
            assert api.http.put("/limits", json={"name": name, "most": most}).is_success
        waiting = [api.submitted(labels={"team": "plans"}) for _ in range(3)][-1]
        for _ in range(3):
            tick(scheduler, "due")
            tick(launcher, "launch-types")
        assert api.http.get(f"/jobs/{waiting}").json()["waiting_limit"]["before"] == 1
        assert api.http.get("/jobs?limit=20&order=newest").is_success
        assert api.http.get("/limits").json()["limits"][-1]["uses"][0]["used"] == 1
        as_the_reaper_looks()
        assert api.http.put("/limits", json={"name": "instances", "most": 0}).is_success
        api.submitted(priority=3)
        job = api.submitted()
        tick(scheduler, "due")
        assert api.http.get(f"/jobs/{job}").json()["waiting_limit"]["limit"] == "instances"
        as_the_reaper_looks()
        for name in ("team=*", "team=plans", "vcpus", "instances"):
            assert api.http.delete("/limits", params={"name": name}).is_success
        tick(scheduler, "due")
    assert_none_walks(seen)


def test_no_view_of_the_page_reads_a_table_whole(database: Database, api: Api) -> None:
    over = a_job(database, outcomes=[Outcome.SUCCEEDED], labels=crowd.LABELS)
    paths = [
        *("", "jobs", f"jobs?after={over}", "jobs?state=failed&label=part%3D7"),
        *("jobs?image=nightly", f"jobs?image=none&after={over}", "jobs?state=failed&image=none"),
        *("jobs?schedule=none", f"find?id={str(over)[-12:]}", f"jobs/{over}", f"jobs/{over}/log"),
        *("instances", "schedules", "limits", "dead-letters", "dead-letters?state=any", "health"),
        # Of some days: who asks for all of them reads all of them.
        *("cost?days=1", "cost?by=label&label=part&days=1", "cost?by=job&days=1"),
    ]
    with database.begin() as tx:
        secret = api_tokens.create(tx, "page", ["admin"])
    with recording() as seen, signed_in(api, secret) as browser:
        for path in paths:
            answer = browser.get(f"/ui/{path}".rstrip("/"))
            assert answer.is_success, answer.text
        assert browser.post("/ui/sign-out", headers=ORIGIN).is_success
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
        # Long ago, of all times, and of those to come.
        "since_s=5184000&until_s=5000000",
        "since=2000-01-01T00:00Z&state=failed",
        "until_s=86400&label=team=reports",
        "since=2031-01-01T00:00Z&state=scheduled&label=part=7",
    ]
    with recording() as seen:
        for one in filters:
            for order in ("oldest", "newest"):
                for after in ("", f"&after={behind}"):
                    assert api.http.get(f"/jobs?{one}&limit=20&order={order}{after}").is_success
        for one in ("", "&until_s=60"):
            path = f"/jobs?image=none&limit=20&order=newest&after={behind}{one}"
            assert api.http.get(path).is_success
        for part in (str(over), str(over)[:13], str(over)[-12:]):
            assert api.http.get(f"/jobs/{part}").json()["id"] == str(over)
        assert api.http.get("/jobs/ffffffffffff").status_code == 404
        for path in ("events", "log"):
            assert api.http.get(f"/jobs/{over}/{path}").is_success
        for path in ("", "healthz", "readyz", "metrics", "overview?limit=100", "pause"):
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


def test_what_is_asked_about_costs_reads_no_table_whole(
    database: Database, settings: Settings, api: Api
) -> None:
    with ExitStack() as stack:
        loops = [one for one in scheduler_loops(settings, database) if one.name == "cost-limits"]
        stack.callback(loops[0].reset)
        # One that has passed its bound, and one that has not.
        for bound in ("0.000000001", "9.00"):
            ref = api.warming(instance_id=f"i-cost{bound}", max_cost=bound)
            with database.begin() as tx:
                priced = text(
                    "UPDATE attempts SET launch = jsonb_set(launch, '{hour_price}', '1000000')"
                    " WHERE job_id = :job"
                )
                tx.execute(priced, {"job": ref.job_id})
        seen = stack.enter_context(recording())
        tick(loops)
        assert api.http.get("/jobs?limit=1&order=newest").is_success
        with database.begin() as tx:
            assert jobs.get(tx, ref.job_id).state is JobState.WARMING
        for by in ("label=team", "schedule", "job", "instance-type", "capacity-type", "day"):
            report = api.http.get("/cost", params={"by": by, "since_s": 86_400}).json()
            assert report["total"]["attempts"] >= 24 * 20 * 3
        with database.begin() as tx:
            assert costs.delete_old(tx, keep_s=3600 * 4_000, limit=10) == 10
    assert_none_walks(seen)


def test_what_is_planned_reads_no_table_whole(api: Api) -> None:
    with recording() as seen:
        for hours in (1, 168):
            assert api.http.get(f"/plan?hours={hours}").is_success
    assert len({one.statement for one in seen}) >= 8
    assert_none_walks(seen)


def test_what_is_done_for_live_logs_reads_no_table_whole(database: Database, api: Api) -> None:
    with recording() as seen:
        ref = api.warming()
        path, token = f"/jobs/{ref.job_id}", bearer(token_of(ref, DEPLOYMENT))
        assert api.http.patch(f"{path}/callback", json={"claim": "c"}, headers=token).is_success
        assert api.http.get(f"{path}/callback", headers=token).is_success
        for start in (0, 3, 90_000):
            with database.begin() as tx:
                ago = text("UPDATE log_chunks SET at = now() - interval '9 s' WHERE job_id = :id")
                tx.execute(ago, {"id": ref.job_id})
            sent = api.http.post(
                f"{path}/callback/log?start={start}", content=b"abc", headers=token
            )
            assert sent.is_success, sent.text
        assert len(api.http.get(f"{path}/logs?attempt=1&after=2").json()["parts"]) == 2
        with database.begin() as tx:
            assert logs.end(tx, ref) == 90_003
            assert retention.delete_old_chunks(tx, keep_s=60, limit=10) == 10
    assert len({one.statement for one in seen}) > 10
    assert_none_walks(seen)


def test_following_events_reads_no_table_whole(database: Database, api: Api) -> None:
    job = a_job(database, outcomes=[Outcome.SUCCEEDED])
    with database.begin() as tx:
        middle = tx.scalar(text("SELECT max(id) / 2 FROM events"))
    filters = ["", "label=part=7", "label=team=reports", "label=team=nobody", "type=job.finished"]
    filters += [f"job={job}", "type=attempt.closed&label=part=7", "since=2000-01-01T00:00:00Z"]
    with recording() as seen:
        for one in filters:
            for where in ("", f"after={middle}", "after=999999999999", "last=20"):
                answer = api.http.get(f"/events?limit=20&{one}&{where}")
                assert answer.is_success or "after" in answer.json()["fields"]
    assert_none_walks(seen)


def test_sending_events_to_webhooks_reads_no_table_whole(
    database: Database, settings: Settings, api: Api
) -> None:
    with database.begin() as tx:
        changed = text(
            "UPDATE webhooks SET position = position - 2000, labels = :labels WHERE name = 'crowd-1'"
        )
        tx.execute(changed, {"labels": json.dumps(crowd.LABELS)})
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        seen = stack.enter_context(recording())
        made = {"name": "blue", "url": receiver.url, "labels": {"team": "blue"}}
        assert api.http.post("/webhooks", json=made).is_success
        for number in range(20):
            api.submitted(labels={"team": "blue"}, delay_s=9999 + number)
        loop = WebhookLoop(
            database, allowed=settings.networks_of_webhooks, http=True, interval_s=0.05
        )
        stack.callback(loop.reset)
        for _ in range(20):
            loop.tick()
        assert receiver.got
        for verb in ("pause", "resume", "test", "rotate-secret", "retry"):
            assert api.http.post(f"/webhooks/blue/{verb}").is_success
        for path in ("", "/blue", "/blue/failed"):
            assert api.http.get(f"/webhooks{path}").is_success
        assert api.http.delete("/webhooks/blue").is_success
        with database.begin() as tx:
            retention.delete_old_deliveries(tx, keep_s=60, limit=10)
            retention.delete_finished(tx, keep_s=60, limit=10)
    assert_none_walks(seen)


def expire(tx: Connection) -> object:
    return jobs.expire_queued(tx, deadline_s=60, actor="test")


def a_page(tx: Connection) -> object:
    return reconciliation.page(
        tx, instance_ids=["i-1"], refs=[], within_s=3600, settled_for_s=7200
    )


@pytest.mark.parametrize("kind", [*expired.KINDS, expired.LOG_CHUNKS], ids=lambda kind: kind.name)
def test_counting_what_is_old_reads_no_table_whole(
    database: Database, kind: expired.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired, "PAGE", 10)
    with database.begin() as tx, recording() as seen:
        for walk in kind.walks:
            page = walk.page(tx, keep_s=3600)
            if page.next is not None:
                walk.page(tx, keep_s=3600, after=page.next)
    assert len(seen) >= len(kind.walks)
    assert_none_walks(seen)


# An index, and what is lost without it.
NEEDED: dict[str, Callable[[Connection], object]] = {
    "ix_attempts_closed": a_page,
    "ix_attempts_open": counts.open_states,
    "ix_jobs_due_by_priority": counts.oldest_waiting,
    "ix_jobs_queued": expire,
    "ix_jobs_max_cost": lambda tx: cost_limits.end_passed(tx, actor="test", limit=10),
    "ix_jobs_start_by": lambda tx: start_deadlines.expire(tx, limit=10, actor="test"),
    "ix_jobs_waiting": slots.lanes,
    "ix_jobs_time": lambda tx: listing.page(tx, until=datetime(2000, 1, 1, tzinfo=UTC), limit=20),
    "ix_schedules_look": lambda tx: fires.due(tx, datetime.now(UTC), limit=10),
    "ix_schedules_rules": lambda tx: fires.of_other_rules(
        tx, rules_version(), datetime.now(UTC), limit=10
    ),
    "ix_dead_letters_digest": lambda tx: dead_letters.keep(tx, [refused(redelivered=True)]),
    "ix_dead_letters_state": dead_letters.undecided,
    "ix_dead_letters_over": lambda tx: retention.delete_old_letters(tx, keep_s=3600, limit=10),
    "ix_dead_letters_end_of_id": lambda tx: letters_resolve(tx, "00000000000e"),
    "ix_schedule_messages_at": lambda tx: retention.delete_old_schedule_messages(
        tx, keep_s=3600, limit=10
    ),
    "ix_schedule_messages_serial": lambda tx: schedule_messages.seen(
        tx, schedule_messages.Identity("new", "schedule-1", 1, "")
    ),
    "ix_fires_settled": lambda tx: retention.delete_old_fires(tx, keep_s=3600, limit=10),
    "ix_jobs_end_of_id": lambda tx: jobs_resolve(tx, "00000000000e"),
    "ix_webhook_deliveries_dead_at": lambda tx: retention.delete_old_deliveries(
        tx, keep_s=3600, limit=10
    ),
    "ix_events_job_id": lambda tx: events.of_job(tx, UUID(int=1)),
    "ix_events_unrelayed": lambda tx: events.unrelayed(tx, 10),
}


def jobs_resolve(tx: Connection, part: str) -> object:
    try:
        return jobs.resolve(tx, part)
    except NotFound:
        return None


def letters_resolve(tx: Connection, part: str) -> object:
    try:
        return dead_letters.resolve(tx, part)
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
