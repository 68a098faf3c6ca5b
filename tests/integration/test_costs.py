"""What attempts cost: booked once by the price of their launch, summed up, and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.billing import NANO, amount, dollars
from atemporal.broker import Link
from atemporal.messages import REAP, JobCancel, decode
from atemporal.model import Attempt, AttemptRef, ExitRecord, Job, Launch, parse_spec
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import attempts, cost_limits, costs, jobs, launches, retention
from atemporal.store.adoption import adopt
from atemporal.store.costs import By, Report
from atemporal.store.database import Database, server_time
from services.reaper.retention import RetentionLoop
from services.scheduler.cost_limits import CostLimitLoop
from tests.api import serving
from tests.claims import claim_due
from tests.integration.command_line import Cli
from tests.integration.launching import NO_CAPACITY
from tests.integration.launching import World as LaunchWorld
from tests.integration.reaping import World
from tests.invariants import assert_invariants
from tests.launches import LAUNCH

pytestmark = pytest.mark.usefixtures("own_output")

# A tenth of a cent for each second.
PRICED = LAUNCH.model_copy(update={"hour_price": amount("3.6")})
TABLE = """item,region,on_demand_usd,spot_usd
t3.small,,3.6,1.8
gp3,,0.08,
"""


@pytest.fixture(autouse=True)
def empty(database: Database) -> Iterator[None]:
    yield
    assert_invariants(database)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events, costs, schedules, fires CASCADE"))


@pytest.fixture
def prices_file(tmp_path: Path) -> str:
    path = tmp_path / "prices.csv"
    path.write_text(TABLE)
    return str(path)


def begun(database: Database, *, launch: Launch = PRICED, **fields: Any) -> AttemptRef:
    """A new job's first attempt, with its instance."""
    with database.begin() as tx:
        spec = parse_spec({"image": "busybox", **fields})
        job_id = jobs.submit_one(tx, spec, actor="test").job_id
        (ref,) = (one for one in claim_due(tx, 10, actor="test") if one.job_id == job_id)
    return launched(database, ref, launch)


def launched(database: Database, ref: AttemptRef, launch: Launch = PRICED) -> AttemptRef:
    with database.begin() as tx:
        assert launches.begin(tx, ref, launch, actor="test")
        instance = f"i-{ref.job_id.hex[-16:]}{ref.number}"
        assert attempts.launched(tx, ref, instance, actor="test")
    return ref


def ended(database: Database, ref: AttemptRef, code: int = 0) -> None:
    record = ExitRecord(exit_code=code)
    with database.begin() as tx:
        assert attempts.end(tx, ref, record.reason, actor="test", exit_record=record)


def closed(database: Database, ref: AttemptRef, **times: datetime) -> Attempt | None:
    with database.begin() as tx:
        assert attempts.close(tx, ref, actor="test")
        return costs.book(tx, ref, **times)


def paid(database: Database, seconds: int, **fields: Any) -> AttemptRef:
    """An attempt that was billed for so many seconds."""
    ref = begun(database, **fields)
    ended(database, ref)
    at = now(database)
    closed(database, ref, launched_at=at - timedelta(seconds=seconds), ended_at=at)
    return ref


def now(database: Database) -> datetime:
    with database.begin() as tx:
        return server_time(tx)


def job_of(database: Database, ref: AttemptRef) -> Job:
    with database.begin() as tx:
        return jobs.get(tx, ref.job_id)


def attempt_of(database: Database, ref: AttemptRef) -> Attempt:
    with database.begin() as tx:
        found = attempts.get(tx, ref)
    assert found is not None
    return found


def reported(database: Database, by: By, **more: Any) -> Report:
    with database.begin() as tx:
        return costs.report(tx, by, **{"since_s": 3600.0, "limit": 100, **more})


