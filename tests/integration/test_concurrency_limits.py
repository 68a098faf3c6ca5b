"""Concurrency limits: never exceeded, nobody held up by who may not start, and what is free is used."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal.broker import Link
from atemporal.messages import LAUNCH, decode
from atemporal.model import AttemptRef, ExitRecord, parse_spec
from atemporal.states import JobState, Reason
from atemporal.store import (
    attempts,
    concurrency_limits,
    instance_types,
    jobs,
    launches,
    reschedule,
    slots,
)
from atemporal.store.database import Database
from atemporal.store.due import Claimed
from atemporal.store.limited_claims import ROUNDS
from services.scheduler.backlog import Backlog
from services.scheduler.due import DueLoop
from tests.backlogs import seeing_all
from tests.integration.test_due import Ear
from tests.invariants import assert_invariants
from tests.launches import LAUNCH as A_LAUNCH

WITHIN_S = 60.0


@pytest.fixture(autouse=True)
def empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tables = "jobs, attempts, events, concurrency_limits, limit_changes, slots, instance_types"
        tx.execute(text(f"TRUNCATE {tables}"))


@pytest.fixture
def backlog() -> Backlog:
    return seeing_all()


def limited(database: Database, **most: int) -> None:
    """Set limits; `team_mi6` is the one of `team=mi6`, `team_` the one of `team=*`."""
    for name, many in most.items():
        key, _, value = name.partition("_")
        put(database, f"{key}={value or '*'}" if "_" in name else name, many)


def put(database: Database, name: str, most: int) -> None:
    with database.begin() as tx:
        concurrency_limits.put(tx, name, most, actor="ann", instance_type="t3.small")


def submitted(database: Database, count: int = 1, **fields: Any) -> list[UUID]:
    specs = [parse_spec({"image": "busybox", **fields})] * count
    with database.begin() as tx:
        return [one.job_id for one in jobs.submit(tx, specs, actor="test")]


def of_team(database: Database, team: str, count: int = 1, **fields: Any) -> list[UUID]:
    return submitted(database, count, labels={"team": team}, **fields)


def claimed(database: Database, backlog: Backlog, limit: int = 100) -> list[UUID]:
    """What one claim after the other gives, until one gives nothing and has nothing more to do."""
    found: list[UUID] = []
    while True:
        with database.begin() as tx:
            levels = backlog.survey(tx)
            given = backlog.claim(tx, levels, actor="test", limit=limit, ahead_s=0.0)
        found += [UUID(one.position.job_id) for one in given.jobs]
        if not given.jobs and not given.more:
            return found


def ended(database: Database, job_id: UUID, *, reported: bool = True, closed: bool = True) -> None:
    """Run a dispatched job to its end."""
    with database.begin() as tx:
        number = tx.scalar(text("SELECT attempt FROM jobs WHERE id = :id"), {"id": job_id}) or 0
        ref = AttemptRef(job_id, number)
        assert launches.begin(tx, ref, A_LAUNCH, actor="test")
        attempts.launched(tx, ref, f"i-{ref.id}", actor="test")
        if reported:
            attempts.claim(tx, ref, claim_id="c", instance_id=f"i-{ref.id}", actor="test")
            record = ExitRecord(exit_code=0)
            attempts.end(tx, ref, Reason.COMPLETED, actor="test", exit_record=record)
        else:
            jobs.cancel(tx, job_id, actor="test")
        if closed:
            attempts.close(tx, ref, actor="test")


def close(database: Database, job_id: UUID) -> None:
    with database.begin() as tx:
        assert attempts.close(tx, AttemptRef(job_id, 1), actor="test")


def lanes(database: Database) -> dict[UUID, str]:
    with database.begin() as tx:
        query = (
            "SELECT id, waits_for FROM jobs WHERE state = 'scheduled' AND waits_for IS NOT NULL"
        )
        return {row.id: row.waits_for for row in tx.execute(text(query))}


def used(database: Database) -> dict[str, int]:
    with database.begin() as tx:
        rules = concurrency_limits.rules(tx)
        room = slots.room(tx, rules)
        names = list(tx.scalars(text("SELECT DISTINCT name FROM slots")))
        return {name: room.used(name) for name in names if room.used(name)}


class TestWhoMayStart:
    def test_no_more_of_a_label_than_its_limit_and_the_next_when_one_has_ended(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=2)
        wanted = of_team(database, "mi6", 5)
        others = of_team(database, "cia", 3)
        assert sorted(claimed(database, backlog)) == sorted([*wanted[:2], *others])
        assert claimed(database, backlog) == []
        assert lanes(database) == dict.fromkeys(wanted[2:], "team=mi6")
        ended(database, wanted[0])
        assert claimed(database, backlog) == [wanted[2]]
        assert_invariants(database)

    def test_of_each_value_of_a_label_so_many_and_one_has_its_own(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_=2, team_mi6=1)
        teams = {team: of_team(database, team, 4) for team in ("mi6", "cia", "kgb")}
        unlabelled = submitted(database, 3)
        found = claimed(database, backlog)
        assert set(found) == {
            teams["mi6"][0],
            *teams["cia"][:2],
            *teams["kgb"][:2],
            *unlabelled,
        }
        ended(database, teams["kgb"][1])
        assert claimed(database, backlog) == [teams["kgb"][2]]
        assert_invariants(database)

    def test_jobs_and_instances_hold_up_everybody_in_the_order_of_dispatch(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, jobs=2)
        low = submitted(database, 3, priority=-5)
        high = submitted(database, 3, priority=5)
        assert claimed(database, backlog) == high[:2]
        # Nobody is put aside: none of them could start.
        assert lanes(database) == {}
        ended(database, high[0])
        assert claimed(database, backlog) == [high[2]]
        ended(database, high[1])
        assert claimed(database, backlog) == [low[0]]
        assert_invariants(database)

    def test_a_job_under_two_limits_waits_for_both(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=1, env_prod=1)
        both = {"team": "mi6", "env": "prod"}
        first = of_team(database, "mi6")
        prod = submitted(database, labels={"env": "prod"})
        wanted = submitted(database, 2, labels=both)
        assert claimed(database, backlog) == [*first, *prod]
        ended(database, first[0])
        assert claimed(database, backlog) == []
        assert set(lanes(database).values()) == {"env=prod"}
        ended(database, prod[0])
        assert claimed(database, backlog) == wanted[:1]
        ended(database, wanted[0])
        assert claimed(database, backlog) == wanted[1:]
        assert_invariants(database)

    def test_priority_then_time_among_those_that_waited_and_those_that_did_not(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=1)
        (first,) = of_team(database, "mi6")
        assert claimed(database, backlog) == [first]
        waited = of_team(database, "mi6", 3)
        low = of_team(database, "mi6", priority=-1)
        assert claimed(database, backlog) == []
        high = of_team(database, "mi6", 2, priority=9)
        later = of_team(database, "mi6")
        order = [*high, *waited, *later, *low]
        running = first
        for wanted in order:
            ended(database, running)
            assert claimed(database, backlog) == [wanted]
            running = wanted
        assert_invariants(database)

    def test_what_is_not_due_waits_for_its_time_alone(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=0, jobs=5)
        of_team(database, "mi6", delay_s=600)
        submitted(database, delay_s=600)
        assert claimed(database, backlog) == []
        assert lanes(database) == {}


class TestWhatHoldsASlot:
    """From the dispatch until the container is known to have ended, or the instance to be gone."""

    @pytest.mark.parametrize(
        ("name", "reported", "free"),
        [
            ("team=mi6", True, True),
            ("jobs", True, True),
            ("team=mi6", False, False),
            ("jobs", False, False),
            ("instances", True, False),
            ("instances", False, False),
        ],
    )
    def test_what_ends_before_its_instance_is_gone(
        self, database: Database, backlog: Backlog, name: str, reported: bool, free: bool
    ) -> None:
        put(database, name, 1)
        first, second = of_team(database, "mi6", 2)
        assert claimed(database, backlog) == [first]
        ended(database, first, reported=reported, closed=False)
        assert claimed(database, backlog) == ([second] if free else [])
        if not free:
            close(database, first)
            assert claimed(database, backlog) == [second]
        assert_invariants(database)

    def test_one_that_is_cancelled_or_given_another_time_in_the_queue_holds_none(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, jobs=1)
        first, second, third = submitted(database, 3)
        assert claimed(database, backlog) == [first]
        with database.begin() as tx:
            jobs.cancel(tx, first, actor="test")
        assert claimed(database, backlog) == [second]
        with database.begin() as tx:
            reschedule.reschedule(tx, second, time=None, delay_s=7200, actor="test")
        assert claimed(database, backlog) == [third]
        assert used(database) == {"jobs": 1}

    def test_a_retry_that_is_scheduled_holds_none(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, jobs=1)
        first, second = submitted(database, 2, max_attempts=2, backoff_s=600)
        assert claimed(database, backlog) == [first]
        with database.begin() as tx:
            ref = AttemptRef(first, 1)
            launches.begin(tx, ref, A_LAUNCH, actor="test")
            attempts.launched(tx, ref, "i-1", actor="test")
            attempts.claim(tx, ref, claim_id="c", instance_id="i-1", actor="test")
            record = ExitRecord(exit_code=3)
            attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=record)
            assert jobs.get(tx, first).state is JobState.SCHEDULED
        assert claimed(database, backlog) == [second]

    def test_who_waits_and_is_cancelled_or_given_another_time_waits_no_more(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=0)
        first, second = of_team(database, "mi6", 2)
        assert claimed(database, backlog) == []
        with database.begin() as tx:
            jobs.cancel(tx, first, actor="test")
            reschedule.reschedule(tx, second, time=None, delay_s=7200, actor="test")
        assert lanes(database) == {}
        with database.begin() as tx:
            tx.execute(text("UPDATE jobs SET waits_for = 'team=other'"))
            jobs.retry(tx, first, actor="test")
            assert (
                tx.scalar(text("SELECT waits_for FROM jobs WHERE id = :id"), {"id": first}) is None
            )
        assert claimed(database, backlog) == []
        assert lanes(database)[first] == "team=mi6"

    def test_who_waits_is_not_dispatched_before_its_time_whoever_gave_it_another(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=0)
        (first,) = of_team(database, "mi6", 1)
        assert claimed(database, backlog) == []
        with database.begin() as tx:
            # As a scheduler and a launcher of the release before leave it.
            tx.execute(
                text("UPDATE jobs SET due_at = now() + interval '1 hour', dispatch_at = NULL")
            )
        limited(database, team_mi6=5)
        assert claimed(database, backlog) == []
        with database.begin() as tx:
            tx.execute(text("UPDATE jobs SET due_at = now()"))
        assert claimed(database, backlog) == [first]

    def test_another_attempt_waits_for_no_limit_before_its_time(
        self, database: Database, backlog: Backlog
    ) -> None:
        (first,) = of_team(database, "mi6", 1, max_attempts=2)
        assert claimed(database, backlog) == [first]
        ref = AttemptRef(first, 1)
        with database.begin() as tx:
            tx.execute(text("UPDATE jobs SET waits_for = 'team=mi6'"))
            launches.begin(tx, ref, A_LAUNCH, actor="test")
            attempts.launched(tx, ref, "i-1", actor="test")
            attempts.claim(tx, ref, claim_id="c", instance_id="i-1", actor="test")
            record = ExitRecord(exit_code=3)
            attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=record)
            assert tx.scalar(text("SELECT waits_for FROM jobs")) is None

    def test_very_many_lanes_are_read_a_piece_at_a_time_and_in_order(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_=0)
        wanted = [of_team(database, f"t{number}", 3) for number in range(12)]
        assert claimed(database, backlog) == []
        with database.begin() as tx:
            concurrency_limits.remove(tx, "team=*", actor="ann")
        every = [one for some in wanted for one in some]
        assert claimed(database, backlog, limit=2) == every
        assert lanes(database) == {}


class TestChanges:
    def test_lowered_below_what_is_used_it_ends_nothing_and_starts_nothing(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_mi6=3)
        wanted = of_team(database, "mi6", 6)
        assert claimed(database, backlog) == wanted[:3]
        limited(database, team_mi6=1)
        for one in wanted[:2]:
            ended(database, one)
            assert claimed(database, backlog) == []
        assert_invariants(database)
        ended(database, wanted[2])
        assert claimed(database, backlog) == [wanted[3]]
        assert_invariants(database)

    @pytest.mark.parametrize("most", [3, None])
    def test_raised_or_removed_it_lets_in_at_once(
        self, database: Database, backlog: Backlog, most: int | None
    ) -> None:
        limited(database, team_mi6=1)
        wanted = of_team(database, "mi6", 5)
        assert claimed(database, backlog) == wanted[:1]
        if most is None:
            with database.begin() as tx:
                concurrency_limits.remove(tx, "team=mi6", actor="ann")
        else:
            limited(database, team_mi6=most)
        assert claimed(database, backlog) == wanted[1:most]
        assert_invariants(database)

    def test_a_new_limit_counts_what_is_under_way(
        self, database: Database, backlog: Backlog
    ) -> None:
        running, cancelled, reported, queued = of_team(database, "mi6", 4)
        assert len(claimed(database, backlog)) == 4
        ended(database, cancelled, reported=False, closed=False)
        ended(database, reported, closed=False)
        with database.begin() as tx:
            launches.begin(tx, AttemptRef(running, 1), A_LAUNCH, actor="test")
            instance_types.write(tx, {"t3.small": 2})
        limited(database, team_mi6=4, team_=9, jobs=7, instances=9, vcpus=9)
        assert used(database) == {"team=mi6": 3, "jobs": 3, "instances": 4, "vcpus": 8}
        more = of_team(database, "mi6", 2)
        assert claimed(database, backlog) == []
        ended(database, queued)
        assert claimed(database, backlog) == more[:1]
        assert_invariants(database)

    def test_what_has_no_instance_yet_counts_as_the_largest_type_that_it_may_get(
        self, database: Database, backlog: Backlog
    ) -> None:
        machine = {"instance_types": ["t3.small", "c5.2xlarge"]}
        asking, running = of_team(database, "mi6", 2, machine=machine)
        assert len(claimed(database, backlog)) == 2
        with database.begin() as tx:
            for one in (asking, running):
                launches.begin(tx, AttemptRef(one, 1), A_LAUNCH, actor="test")
            attempts.launched(tx, AttemptRef(running, 1), "i-1", actor="test")
            instance_types.write(tx, {"t3.small": 2, "c5.2xlarge": 8})
        limited(database, vcpus=10)
        assert used(database)["vcpus"] == 2 + 8

    def test_what_a_hand_wrote_holds_up_nobody(self, database: Database, backlog: Backlog) -> None:
        bad, long, good = of_team(database, "mi6", 3)
        with database.begin() as tx:
            instance_types.write(tx, {"t3.small": 2})
            for job_id, path, value in (
                (bad, "{machine,instance_types}", '["t3.small", null]'),
                (long, "{labels,team}", json.dumps("x" * 9000)),
            ):
                to = "jsonb_set(spec, CAST(:path AS text[]), CAST(:value AS jsonb))"
                change = text(f"UPDATE jobs SET spec = {to} WHERE id = :id")
                tx.execute(change, {"path": path, "value": value, "id": job_id})
        limited(database, vcpus=100, team_=5)
        assert set(claimed(database, backlog)) == {bad, long, good}
        limited(database, vcpus=99, team_=4)
        assert_invariants(database)

    def test_where_the_limit_of_one_value_was_removed_nobody_has_exceeded_that_of_each(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, team_=1)
        limited(database, team_mi6=3)
        of_team(database, "mi6", 3)
        assert len(claimed(database, backlog)) == 3
        with database.begin() as tx:
            concurrency_limits.remove(tx, "team=mi6", actor="ann")
        assert_invariants(database)

    def test_a_change_waits_for_a_claim_that_does_not_know_of_it(
        self, database: Database, backlog: Backlog
    ) -> None:
        wanted = of_team(database, "mi6", 3)
        with database.begin() as tx:
            levels = backlog.survey(tx)
            given = backlog.claim(tx, levels, actor="test", limit=2, ahead_s=0.0)
            assert len(given.jobs) == 2
            changing = threading.Thread(target=put, args=(database, "team=mi6", 1))
            changing.start()
            with database.begin() as observer:
                query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                until = monotonic() + WITHIN_S
                while not observer.scalar(query):
                    assert monotonic() < until
            # Nobody claims meanwhile.
            with database.begin() as other:
                assert seeing_all().claim(other, levels, actor="other", limit=2, ahead_s=0.0).busy
        changing.join(WITHIN_S)
        assert used(database) == {"team=mi6": 2}
        ended(database, wanted[0])
        assert claimed(database, backlog) == []
        assert_invariants(database)

    def test_who_changed_what_is_kept(self, database: Database) -> None:
        limited(database, jobs=3)
        limited(database, jobs=3)
        limited(database, jobs=5)
        with database.begin() as tx:
            concurrency_limits.remove(tx, "jobs", actor="bob")
            found = concurrency_limits.changes(tx)
        assert [(one.name, one.before, one.after, one.actor) for one in found] == [
            ("jobs", 5, None, "bob"),
            ("jobs", 3, 5, "ann"),
            ("jobs", None, 3, "ann"),
        ]


class TestVcpus:
    def test_each_job_counts_as_the_largest_type_that_it_may_get(
        self, database: Database, backlog: Backlog
    ) -> None:
        with database.begin() as tx:
            instance_types.write(tx, {"t3.small": 2, "c5.2xlarge": 8})
        limited(database, vcpus=12)
        machine = {"instance_types": ["t3.small", "c5.2xlarge"]}
        large = submitted(database, 3, machine=machine)
        small = submitted(database, 3)
        # What is too large holds up nobody who fits.
        assert claimed(database, backlog) == [large[0], *small[:2]]
        assert used(database) == {"vcpus": 12}
        assert lanes(database) == {
            large[1]: "vcpus 8",
            large[2]: "vcpus 8",
            small[2]: "vcpus 2",
        }
        ended(database, large[0], closed=False)
        assert claimed(database, backlog) == []
        close(database, large[0])
        assert claimed(database, backlog) == [large[1]]
        assert_invariants(database)

    def test_a_type_that_nobody_knows_waits_until_a_launcher_has_asked(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, vcpus=4)
        (job_id,) = submitted(database)
        assert claimed(database, backlog) == []
        assert lanes(database) == {job_id: "vcpus of t3.small"}
        with database.begin() as tx:
            assert instance_types.unknown(tx, limit=10) == ["t3.small"]
            instance_types.write(tx, {"t3.small": 2})
            assert instance_types.unknown(tx, limit=10) == []
        assert claimed(database, backlog) == [job_id]


class TestManyThatWait:
    """100,000 that may not start are in nobody's way, and cost what they cost once."""

    MANY = 100_000

    def test_they_hold_up_nobody(self, database: Database, backlog: Backlog) -> None:
        limited(database, team_mi6=1)
        (running,) = of_team(database, "mi6")
        assert claimed(database, backlog) == [running]
        self.fill(database)
        (free,) = submitted(database)
        limit, ticks, found = 2000, 0, list[Claimed]()
        while not found:
            with database.begin() as tx:
                levels = backlog.survey(tx)
                before = self.changed(tx)
                given = backlog.claim(tx, levels, actor="test", limit=limit, ahead_s=0.0)
                found = given.jobs
                # Bounded work in each tick, and none is looked at twice.
                assert self.changed(tx) - before <= ROUNDS * limit + 1
                ticks += 1
        assert UUID(found[0].position.job_id) == free
        assert ticks <= self.MANY / (limit * (ROUNDS - 1)) + 2
        # From then on they are not even seen.
        (other,) = submitted(database)
        with database.begin() as tx:
            levels = backlog.survey(tx)
            before = self.read(tx)
            given = backlog.claim(tx, levels, actor="test", limit=limit, ahead_s=0.0)
            assert self.read(tx) - before < 100
        assert [UUID(one.position.job_id) for one in given.jobs] == [other]
        with database.begin() as tx:
            tx.execute(text("ANALYZE jobs"))
        ended(database, running)
        with database.begin() as tx:
            before = self.read(tx)
            given = backlog.claim(tx, backlog.survey(tx), actor="t", limit=limit, ahead_s=0.0)
            assert len(given.jobs) == 1
            assert self.read(tx) - before < 100

    def test_slots_that_are_held_are_looked_up_one_by_one(
        self, database: Database, backlog: Backlog
    ) -> None:
        held = 3000
        limited(database, jobs=100_000)
        submitted(database, held)
        # As it is when nothing of this was there yet.
        with database.begin() as tx:
            tx.execute(text("ANALYZE jobs, attempts, slots"))
        assert len(claimed(database, backlog, limit=1000)) == held
        with database.begin() as tx:
            before = self.read(tx)
            backlog.claim(tx, backlog.survey(tx), actor="t", limit=1000, ahead_s=0.0)
            assert self.read(tx) - before <= 2 * held

    def fill(self, database: Database) -> None:
        with database.begin() as tx:
            # A slow disk is nothing that is tried here.
            tx.execute(text("SET LOCAL statement_timeout = 0"))
            spec = parse_spec({"image": "busybox", "labels": {"team": "mi6"}})
            (first,) = (one.job_id for one in jobs.submit(tx, [spec], actor="test"))
            tx.execute(
                text(
                    "INSERT INTO jobs (id, spec, state, attempt_limit, run_at, due_at)"
                    " SELECT gen_random_uuid(), spec, state, attempt_limit, run_at, due_at"
                    " - interval '1 hour' FROM jobs, generate_series(2, :many) WHERE id = :id"
                ),
                {"many": self.MANY, "id": first},
            )

    def changed(self, tx: Any) -> int:
        query = "SELECT pg_stat_get_xact_tuples_updated('jobs'::regclass)"
        return int(tx.scalar(text(query)) or 0)

    def read(self, tx: Any) -> int:
        """Rows of the table that this transaction has read, by whichever way."""
        kinds = ("tuples_returned('jobs'::regclass)", "tuples_fetched('jobs'::regclass)")
        query = " + ".join(f"pg_stat_get_xact_{kind}" for kind in kinds)
        return int(tx.scalar(text(f"SELECT {query}")) or 0)


