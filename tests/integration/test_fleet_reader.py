"""How a snapshot of the fleet is taken: the clock, then EC2, then the records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal.cloud import Cloud, Instance, Throttled, Volume
from atemporal.cloud.instance import ATTEMPT_TAG, INSTALLATION_TAG, JOB_TAG, tags_of_group
from atemporal.fleet.reader import FleetReader
from atemporal.fleet.snapshot import Snapshot
from atemporal.model import AttemptRef, parse_spec
from atemporal.states import AttemptState
from atemporal.store import attempts, jobs, launches
from atemporal.store.database import Database, server_time
from tests.claims import claim_due
from tests.integration.reaping import LAUNCH

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Ec2:
    """Answers every question with the same instances and volumes, and remembers when."""

    def __init__(self, database: Database) -> None:
        """Show nothing."""
        self._database = database
        self.instances: list[Instance] = []
        self.free: list[Volume] = []
        self.asked: list[datetime] = []
        self.calls: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.error: Throttled | None = None

    def all(self) -> list[Instance]:
        """Stand in for `Cloud.all`."""
        self._answer("all")
        return self.instances

    def describe(self, ids: Collection[str], *, tagged: bool = True) -> dict[str, Instance]:
        """Stand in for `Cloud.describe`."""
        self._answer("describe" if tagged else "describe untagged")
        return {one.id: one for one in self.instances if one.id in set(ids)}

    def volumes(self) -> list[Volume]:
        """Stand in for `Cloud.volumes`."""
        self._answer("volumes")
        return self.free

    def _answer(self, call: str) -> None:
        self.calls.append(call)
        if self.error:
            raise self.error
        with self._database.begin() as tx:
            self.asked.append(server_time(tx))
        self.meanwhile()


@pytest.fixture
def ec2(database: Database) -> Iterator[Ec2]:
    yield Ec2(database)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, launch_groups, events"))


@pytest.fixture
def reader(database: Database, ec2: Ec2) -> FleetReader:
    return FleetReader(database, cast(Cloud, ec2))


def begin(database: Database, instance_id: str) -> AttemptRef:
    """An attempt with its instance, written down."""
    with database.begin() as tx:
        job_id = jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="t").job_id
        ref = AttemptRef(job_id, 1)
        claim_due(tx, 1, actor="t")
        launches.begin(tx, ref, LAUNCH, actor="t")
        attempts.launched(tx, ref, instance_id, actor="t")
    return ref


def shown(instance_id: str, ref: AttemptRef, installation: UUID | None = None) -> Instance:
    whose = {INSTALLATION_TAG: str(installation)} if installation else {}
    tags = {JOB_TAG: str(ref.job_id), ATTEMPT_TAG: str(ref.number), **whose}
    return Instance(instance_id, "running", tags=tags)


def disk(ref: AttemptRef) -> Volume:
    return Volume("vol-1", "available", LONG_AGO, tags=shown("", ref).tags)


Take = Callable[[FleetReader, AttemptRef], Snapshot]
EVERY_KIND = [
    pytest.param(lambda reader, _: reader.snapshot(), id="whole"),
    pytest.param(lambda reader, ref: reader.snapshot_of([ref]), id="some"),
    pytest.param(lambda reader, _: reader.snapshot_with_history(), id="history"),
    pytest.param(lambda reader, _: reader.snapshot_of_volumes(), id="volumes"),
]


@pytest.mark.parametrize("take", EVERY_KIND)
def test_ages_are_those_before_ec2_was_asked_and_records_are_read_after_it(
    database: Database, ec2: Ec2, reader: FleetReader, take: Take
) -> None:
    ref = begin(database, "i-1")
    ec2.instances, ec2.free = [shown("i-1", ref)], [disk(ref)]

    def ends_meanwhile() -> None:
        with database.begin() as tx:
            jobs.cancel(tx, ref.job_id, actor="t")

    ec2.meanwhile = ends_meanwhile
    snapshot = take(reader, ref)
    assert snapshot.now < ec2.asked[0]
    assert snapshot.attempts[ref].state is AttemptState.EXITED
    assert snapshot.instances == (ec2.instances[0],)


@pytest.mark.parametrize("launch", ["{}", '{"placement": "first"}'])
@pytest.mark.parametrize("kind", ["whole", "history"])
def test_an_untagged_instance_of_an_attempt_that_can_not_be_read_is_nobody_elses(
    database: Database, ec2: Ec2, reader: FleetReader, launch: str, kind: str
) -> None:
    group_id = UUID(int=5)
    bad, ended = begin(database, "i-1"), begin(database, "i-2")
    with database.begin() as tx:
        jobs.cancel(tx, ended.job_id, actor="t")
        tx.execute(
            text(
                "INSERT INTO launch_groups (id, launch, size, settled_at)"
                " VALUES (:id, CAST(:launch AS jsonb), 2, now())"
            ),
            {"id": group_id, "launch": LAUNCH.model_dump_json()},
        )
        tx.execute(text("UPDATE attempts SET group_id = :id"), {"id": group_id})
        tx.execute(
            text("UPDATE attempts SET instance_id = NULL WHERE job_id = :id"), {"id": ended.job_id}
        )
        tx.execute(
            text("UPDATE attempts SET launch = CAST(:launch AS jsonb) WHERE job_id = :id"),
            {"launch": launch, "id": bad.job_id},
        )
    ec2.instances = [Instance("i-1", "running", tags=tags_of_group("default", group_id))]
    take = reader.snapshot if kind == "whole" else reader.snapshot_with_history
    snapshot = take()
    assert [(one.id, one.ref) for one in snapshot.unreadable] == [("i-1", bad)]
    assert snapshot.instances == ()


@pytest.mark.parametrize("take", EVERY_KIND)
def test_an_instance_is_ours_foreign_or_not_to_be_judged(
    database: Database, ec2: Ec2, reader: FleetReader, take: Take
) -> None:
    ref, bad = begin(database, "i-1"), begin(database, "i-2")
    nobodys = AttemptRef(UUID(int=7), 1)
    ours, unreadable = shown("i-1", ref), shown("i-2", bad)
    foreign = shown("i-3", nobodys, installation=UUID(int=9))
    ec2.instances, ec2.free = [ours, unreadable, foreign], [disk(ref), disk(bad)]
    with database.begin() as tx:
        tx.execute(
            text("UPDATE attempts SET launch = '{}' WHERE job_id = :id"), {"id": bad.job_id}
        )
    snapshot = take(reader, ref)
    assert snapshot.attempts.keys() == {ref}
    assert snapshot.instances == (ours,)
    asked_for_some = ec2.calls == ["describe"]
    assert snapshot.unreadable == (() if asked_for_some else (unreadable,))
    assert snapshot.foreign == (() if asked_for_some else (foreign,))


def test_a_whole_snapshot_has_the_open_attempts_and_those_that_are_named(
    database: Database, ec2: Ec2, reader: FleetReader
) -> None:
    unseen, closed, forgotten = (begin(database, f"i-{number}") for number in (1, 2, 3))
    with database.begin() as tx:
        for ref in (closed, forgotten):
            jobs.cancel(tx, ref.job_id, actor="t")
            attempts.close(tx, ref, actor="t")
    ec2.instances = [shown("i-2", closed)]
    assert reader.snapshot().attempts.keys() == {unseen, closed}
    assert reader.snapshot_with_history().attempts.keys() == {unseen, closed, forgotten}


def test_limits_are_those_of_the_attempts_that_run(
    database: Database, ec2: Ec2, reader: FleetReader
) -> None:
    warming, running, other = (begin(database, f"i-{number}") for number in (1, 2, 3))
    with database.begin() as tx:
        for ref in (running, other):
            attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="t")
    assert reader.snapshot().timeouts.keys() == {running, other}
    assert reader.snapshot_of([warming, running]).timeouts.keys() == {running}


def test_without_free_volumes_no_instance_is_asked_for(ec2: Ec2, reader: FleetReader) -> None:
    assert reader.snapshot_of_volumes().listed == ()
    assert ec2.calls == ["volumes"]


class TestMissing:
    """What a listing does not show is asked for by its id."""

    def test_it_is_asked_for_whatever_its_tags(
        self, database: Database, ec2: Ec2, reader: FleetReader
    ) -> None:
        ref = begin(database, "i-1")
        snapshot = reader.snapshot()
        ec2.instances = [Instance("i-1", "running")]
        found, error = reader.look_up(snapshot, [ref])
        assert (found.by_id, error) == ({"i-1": ec2.instances[0]}, None)
        assert ec2.calls == ["all", "describe untagged"]

    def test_where_nothing_is_missing_nothing_is_asked(
        self, ec2: Ec2, reader: FleetReader
    ) -> None:
        found, error = reader.look_up(reader.snapshot(), [])
        assert (found.by_id, error) == ({}, None)
        assert ec2.calls == ["all"]

    def test_while_ec2_can_not_be_asked_the_question_stays_open(
        self, database: Database, ec2: Ec2, reader: FleetReader
    ) -> None:
        ref = begin(database, "i-1")
        snapshot = reader.snapshot()
        ec2.error = Throttled("describing", "RequestLimitExceeded")
        found, error = reader.look_up(snapshot, [ref])
        assert (found.by_id, error) == (None, ec2.error)


def test_a_snapshot_that_ec2_does_not_answer_fails(ec2: Ec2, reader: FleetReader) -> None:
    ec2.error = Throttled("listing", "RequestLimitExceeded")
    with pytest.raises(Throttled):
        reader.snapshot()