def ago(database: Database, ref: AttemptRef, seconds: float) -> None:
    """Let it have been launched so long ago."""
    with database.begin() as tx:
        tx.execute(
            text(
                "UPDATE attempts SET launched_at = now() - make_interval(secs => :s)"
                " WHERE job_id = :job AND number = :number"
            ),
            {"s": seconds, "job": ref.job_id, "number": ref.number},
        )


class TestBookings:
    def test_ec2s_own_times_count_and_the_price_of_the_launch(self, database: Database) -> None:
        ref = begun(database)
        ended(database, ref)
        begin = datetime(2030, 1, 1, tzinfo=UTC)
        until = begin + timedelta(seconds=100)
        booked = closed(database, ref, launched_at=begin, ended_at=until)
        assert booked is not None
        found = attempt_of(database, ref)
        assert (found.billed_from, found.billed_until, found.billed_s) == (begin, until, 100)
        assert dollars(found.booked or 0) == "0.10"
        assert job_of(database, ref).cost == NANO // 10

    def test_it_is_booked_once(self, database: Database) -> None:
        ref = paid(database, 100)
        with database.begin() as tx:
            assert costs.book(tx, ref) is None
        assert reported(database, By.DAY).total.attempts == 1

    def test_without_ec2s_times_our_own_count(self, database: Database) -> None:
        ref = begun(database)
        ago(database, ref, 500)
        with database.begin() as tx:
            costs.ending(tx, {ref: None})
        ended(database, ref)
        with database.begin() as tx:
            # What was written first stays.
            costs.ending(tx, {ref: datetime(2030, 1, 1, tzinfo=UTC)})
        closed(database, ref)
        found = attempt_of(database, ref)
        assert found.billed_from == found.launched_at
        assert found.billed_s is not None
        assert 500 <= found.billed_s <= 560

    def test_what_somebody_else_has_locked_is_waited_for_by_nobody(
        self, database: Database
    ) -> None:
        ref = begun(database)
        with database.begin() as other:
            other.execute(
                text("SELECT FROM attempts WHERE job_id = :id FOR UPDATE"), {"id": ref.job_id}
            )
            with database.begin() as tx:
                costs.ending(tx, {ref: None})
        assert attempt_of(database, ref).billed_until is None

    def test_one_without_a_price_counts_as_such(self, database: Database) -> None:
        ref = paid(database, 100, launch=LAUNCH)
        assert attempt_of(database, ref).booked is None
        total = reported(database, By.DAY).total
        assert (total.attempts, total.unpriced, total.seconds, total.cost) == (1, 1, 100, 0)

    def test_one_without_an_instance_costs_nothing(self, database: Database) -> None:
        with database.begin() as tx:
            spec = parse_spec({"image": "busybox"})
            job_id = jobs.submit_one(tx, spec, actor="test").job_id
            (ref,) = claim_due(tx, 10, actor="test")
            assert launches.begin(tx, ref, PRICED, actor="test")
            jobs.cancel(tx, job_id, actor="test")
        assert closed(database, ref) is None
        assert job_of(database, ref).cost == 0
        # EC2 shows one after all, and it is gone: then it is booked.
        at = now(database)
        with database.begin() as tx:
            early = at - timedelta(seconds=90)
            instance_id = "i-0123456789abcdef0"
            adopt(tx, ref, instance_id, known=None, gone=True, launched_at=early, actor="test")
            assert costs.book(tx, ref, ended_at=at) is not None
        assert attempt_of(database, ref).billed_s == 90

    def test_an_instance_that_was_never_running_is_not_billed(self, database: Database) -> None:
        ref = begun(database)
        with database.begin() as tx:
            code = "Server.InsufficientInstanceCapacity"
            reason = Reason.NO_CAPACITY
            assert attempts.end(tx, ref, reason, actor="test", end_code=code, patience_s=60)
        closed(database, ref, launched_at=now(database) - timedelta(seconds=90))
        found = attempt_of(database, ref)
        assert (found.billed_s, found.booked) == (0, 0)