class TestTwoSchedulers:
    """Two of them race for one limit, and machines end meanwhile."""

    @pytest.fixture
    def loops(self, database: Database, broker_url: str) -> Iterator[list[DueLoop]]:
        made = [
            DueLoop(database, Link(broker_url, name=f"due {n}"), poll_interval_s=0.05)
            for n in range(2)
        ]
        yield made
        for loop in made:
            loop.reset()

    def test_never_exceeded_and_all_run_in_the_end(
        self, database: Database, broker_url: str, loops: list[DueLoop]
    ) -> None:
        limited(database, team_=3, jobs=7)
        wanted = [one for team in ("mi6", "cia", "kgb", "") for one in of_team(database, team, 15)]
        stop = threading.Event()
        errors: list[BaseException] = []

        def schedule(loop: DueLoop) -> None:
            try:
                while not stop.is_set():
                    loop.tick()
            except BaseException as error:  # noqa: BLE001 - the test's own thread shows it
                errors.append(error)

        threads = [threading.Thread(target=schedule, args=(loop,)) for loop in loops]
        for thread in threads:
            thread.start()
        reader = Link(broker_url, name="reader")
        reader.connect()
        over: set[UUID] = set()
        most = 0
        until = monotonic() + WITHIN_S
        try:
            while len(over) < len(wanted) and monotonic() < until and not errors:
                batch = reader.receive(LAUNCH, limit=3, timeout_s=0.2)
                most = max(most, self.running(database))
                for one in batch:
                    job_id = decode(LAUNCH, one.body).job_id
                    ended(database, self.once_queued(database, job_id))
                    over.add(job_id)
                reader.ack(batch)
        finally:
            stop.set()
            for thread in threads:
                thread.join(WITHIN_S)
            reader.close()
        assert not errors
        assert over == set(wanted)
        assert 3 <= most <= 7
        assert_invariants(database)

    def test_while_one_counts_the_other_dispatches_nothing_under_any_limit(
        self, database: Database, backlog: Backlog
    ) -> None:
        limited(database, jobs=3)
        wanted = submitted(database, 9)
        other = seeing_all()
        with database.begin() as first, database.begin() as second:
            levels = backlog.survey(first)
            given = backlog.claim(first, levels, actor="a", limit=3, ahead_s=0.0)
            assert [UUID(one.position.job_id) for one in given.jobs] == wanted[:3]
            passed = other.claim(second, other.survey(second), actor="b", limit=3, ahead_s=0.0)
            assert (passed.jobs, passed.busy) == ([], True)
        assert claimed(database, other) == []
        assert used(database) == {"jobs": 3}
        assert_invariants(database)

    def running(self, database: Database) -> int:
        """Counted from the jobs alone, and no team has more than three."""
        query = """
            SELECT spec -> 'labels' ->> 'team' AS team, count(*) AS many FROM jobs
            WHERE state IN ('queued', 'warming', 'running') GROUP BY 1
        """
        with database.begin() as tx:
            found = {row.team: row.many for row in tx.execute(text(query))}
        assert max(found.values(), default=0) <= 3
        return sum(found.values())

    def once_queued(self, database: Database, job_id: UUID) -> UUID:
        """The message may be faster than the commit; the lock waits for that."""
        with database.begin() as tx:
            assert jobs.lock_queued(tx, [AttemptRef(job_id, 1)])
        return job_id

    def test_a_freed_slot_and_a_raised_limit_notify(
        self, database: Database, broker_url: str
    ) -> None:
        listener = database.listen()
        limited(database, team_mi6=1)
        assert listener.wait(WITHIN_S)
        first, *_ = of_team(database, "mi6", 3)
        loop = DueLoop(database, Link(broker_url, name="due"), poll_interval_s=3600)
        loop.tick()
        listener.wait(0)
        ended(database, first, closed=False)
        assert listener.wait(WITHIN_S)
        limited(database, team_mi6=2)
        assert listener.wait(WITHIN_S)
        listener.wait(0)
        # It frees the slots of instances and vCPUs, and no other transition comes with it.
        close(database, first)
        assert listener.wait(WITHIN_S)
        listener.close()
        loop.reset()

    def test_many_that_wait_are_let_in_without_another_look(
        self, database: Database, broker_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.scheduler.due.BATCH", 2)
        limited(database, team_mi6=0)
        wanted = of_team(database, "mi6", 7)
        clock = lambda: 1000.0  # noqa: E731 - no time for a look passes
        loop = DueLoop(database, Link(broker_url, name="due"), poll_interval_s=3600, clock=clock)
        loop._listener = ear = Ear()
        for _ in range(8):
            loop.tick()
        assert set(lanes(database)) == set(wanted)
        with database.begin() as tx:
            concurrency_limits.remove(tx, "team=mi6", actor="ann")
        ear.says = [True]
        loop.tick()
        loop.tick()
        assert [self.state(database, one) for one in wanted] == [JobState.QUEUED] * 7
        loop.reset()

    @pytest.mark.parametrize("how", ["raised", "removed", "a slot is free"])
    def test_a_loop_that_is_notified_dispatches_the_next_and_polls_for_nothing(
        self, database: Database, broker_url: str, how: str
    ) -> None:
        limited(database, team_mi6=1)
        first, second = of_team(database, "mi6", 2)
        clock = lambda: 1000.0  # noqa: E731 - no time for a look passes
        loop = DueLoop(database, Link(broker_url, name="due"), poll_interval_s=3600, clock=clock)
        ear = Ear()
        loop._listener = ear
        for _ in range(5):
            loop.tick()
        assert (self.state(database, first), self.state(database, second)) == QUEUED_FIRST
        match how:
            case "raised":
                limited(database, team_mi6=2)
            case "removed":
                with database.begin() as tx:
                    concurrency_limits.remove(tx, "team=mi6", actor="ann")
            case _:
                ended(database, first)
        loop.tick()
        assert self.state(database, second) is JobState.SCHEDULED
        ear.says = [True]
        loop.tick()
        loop.tick()
        assert self.state(database, second) is JobState.QUEUED
        loop.reset()

    def state(self, database: Database, job_id: UUID) -> JobState:
        with database.begin() as tx:
            return jobs.get(tx, job_id).state


QUEUED_FIRST = (JobState.QUEUED, JobState.SCHEDULED)

DYING = """
import sys
from atemporal.store.database import Database
from tests.backlogs import seeing_all
with Database(sys.argv[1]).begin() as tx:
    backlog = seeing_all()
    given = backlog.claim(tx, backlog.survey(tx), actor="dying", limit=100, ahead_s=0.0)
    print(len(given.jobs), flush=True)
    sys.stdin.read()
"""


def test_a_scheduler_that_is_killed_between_claim_and_commit_leaves_nothing_behind(
    database: Database, database_url: str, backlog: Backlog
) -> None:
    limited(database, team_mi6=2)
    wanted = of_team(database, "mi6", 5)
    dying = subprocess.Popen(
        [sys.executable, "-c", DYING, database_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert dying.stdout is not None
    assert dying.stdout.readline().strip() == "2"
    with database.begin() as tx:
        assert backlog.claim(tx, backlog.survey(tx), actor="t", limit=9, ahead_s=0.0).busy
    dying.kill()
    dying.wait(WITHIN_S)
    dying.stdout.close()
    assert dying.stdin is not None
    dying.stdin.close()
    until = monotonic() + WITHIN_S
    found: Sequence[UUID] = ()
    while not found:
        # Postgres learns of the death when it writes to the socket or reads from it.
        assert monotonic() < until
        found = claimed(database, backlog)
    assert found == wanted[:2]
    assert used(database) == {"team=mi6": 2}
    assert_invariants(database)


def test_who_started_late_is_not_late_in_the_queue(database: Database, backlog: Backlog) -> None:
    limited(database, team_mi6=0)
    (job_id,) = of_team(database, "mi6")
    assert claimed(database, backlog) == []
    with database.begin() as tx:
        tx.execute(text("UPDATE jobs SET due_at = due_at - interval '3 h'"))
        concurrency_limits.remove(tx, "team=mi6", actor="ann")
    assert claimed(database, backlog) == [job_id]
    with database.begin() as tx:
        assert jobs.expire_queued(tx, deadline_s=3600, actor="test") == []
        tx.execute(text("UPDATE jobs SET queued_at = now() - interval '2 h'"))
        assert jobs.expire_queued(tx, deadline_s=3600, actor="test") == [AttemptRef(job_id, 1)]
