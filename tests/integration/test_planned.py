"""What is planned, by the API and the command line: jobs, fires to come, what is under way, limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from atemporal.clock import format_utc
from atemporal.store import planned
from atemporal.store.database import Database
from tests.api import Api, serving
from tests.integration.command_line import Cli

pytestmark = pytest.mark.usefixtures("own_output")

TABLE = "item,region,on_demand_usd,spot_usd\nt3.small,,3.6,1.8\n"
SMALL = {"instance_types": ["t3.small"]}


@pytest.fixture(autouse=True)
def empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tables = "jobs, attempts, events, schedules, fires, concurrency_limits, slots, pauses"
        tx.execute(text(f"TRUNCATE {tables} CASCADE"))


@pytest.fixture
def api(database: Database, database_url: str, tmp_path: Path) -> Iterator[Api]:
    path = tmp_path / "prices.csv"
    path.write_text(TABLE)
    with serving(database_url, prices_file=str(path)) as api:
        yield api


@pytest.fixture
def cli(api: Api, database_url: str) -> Cli:
    return Cli(database_url, str(api.http.base_url))


def planned_for(api: Api, hours: int = 24) -> Any:
    answer = api.http.get("/plan", params={"hours": hours})
    assert answer.is_success, answer.text
    return answer.json()


def hourly(api: Api, name: str = "hourly", **fields: Any) -> None:
    job = {"image": "busybox", "machine": SMALL, "timeout_s": 600, **fields.pop("job", {})}
    # Half an hour from now: no test meets a fire.
    minute = (datetime.now(UTC) + timedelta(minutes=30)).minute
    given = {"name": name, "cron": f"{minute} * * * *", "job": job, **fields}
    assert api.http.post("/schedules", json=given).is_success


def test_fires_to_come_are_counted_once_with_the_jobs_that_are_made(
    api: Api, database: Database
) -> None:
    hourly(api)
    assert planned_for(api)["runs"] == 24
    with database.begin() as tx:
        at = tx.scalar(text("SELECT next_fire_at FROM schedules"))
    key = f"schedule:hourly:{format_utc(at)}"
    api.submitted(time=format_utc(at), key=key, labels={"atemporal/schedule": "hourly"})
    assert planned_for(api)["runs"] == 24


def test_jobs_of_every_priority_up_to_the_horizon_and_none_behind_it(api: Api) -> None:
    for priority in (-7, 0, 50):
        api.submitted(delay_s=1800, priority=priority, machine=SMALL, timeout_s=600)
    api.submitted(delay_s=2 * 3600, machine=SMALL)
    found = planned_for(api, 1)
    assert (found["runs"], found["peak"]["instances"], found["at_most"]) == (3, 3, 3)
    # From its launch, two minutes ahead of its time, to its timeout: a tenth of a cent a second.
    assert found["cost"] == "2.16"
    assert planned_for(api, 3)["runs"] == 4


def test_what_is_under_way_counts_at_once_until_it_ends(api: Api) -> None:
    api.running(timeout_s=900)
    found = planned_for(api, 2)
    assert (found["runs"], found["under_way"]) == (0, 1)
    assert found["hours"][0]["instances"] == 1
    assert found["hours"][-1]["instances"] == 0


def test_a_schedule_takes_what_its_latest_runs_took(api: Api, database: Database) -> None:
    hourly(api)
    for number, took in enumerate((30, 40, 300)):
        ref = api.running(labels={"atemporal/schedule": "hourly"})
        api.exit(ref, exit_code=0)
        with database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE attempts SET started_at = exited_at - make_interval(secs => :took)"
                    " WHERE job_id = :job"
                ),
                {"took": took, "job": ref.job_id},
            )
            tx.execute(
                text(
                    "INSERT INTO fires (schedule_id, fire_time, outcome, job_id, settled)"
                    " SELECT id, now() - make_interval(hours => :n), 'ran', :job, true FROM schedules"
                ),
                {"n": number + 1, "job": ref.job_id},
            )
    with database.begin() as tx:
        assert sorted(planned.latest(tx, ["hourly"])["hourly"].ran_s) == [30, 40, 300]
    (row,) = planned_for(api)["schedules"]
    assert (row["longest_s"], row["at_most"]) == (40, False)


def test_more_than_a_limit_allows_is_a_collision(api: Api) -> None:
    assert api.http.put("/limits", json={"name": "team=*", "most": 1}).is_success
    for _ in range(3):
        api.submitted(delay_s=600, labels={"team": "mi6"}, timeout_s=60)
    (one,) = planned_for(api, 1)["collisions"]
    assert (one["limit"], one["name"], one["too_many"]) == ("team=*", "team=mi6", 2)


def test_pauses_and_what_can_not_fire_are_told(api: Api, cli: Cli, database: Database) -> None:
    for name in ("rests", "broken", "works"):
        hourly(api, name)
    assert api.http.post("/schedules/rests/pause").is_success
    with database.begin() as tx:
        tx.execute(text("UPDATE schedules SET problem = 'no such zone' WHERE name = 'broken'"))
    assert api.http.put("/pause", json={"reason": "move"}).is_success
    found = planned_for(api, 5)
    assert (found["paused"], found["paused_schedules"], found["runs"]) == (True, ["rests"], 5)
    assert found["stuck"] == [{"name": "broken", "problem": "no such zone"}]
    output = cli("plan", "--hours", "5").output
    for words in ("installation is paused", "broken can not be fired: no such zone", "rests"):
        assert words in output


def test_the_command_shows_hours_schedules_collisions_and_the_cost(api: Api, cli: Cli) -> None:
    assert "0 runs" in cli("plan").output
    hourly(api)
    assert api.http.put("/limits", json={"name": "instances", "most": 0}).is_success
    shown = cli("plan", "--hours", "3").output
    assert shown.startswith("3 runs until ")
    assert "cost at most 2." in shown
    assert "limit instances: 1 wanted, 0 allowed, 1 too many" in shown
    assert "hourly" in cli("plan", "--by", "schedule").output
    assert cli.json("plan", "--hours", "3")["runs"] == 3
    hourly(api, "dear", job={"machine": {"instance_types": ["x9.huge"]}})
    assert "cost unknown: no price for x9.huge" in cli("plan").output


def test_hours_are_bounded(api: Api, cli: Cli) -> None:
    for hours in ("0", "169", "x"):
        assert api.http.get(f"/plan?hours={hours}").status_code == 422
    assert api.http.get("/plan?days=1").status_code == 422
    cli("plan", "--hours", "169", code=2)


def test_a_time_with_too_many_schedules_ends_where_others_may_fire(
    api: Api, cli: Cli, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.plan.SCHEDULES", 2)
    for name in ("first", "broken"):
        hourly(api, name)
    assert planned_for(api)["cut"] is False
    # The third one is looked at three hours from now; what can not fire takes a place all the same.
    hourly(api, "third")
    with database.begin() as tx:
        tx.execute(text("UPDATE schedules SET problem = 'no such zone' WHERE name = 'broken'"))
        later = "UPDATE schedules SET look_at = now() + interval '3 hours' WHERE name = 'third'"
        tx.execute(text(later))
        left_from = tx.scalar(text("SELECT look_at FROM schedules WHERE name = 'third'"))
    found = planned_for(api)
    assert (found["runs"], found["cut"], found["until"]) == (3, True, format_utc(left_from))
    assert f"this is what comes first, until {found['until']}" in cli("plan").stderr
    assert planned_for(api, 2)["cut"] is False


def test_a_time_with_too_many_fires_ends_earlier_and_says_so(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.plan.MOST", 5)
    hourly(api)
    found = planned_for(api)
    assert (found["runs"], found["cut"]) == (5, True)
    assert datetime.fromisoformat(found["until"]) < datetime.now(UTC) + timedelta(hours=7)
