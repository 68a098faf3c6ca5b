"""The jobs that a scheduler cancels for a schedule: in which order, and who is sent."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal.broker import Link, Outgoing
from atemporal.errors import Service, Unavailable
from atemporal.messages import REAP, JobCancel, decode
from atemporal.model import AttemptRef
from atemporal.states import Outcome
from atemporal.store.database import Database
from services.scheduler.recurring import RecurringLoop
from tests.integration.recurring import (
    HOUR,
    SECOND,
    Clock,
    T,
    begin,
    fires_of,
    job,
    make,
    run,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("no_schedules")


class FakeLink(Link):
    """A broker that keeps what it is given, or is away."""

    def __init__(self) -> None:
        super().__init__("memory://", name="fake")
        self.given: list[Outgoing] = []
        self.away = False
        self.closed = 0

    def publish(
        self, messages: Sequence[Outgoing], *, timeout_s: float = 10.0
    ) -> Sequence[tuple[Outgoing, str]]:
        if self.away:
            raise Unavailable("it is away", Service.RABBITMQ)
        self.given += messages
        return ()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def loop(database: Database, clock: Clock, link: FakeLink) -> RecurringLoop:
    return RecurringLoop(database, link, interval_s=1.0, time_of=clock)


def runs_on(database: Database, clock: Clock, loop: RecurringLoop, name: str) -> AttemptRef:
    """The job of the fire at T runs, of a schedule whose next fire will cancel it."""
    clock.now = T - HOUR
    make(database, name=name, cron="0 * * * *", overlap="cancel")
    clock.now = T - SECOND
    run(loop)
    return begin(database, fires_of(database, name)[0].job_id, running=True)


@pytest.mark.parametrize("away", [False, True])
def test_the_reaper_is_told_of_the_instance_unless_the_broker_is_away(
    database: Database, clock: Clock, loop: RecurringLoop, link: FakeLink, away: bool
) -> None:
    ref = runs_on(database, clock, loop, "nightly")
    link.away = away
    clock.now = T + HOUR
    run(loop)
    assert job(database, ref.job_id).outcome is Outcome.CANCELLED
    sent = [decode(REAP, one.body) for one in link.given]
    assert sent == ([] if away else [JobCancel.of(ref)])
    assert link.closed == int(away)


def test_the_jobs_of_a_batch_are_locked_by_their_ids(
    database: Database, clock: Clock, loop: RecurringLoop
) -> None:
    """As a launcher locks several: else two that have some in common could wait for each other."""
    refs = [runs_on(database, clock, loop, name) for name in ("first", "second")]
    lower, higher = sorted(ref.job_id for ref in refs)
    clock.now = T + HOUR - SECOND
    run(loop)
    # The schedule of the higher id is looked at first.
    with database.begin() as tx:
        tx.execute(
            text(
                "UPDATE schedules SET look_at = look_at - interval '1 s' WHERE id ="
                " (SELECT schedule_id FROM fires WHERE job_id = :job)"
            ),
            {"job": higher},
        )
    clock.now = T + HOUR
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as tx:
            tx.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": lower})
            running = pool.submit(run, loop)
            wait_for(database, tx)
            assert is_free(database, higher)
        running.result(30)
    assert {job(database, ref.job_id).outcome for ref in refs} == {Outcome.CANCELLED}


def is_free(database: Database, job_id: UUID) -> bool:
    query = text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE SKIP LOCKED")
    with database.begin() as tx:
        return tx.scalar(query, {"id": job_id}) is not None
