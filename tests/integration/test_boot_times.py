"""How long machines boot, learned from those that did: on a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from atemporal import migrations
from atemporal.model import Launch, parse_spec
from atemporal.states import Reason
from atemporal.store import attempts, boot_times, jobs, launches
from atemporal.store.boot_times import LEAST
from atemporal.store.database import Database
from tests.claims import claim_due
from tests.integration.reaping import LAUNCH

KIND = ("t3.small", "ami-12345678")
METAL = LAUNCH.model_copy(update={"instance_type": "m7i.metal-24xl"})


@pytest.fixture
def tx(database_url: str) -> Iterator[Connection]:
    """A transaction on empty tables that is taken back."""
    migrations.upgrade(database_url)
    database = Database(database_url)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, events CASCADE"))
        yield tx
        tx.rollback()
    database.dispose()


def ended(
    tx: Connection, number: int, *, seconds: float | None, launch: Launch = LAUNCH, days: int = 0
) -> None:
    """So many attempts, whose machines took so long to boot; None: were given up before."""
    for _ in range(number):
        job_id = jobs.submit_one(tx, parse_spec({"image": "a"}), actor="test").job_id
        (ref,) = claim_due(tx, 1, actor="test")
        assert ref.job_id == job_id
        launches.begin(tx, ref, launch, actor="test")
        attempts.launched(tx, ref, f"i-{ref.job_id.hex[:17]}", actor="test")
        if seconds is not None:
            attempts.booted(tx, ref, actor="test")
        reason = Reason.BOOT_DEADLINE if seconds is None else Reason.PULL_FAILED
        assert attempts.end(tx, ref, reason, actor="test")
        tx.execute(
            text(
                "UPDATE attempts SET booted_at = launched_at + make_interval(secs => :seconds),"
                " exited_at = clock_timestamp() - make_interval(days => :days) WHERE job_id = :id"
            ),
            {"id": job_id, "seconds": seconds, "days": days},
        )


def test_the_slowest_of_a_hundred_is_known_for_each_kind_of_machine(tx: Connection) -> None:
    ended(tx, 98, seconds=20)
    ended(tx, 2, seconds=45)
    ended(tx, LEAST, seconds=700, launch=METAL)
    metal = ("m7i.metal-24xl", "ami-12345678")
    assert boot_times.lately(tx).slowest_s == {KIND: 45.0, metal: 700.0}


def test_of_too_few_or_too_old_machines_nothing_is_known(tx: Connection) -> None:
    ended(tx, LEAST - 1, seconds=20)
    ended(tx, 5, seconds=20, days=8)
    assert boot_times.lately(tx).slowest_s == {}
    ended(tx, 1, seconds=20)
    assert boot_times.lately(tx).slowest_s == {KIND: 20.0}


@pytest.mark.parametrize("machines", [40, 150])
def test_where_giving_up_early_is_wrong_it_stops_by_itself(tx: Connection, machines: int) -> None:
    ended(tx, machines, seconds=20)
    ended(tx, 1, seconds=None)
    known = boot_times.lately(tx).slowest_s
    assert known == ({KIND: 20.0} if machines > 100 else {})
    ended(tx, 1, seconds=None)
    assert boot_times.lately(tx).slowest_s == {}


def test_when_a_machine_was_last_heard_is_known(tx: Connection) -> None:
    assert boot_times.lately(tx).last_at is None
    ended(tx, 1, seconds=20)
    booted_at = tx.scalar(text("SELECT max(booted_at) FROM attempts"))
    assert boot_times.lately(tx).last_at == booted_at
