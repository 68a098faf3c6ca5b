"""Concurrency limits by HTTP and by `atemporal limit`, and what a job that waits for one says."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal.store import api_tokens, counts, instance_types, jobs, limit_waits
from atemporal.store.database import Database
from atemporal.waiting import Phase
from services.launcher.instance_types import InstanceTypeLoop
from services.reaper import limits as gauges
from tests.api import Api, bearer
from tests.backlogs import seeing_all
from tests.integration.command_line import Cli

pytestmark = pytest.mark.usefixtures("own_output")


@pytest.fixture(autouse=True)
def empty(api: Api) -> Iterator[None]:
    yield
    tables = "jobs, attempts, events, concurrency_limits, limit_changes, slots, instance_types"
    with api.database.begin() as tx:
        tx.execute(text(f"TRUNCATE {tables}"))
    gauges.report([])


def tick(database: Database) -> list[UUID]:
    backlog = seeing_all()
    found: list[UUID] = []
    while True:
        with database.begin() as tx:
            given = backlog.claim(tx, backlog.survey(tx), actor="t", limit=100, ahead_s=0.0)
        found += [UUID(one.position.job_id) for one in given.jobs]
        if not given.more:
            return found


def of_team(api: Api, team: str, count: int, **fields: object) -> list[UUID]:
    return [api.submitted(labels={"team": team}, **fields) for _ in range(count)]


class TestCommands:
    def test_set_list_and_remove(self, cli: Cli, api: Api) -> None:
        assert cli("limit", "set", "team=mi6", "5").stdout == "team=mi6: 5 at once\n"
        cli("limit", "set", "team=*", "10")
        cli("limit", "set", "jobs", "200")
        of_team(api, "mi6", 6)
        of_team(api, "cia", 2)
        tick(api.database)
        shown = [line.split() for line in cli("limit", "list").stdout.splitlines()[1:]]
        assert [words[:4] for words in shown] == [
            ["jobs", "200", "7", "0"],
            ["team=*", "10", "-", "-"],
            ["team=cia", "-", "2", "0"],
            ["team=mi6", "5", "5", "1"],
        ]
        listed = {one["name"]: one for one in cli.json("limit", "list")}
        assert listed["team=mi6"]["uses"] == [{"name": "team=mi6", "used": 5, "waiting": 1}]
        assert listed["team=*"]["uses"] == [{"name": "team=cia", "used": 2, "waiting": 0}]
        assert "it was 5" in cli("limit", "rm", "team=mi6").stdout
        assert len(tick(api.database)) == 1
        history = cli.json("limit", "history")
        assert [(one["name"], one["before"], one["after"]) for one in history] == [
            ("team=mi6", 5, None),
            ("jobs", None, 200),
            ("team=*", None, 10),
            ("team=mi6", None, 5),
        ]
        assert {one["actor"] for one in history} == {"api"}
        assert "none" in cli("limit", "history", "jobs").stdout

    def test_what_is_no_limit_is_refused_before_anything_is_sent(self, cli: Cli) -> None:
        assert "NAME=VALUE" in cli("limit", "set", "team", "5", code=2).output
        cli("limit", "set", "jobs", "-1", code=2)
        cli("limit", "set", "jobs", "many", code=2)
        assert "there is no limit" in cli("limit", "rm", "jobs", code=4).output
        assert "atemporal limit set" in cli("limit", "list").stderr


class TestHttp:
    def test_a_value_of_a_label_may_be_any_text(self, api: Api) -> None:
        name = "atemporal/schedule=a/b.json?&"
        assert api.http.put("/limits", json={"name": name, "most": 3}).json()["name"] == name
        assert api.http.get("/limits").json()["limits"][0]["most"] == 3
        assert api.http.delete("/limits", params={"name": name}).is_success
        found = api.http.get("/limits/changes", params={"name": name, "limit": 1}).json()
        assert [one["after"] for one in found["changes"]] == [None]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"name": "jobs"},
            {"name": "jobs", "most": -1},
            {"name": "jobs", "most": "5"},
            {"name": 5, "most": 5},
            {"name": "team", "most": 5},
            {"name": "jobs", "most": 5, "more": 1},
        ],
    )
    def test_what_is_bad_is_refused_and_nothing_happens(
        self, api: Api, body: dict[str, object]
    ) -> None:
        answer = api.http.put("/limits", json=body)
        assert answer.status_code == 422
        assert answer.json()["fields"]
        assert api.http.get("/limits").json() == {"limits": []}
        assert api.http.get("/limits/changes").json() == {"changes": []}

    def test_changes_want_the_scope_admin_and_say_whose_token_it_was(self, api: Api) -> None:
        with api.database.begin() as tx:
            tx.execute(text("DELETE FROM api_tokens"))
            user = api_tokens.create(tx, "user", ("submit", "read", "cancel"))
            admin = api_tokens.create(tx, "boss", ("admin",))
        body = {"name": "jobs", "most": 5}
        assert api.http.put("/limits", json=body, headers=bearer(user)).status_code == 403
        removed = api.http.delete("/limits?name=jobs", headers=bearer(user))
        assert removed.status_code == 403
        assert api.http.get("/limits", headers=bearer(user)).json() == {"limits": []}
        made = api.http.put("/limits", json=body, headers=bearer(admin)).json()
        assert made["changed_by"] == "api:boss"


class TestWhoWaits:
    def test_a_job_says_for_which_limit_and_behind_whom(self, cli: Cli, api: Api) -> None:
        cli("limit", "set", "team=mi6", "2")
        ids = of_team(api, "mi6", 5)
        assert tick(api.database) == ids[:2]
        first = of_team(api, "mi6", 1, priority=5)[0]
        assert tick(api.database) == []
        sentence = "limit team=mi6 (2 of 2 in use), 3 before it"
        sent = api.http.get(f"/jobs/{ids[4]}").json()
        assert sent["waiting_for"] == sentence
        assert sent["waiting_limit"] == {
            "limit": "team=mi6",
            "used": 2,
            "most": 2,
            "needs": 1,
            "vcpus_of": None,
            "before": 3,
            "before_more": False,
        }
        shown = cli("show", str(ids[4])).stdout
        assert sentence in shown
        assert "overdue" not in shown
        assert "0 before it" in cli("show", str(first)).stdout
        assert "scheduled (limit team=mi6)" in cli("list").stdout
        listed = {one["id"]: one["waiting_limit"] for one in cli.json("list")["jobs"]}
        assert listed[str(ids[2])]["before"] == 1
        assert listed[str(ids[0])] is None

    def test_where_nobody_may_start_all_that_is_due_waits_for_that(
        self, cli: Cli, api: Api
    ) -> None:
        cli("limit", "set", "instances", "1")
        low = [api.submitted(priority=-2) for _ in range(2)]
        high = [api.submitted(priority=3) for _ in range(2)]
        api.submitted(priority=3, delay_s=900)
        assert tick(api.database) == high[:1]
        sentence = api.http.get(f"/jobs/{low[1]}").json()["waiting_for"]
        assert sentence == "limit instances (1 of 1 in use), 2 before it"
        with api.database.begin() as tx:
            waiting = counts.oldest_waiting(tx)
        assert {phase: many for phase, (many, _) in waiting.items()} == {
            Phase.QUEUED: 1,
            Phase.LIMIT: 3,
        }
        cli("limit", "rm", "instances")
        assert api.http.get(f"/jobs/{low[1]}").json()["waiting_limit"] is None

    def test_vcpus_and_a_type_that_nobody_knows(self, cli: Cli, api: Api) -> None:
        cli("limit", "set", "vcpus", "4")
        job = api.submitted(machine={"instance_types": ["c7i.8xlarge"]})
        assert tick(api.database) == []
        sentence = api.http.get(f"/jobs/{job}").json()["waiting_for"]
        assert sentence.startswith("limit vcpus (the vCPUs of c7i.8xlarge are not known yet)")
        with api.database.begin() as tx:
            instance_types.write(tx, {"c7i.8xlarge": 32})
        assert tick(api.database) == []
        sentence = api.http.get(f"/jobs/{job}").json()["waiting_for"]
        assert "it needs 32, more than the 4 that there are" in sentence

    def test_more_than_are_counted(self, api: Api, cli: Cli) -> None:
        cli("limit", "set", "team=mi6", "0")
        ids = of_team(api, "mi6", 5)
        tick(api.database)
        with api.database.begin() as tx:
            (job,) = limit_waits.explained(tx, [jobs.get(tx, ids[4])], counted=2)
        assert str(job.limit_wait).endswith("more than 2 before it")


class TestGauges:
    def test_what_is_set_has_series_and_what_is_removed_has_none(self, cli: Cli, api: Api) -> None:
        cli("limit", "set", "team=*", "2")
        cli("limit", "set", "jobs", "9")
        of_team(api, "mi6", 3)
        tick(api.database)
        self.report(api)
        assert self.series() == {"jobs": (9, 2, 0), "team=mi6": (2, 2, 1)}
        cli("limit", "rm", "jobs")
        self.report(api)
        assert self.series() == {"team=mi6": (2, 2, 1)}

    def test_no_more_than_so_many_the_fullest_first(self) -> None:
        uses = [limit_waits.Use(f"team={n:03}", n, 500, 0) for n in range(300)]
        gauges.report(uses)
        assert sorted(self.series()) == [f"team={n:03}" for n in range(200, 300)]

    def report(self, api: Api) -> None:
        with api.database.begin() as tx:
            gauges.report(limit_waits.uses(tx))

    def series(self) -> dict[str, tuple[float, ...]]:
        each = [
            {sample.labels["limit"]: sample.value for sample in family.samples}
            for metric in (gauges.ALLOWED, gauges.USED, gauges.WAITING)
            for family in metric.collect()
        ]
        return {name: tuple(one[name] for one in each) for name in each[0]}


class Ec2:
    """What a launcher asks; it knows one type."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def vcpus(self, types: list[str]) -> dict[str, int]:
        self.asked.append(list(types))
        return {"c7i.large": 2}


def test_a_launcher_asks_once_for_what_is_needed(api: Api) -> None:
    ec2 = Ec2()
    loop = InstanceTypeLoop(api.database, ec2, interval_s=5.0)  # type: ignore[arg-type]
    assert loop.tick() == 5.0
    with api.database.begin() as tx:
        tx.execute(text("INSERT INTO instance_types (name) VALUES ('c7i.large'), ('none.such')"))
    listener = api.database.listen()
    loop.tick()
    loop.tick()
    assert ec2.asked == [["c7i.large", "none.such"]]
    assert listener.wait(30)
    listener.close()
    with api.database.begin() as tx:
        found = {row.name: row.vcpus for row in tx.execute(text("SELECT * FROM instance_types"))}
        assert found == {"c7i.large": 2, "none.such": 0}
        tx.execute(text("UPDATE instance_types SET asked_at = now() - interval '2 h'"))
        assert instance_types.unknown(tx, limit=9) == ["none.such"]