class TestReaper:
    @pytest.fixture
    def world(self, database: Database, tmp_path: Path) -> Iterator[World]:
        made = World(database)
        made.open(tmp_path / "twin")
        yield made
        made.shut()
        made.close()

    def test_an_instance_is_booked_by_what_ec2_says_of_it(
        self, world: World, database: Database
    ) -> None:
        before = sample("atemporal_cost_usd_total", capacity_type="on-demand")
        ref, instance_id = world.launch()
        price = {"hour_price": amount("3.6")}
        with database.begin() as tx:
            launch = LAUNCH.model_copy(update=price).model_dump_json()
            tx.execute(
                text("UPDATE attempts SET launch = :launch WHERE job_id = :job"),
                {"launch": launch, "job": ref.job_id},
            )
        world.sweep().tick()
        assert sample("atemporal_cost_usd_per_hour", capacity_type="on-demand") == 3.6
        world.cancel(ref)
        world.reaper.end_instances_of([ref])
        world.wait_gone(instance_id)
        (shown,) = (one for one in world.cloud.all() if one.id == instance_id)
        world.sweep().tick()
        found = attempt_of(database, ref)
        assert found.state is AttemptState.CLOSED
        assert found.billed_from is not None
        assert shown.ended_at is not None
        assert found.billed_from == shown.launched_at
        assert found.billed_until == max(shown.ended_at, found.billed_from)
        assert (found.billed_s, found.booked) == (60, amount("0.06"))
        after = sample("atemporal_cost_usd_total", capacity_type="on-demand")
        assert after - before == pytest.approx(0.06)
        world.sweep().tick()
        assert sample("atemporal_cost_usd_per_hour", capacity_type="on-demand") == 0

    def test_an_end_that_ec2_does_not_date_is_written_down_when_it_is_seen(
        self, world: World, database: Database
    ) -> None:
        ref, instance_id = world.launch()
        world.change(instance_id, state="terminated")
        world.limits = world.limits.__class__(**{**vars(world.limits), "grace_s": 300})
        before = now(database)
        world.sweep().tick()
        found = attempt_of(database, ref)
        # Its end is not concluded yet, because its console may come; what it costs stands still.
        assert found.state is AttemptState.WARMING
        assert found.billed_until is not None
        assert before <= found.billed_until <= now(database)
        world.cancel(ref)
        world.sweep().tick()
        assert attempt_of(database, ref).billed_until == found.billed_until


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class TestReport:
    def test_the_same_total_whatever_it_is_summed_by(self, database: Database) -> None:
        paid(database, 100, labels={"team": "a"})
        paid(database, 200, labels={"team": "b", "atemporal.x": "1"})
        paid(database, 300)
        spot = PRICED.model_copy(update={"capacity_type": "spot", "instance_type": "c5.large"})
        paid(database, 400, launch=spot, labels={"team": "b"})
        by_team = reported(database, By.LABEL, label="team")
        assert [
            (one.name, one.attempts, one.seconds, dollars(one.cost)) for one in by_team.rows
        ] == [
            ("b", 2, 600, "0.60"),
            (None, 1, 300, "0.30"),
            ("a", 1, 100, "0.10"),
        ]
        assert {one.name: one.seconds for one in reported(database, By.CAPACITY_TYPE).rows} == {
            "on-demand": 600,
            "spot": 400,
        }
        for by in By:
            found = reported(database, by, label="team", limit=1)
            assert found.total[1:] == (4, 0, 1000, NANO)
            together = [sum(one) for one in zip(found.rows[0][1:], found.others[1:], strict=True)]
            assert together == [4, 0, 1000, NANO]

    def test_it_is_of_the_hours_that_were_asked_for(self, database: Database) -> None:
        paid(database, 100)
        at = now(database)
        hour = timedelta(hours=1)
        assert reported(database, By.DAY, since=at, until=at).total.attempts == 1
        assert reported(database, By.DAY, since=at - 2 * hour, until=at - hour).total.attempts == 0
        assert reported(database, By.DAY, since=at + hour, until=at + 2 * hour).rows == []

    def test_what_was_deleted_stays_in_the_sums(self, database: Database) -> None:
        old, new = paid(database, 100, labels={"team": "a"}), paid(database, 200)
        with database.begin() as tx:
            tx.execute(text("UPDATE events SET relayed = true"))
            aged = "UPDATE jobs SET finished_at = now() - interval '2 days' WHERE id = :id"
            tx.execute(text(aged), {"id": old.job_id})
            assert retention.delete_finished(tx, keep_s=86_400, limit=10) == 1
        assert [one.name for one in reported(database, By.JOB).rows] == [str(new.job_id)]
        assert reported(database, By.JOB).others[1:] == (1, 0, 100, NANO // 10)
        assert reported(database, By.LABEL, label="team").total.seconds == 300

    def test_sums_go_by_an_age_of_their_own(self, database: Database) -> None:
        paid(database, 100)
        with database.begin() as tx:
            tx.execute(text("UPDATE costs SET hour = hour - interval '3 days'"))
        RetentionLoop(database, days=0, cost_days=4).tick()
        assert reported(database, By.DAY, since_s=9 * 86_400).total.attempts == 1
        RetentionLoop(database, days=0, cost_days=2).tick()
        assert reported(database, By.DAY, since_s=9 * 86_400).total.attempts == 0

    def test_without_a_price_table_nothing_is_taken_for_free(
        self, database: Database, database_url: str, prices_file: str, cli: Cli
    ) -> None:
        paid(database, 100, launch=LAUNCH)
        done = cli("cost", "-o", "json")
        assert json.loads(done.stdout)["priced"] is False
        assert "no price table" in done.stderr
        assert "no price table" in cli("cost").stderr
        with serving(database_url, prices_file=prices_file) as api:
            other = Cli(database_url, str(api.http.base_url))
            done = other("cost", "-o", "json")
            assert json.loads(done.stdout)["priced"] is True
            assert "no price table" not in done.stderr
            assert "no price table" not in api.http.get("/ui/cost").text

    def test_the_command_line_shows_it_and_what_is_under_way(
        self, database: Database, cli: Cli
    ) -> None:
        paid(database, 100, labels={"team": "a"})
        paid(database, 7200, labels={"team": "b"}, launch=LAUNCH)
        running = begun(database)
        ago(database, running, 1000)
        done = cli("cost", "--by", "label=team", "--since", "2h")
        report = cli.json("cost", "--by", "label=team", "--since", "2h")
        days = cli.json("cost", "--until", "2000-01-01", "--since", "1999-01-01")
        shown = cli("show", str(running.job_id)).stdout
        for bad in ("team", "label=", "jobs"):
            assert "use label=NAME" in cli("cost", "--by", bad, code=2).output
        assert [line.split() for line in done.stdout.splitlines()[1:]] == [
            ["LABEL=TEAM", "ATTEMPTS", "HOURS", "COST"],
            ["a", "1", "0.03", "0.1000"],
            ["b", "1", "2.00", "0.0000"],
            ["total", "2", "2.03", "0.1000"],
        ]
        assert "1 attempt, 1.0" in done.stderr
        assert "1 attempt counts with nothing" in done.stderr
        assert "no price was known" in done.stderr
        row = {"attempts": 1, "unpriced": 0, "seconds": 100, "cost": "0.10", "name": "a"}
        assert report["rows"][0] == row
        assert report["under_way"]["per_hour"] == "3.60"
        assert days["rows"] == []
        assert "so far" in shown


class TestMaxCost:
    @pytest.fixture
    def loop(self, database: Database, memory_url: str) -> Iterator[CostLimitLoop]:
        made = CostLimitLoop(database, Link(memory_url, name="cost-limits"), page=2)
        yield made
        made.reset()

    def test_a_job_that_has_passed_it_is_ended_and_not_tried_again(
        self, database: Database, memory_url: str, loop: CostLimitLoop
    ) -> None:
        within = [begun(database, max_cost="0.20") for _ in range(3)]
        ref = begun(database, max_cost="0.10", max_attempts=5)
        free = begun(database)
        for one in (*within, ref, free):
            ago(database, one, 101)
        assert loop.tick() <= 30
        job = job_of(database, ref)
        assert (job.state, job.outcome, job.reason) == (
            JobState.FINISHED,
            Outcome.FAILED,
            Reason.MAX_COST,
        )
        assert attempt_of(database, ref).state is AttemptState.EXITED
        for one in (*within, free):
            assert job_of(database, one).state is JobState.WARMING
        link = Link(memory_url, name="test")
        link.connect()
        (delivery,) = link.receive(REAP, limit=10)
        assert decode(REAP, delivery.body) == JobCancel.of(ref)
        link.close()
        loop.tick()
        assert job_of(database, within[0]).state is JobState.WARMING

    def test_all_attempts_count_also_between_two_of_them(
        self, database: Database, loop: CostLimitLoop
    ) -> None:
        ref = begun(database, max_cost="0.10", max_attempts=5, backoff_s=3600)
        ended(database, ref, code=7)
        assert job_of(database, ref).state is JobState.SCHEDULED
        loop.tick()
        assert job_of(database, ref).state is JobState.SCHEDULED
        at = now(database)
        closed(database, ref, launched_at=at - timedelta(seconds=101), ended_at=at)
        loop.tick()
        assert job_of(database, ref).reason is Reason.MAX_COST

    def test_a_retry_gives_it_anew(self, database: Database, loop: CostLimitLoop) -> None:
        ref = begun(database, max_cost="0.10")
        ago(database, ref, 101)
        loop.tick()
        closed(database, ref)
        with database.begin() as tx:
            jobs.retry(tx, ref.job_id, actor="test")
            (again,) = claim_due(tx, 10, actor="test")
        loop.tick()
        assert job_of(database, ref).state is JobState.QUEUED
        launched(database, again)
        loop.tick()
        assert job_of(database, ref).state is JobState.WARMING
        ago(database, again, 101)
        loop.tick()
        assert job_of(database, ref).reason is Reason.MAX_COST

    def test_one_that_went_on_meanwhile_is_left_alone(self, database: Database) -> None:
        ref = begun(database, max_cost="0.10")
        ago(database, ref, 101)
        with database.begin() as other:
            other.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": ref.job_id})
            with database.begin() as tx:
                assert cost_limits.end_passed(tx, actor="test", limit=10).jobs == []

    def test_it_is_refused_where_no_price_is_known(
        self, database: Database, database_url: str, prices_file: str
    ) -> None:
        with serving(database_url, prices_file=prices_file) as api:
            good = {"image": "busybox", "max_cost": "1.5", "delay_s": 999}
            bad = {**good, "machine": {"instance_types": ["c5.large"]}}
            answer = api.http.post("/jobs", json=good)
            assert answer.status_code == 201
            assert (answer.json()["max_cost"], answer.json()["cost"]) == ("1.50", "0.00")
            assert "c5.large" in api.http.post("/jobs", json=bad).json()["fields"]["max_cost"]
            assert api.http.post("/jobs:batch", json=bad).status_code == 422
            # t3.small costs 3.60 an hour, so a minute six cents.
            little = api.http.post("/jobs", json={**good, "max_cost": "0.05"})
            assert "give 0.06 or more" in little.json()["fields"]["max_cost"]
            nightly = {"name": "nightly", "cron": "0 2 * * *", "job": {"image": "busybox"}}
            assert api.http.post("/schedules", json=nightly).status_code == 201
            edit = {"job": {"max_cost": "2", "machine": bad["machine"]}}
            refused = api.http.patch("/schedules/nightly", json=edit)
            assert "c5.large" in refused.json()["fields"]["job.max_cost"]
            assert api.http.get("/schedules/nightly").json()["job"]["max_cost"] is None
            assert api.http.patch("/schedules/nightly", json={"job": {"max_cost": "2"}}).is_success
        with serving(database_url) as api:
            assert "max_cost" in api.http.post("/jobs", json=good).json()["fields"]


class TestLaunch:
    @pytest.fixture
    def world(self, database: Database, prices_file: str) -> Iterator[LaunchWorld]:
        with database.begin() as tx:
            tx.execute(text("DELETE FROM rate_limits"))
        made = LaunchWorld(database, prices_file=prices_file)
        yield made
        made.cloud.real.close()
        with database.begin() as tx:
            tx.execute(text("TRUNCATE jobs, attempts, events CASCADE"))

    def test_the_price_of_the_offering_is_part_of_the_intent(self, world: LaunchWorld) -> None:
        ref = world.launch(capacity_type="spot-then-on-demand", disk_gb=20)
        launch = world.attempt(ref).launch
        assert (launch.hour_price, launch.gb_month_price) == (amount("1.8"), amount("0.08"))
        assert launch.disks_gb == 20

    def test_another_offering_has_its_own_price(self, world: LaunchWorld) -> None:
        world.cloud.script = [NO_CAPACITY, NO_CAPACITY]
        ref = world.launch(capacity_type="spot-then-on-demand")
        launch = world.attempt(ref).launch
        assert (launch.capacity_type, launch.hour_price) == ("on-demand", amount("3.6"))

    def test_disks_are_counted_also_where_the_first_offering_has_no_price(
        self, world: LaunchWorld
    ) -> None:
        world.cloud.script = [NO_CAPACITY, NO_CAPACITY]
        ref = world.launch(instance_types=["c5.large", "t3.small"], disk_gb=20)
        launch = world.attempt(ref).launch
        assert (launch.instance_type, launch.hour_price) == ("t3.small", amount("3.6"))
        assert (launch.gb_month_price, launch.disks_gb) == (amount("0.08"), 20)

    def test_a_launcher_without_prices_gives_a_bounded_job_no_other_offering(
        self, database: Database, world: LaunchWorld
    ) -> None:
        machine = {"instance_types": ["t3.small", "c5.large"]}
        with database.begin() as tx:
            spec = parse_spec({"image": "busybox", "max_cost": "1.00", "machine": machine})
            jobs.submit_one(tx, spec, actor="test")
            (ref,) = claim_due(tx, 10, actor="test")
        world.cloud.script = [NO_CAPACITY] * 2
        world.call(ref)
        calls = len(world.cloud.calls)
        assert {one[0] for one in world.cloud.offerings} == {"t3.small"}
        world.settings = LaunchWorld(database).settings
        world.restart()
        world.cloud.script = [NO_CAPACITY] * 2
        world.launcher.call(world.attempt(ref), world.job(ref).spec)
        assert {one[0] for one in world.cloud.offerings} == {"t3.small"}
        assert len(world.cloud.calls) > calls
        assert not world.has_instance(ref)
        assert world.attempt(ref).launch.hour_price == amount("3.6")

    def test_without_a_price_a_bounded_job_is_not_launched(
        self, database: Database, world: LaunchWorld
    ) -> None:
        with database.begin() as tx:
            machine = {"instance_types": ["c5.large", "t3.small"]}
            some = parse_spec({"image": "busybox", "max_cost": "1.00", "machine": machine})
            none = some.model_copy(
                update={
                    "machine": some.machine.model_copy(update={"instance_types": ("c5.large",)})
                }
            )
            for spec in (some, none):
                jobs.submit_one(tx, spec, actor="test")
            refs = claim_due(tx, 10, actor="test")
        for ref in refs:
            world.call(ref)
        priced, refused = (world.attempt(ref) for ref in refs)
        # The other type is passed over: it has no price.
        assert (priced.launch.instance_type, priced.launch.hour_price) == (
            "t3.small",
            amount("3.6"),
        )
        assert refused.reason is Reason.LAUNCH_REFUSED
        assert "no price is known for c5.large" in (refused.detail or "")
