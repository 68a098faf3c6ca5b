"""What launcher and reaper have in hand while EC2 or Postgres is away, on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from atemporal.broker import DEAD, Link, Outgoing
from atemporal.daemon import Loop
from atemporal.errors import Kept, Unavailable, Unknown
from atemporal.messages import INTERNAL, LAUNCH, REAP, InstanceExited, JobDue, encode
from atemporal.model import AttemptRef, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from services.launcher.launch import LaunchLoop
from services.launcher.launcher import Begun, Launcher
from services.reaper.reap import ReapLoop
from services.reaper.reaper import Reaper
from tests.claims import claim_due

# More than the broker delivers a message before it counts as dead.
FAILING_TURNS = 30


class Steps:
    """A launcher's and a reaper's steps: they fail until they are let."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.away: Exception | None = None
        self.done: set[AttemptRef] = set()
        self.behind = False

    def ping(self) -> None:
        if self.away:
            raise self.away

    def check(self) -> None:
        """EC2 takes calls."""

    def room(self) -> int:
        return 4

    def parts(self, refs: Sequence[AttemptRef]) -> list[Sequence[AttemptRef]]:
        return [refs]

    def begin(self, refs: Sequence[AttemptRef]) -> list[Begun]:
        if self.error:
            raise self.error
        self.done |= set(refs)
        return []

    def terminations_ready_in(self) -> float:
        return 0.0

    def end_instances_of(self, refs: Sequence[AttemptRef]) -> None:
        self.begin(refs)


def due(ref: AttemptRef) -> Outgoing:
    body = encode(JobDue(job_id=ref.job_id, attempt=ref.number))
    return Outgoing("job.due", body, ref.id, INTERNAL)


def exited(ref: AttemptRef) -> Outgoing:
    body = encode(InstanceExited(job_id=ref.job_id, attempt=ref.number))
    return Outgoing("instance.exited", body, ref.id, INTERNAL)


Make = Callable[[Steps, Link], Loop]
LOOPS = [
    pytest.param(
        lambda steps, link: LaunchLoop(cast(Launcher, steps), link), due, LAUNCH, id="launch"
    ),
    pytest.param(lambda steps, link: ReapLoop(cast(Reaper, steps), link), exited, REAP, id="reap"),
]


@pytest.fixture
def link(broker_url: str) -> Iterator[Link]:
    # What a loop of the test before had in hand comes back when the broker sees its connection gone.
    for queue in (LAUNCH, REAP):
        emptied = Link(broker_url, name="emptied")
        while left := emptied.receive(queue, limit=100, timeout_s=0.1):
            emptied.ack(left)
        emptied.close()
    link = Link(broker_url, name="test")
    yield link
    link.close()


def in_hand_s(queue: str) -> float:
    shown = REGISTRY.get_sample_value("atemporal_oldest_unacked_seconds", {"queue": queue})
    assert shown is not None
    return shown


@pytest.mark.parametrize(("make", "message", "queue"), LOOPS)
@pytest.mark.parametrize("error", [Unavailable("Postgres is away"), Unknown("EC2 said nothing")])
def test_an_outage_costs_no_message_a_delivery(
    broker_url: str,
    link: Link,
    make: Make,
    message: Callable[[AttemptRef], Outgoing],
    queue: str,
    error: Exception,
) -> None:
    refs = [AttemptRef(uuid4(), 1) for _ in range(12)]
    link.publish([message(ref) for ref in refs])
    steps = Steps(error)
    loop = make(steps, Link(broker_url, name="loop"))
    for _ in range(FAILING_TURNS):
        with pytest.raises(Kept):
            loop.tick()
    assert in_hand_s(queue) > 0
    steps.error = None
    for _ in range(20):
        if len(steps.done) == len(refs):
            break
        loop.tick()
    assert in_hand_s(queue) == 0
    loop.reset()
    assert steps.done == set(refs)
    assert link.receive(DEAD, limit=1, timeout_s=0.2) == []


@pytest.mark.parametrize(("make", "message", "queue"), LOOPS)
def test_without_a_database_no_message_is_taken(
    broker_url: str,
    link: Link,
    make: Make,
    message: Callable[[AttemptRef], Outgoing],
    queue: str,
) -> None:
    link.publish([message(AttemptRef(uuid4(), 1))])
    steps = Steps(None)
    steps.away = Unavailable("Postgres is away")
    loop = make(steps, Link(broker_url, name="loop"))
    with pytest.raises(Unavailable):
        loop.tick()
    (untouched,) = link.receive(queue, limit=1, timeout_s=5)
    link.ack([untouched])
    loop.reset()


@pytest.mark.parametrize(("make", "message", "queue"), LOOPS)
def test_an_unexpected_error_gives_the_messages_back(
    broker_url: str,
    link: Link,
    make: Make,
    message: Callable[[AttemptRef], Outgoing],
    queue: str,
) -> None:
    ref = AttemptRef(uuid4(), 1)
    link.publish([message(ref)])
    loop = make(Steps(RuntimeError("a mistake")), Link(broker_url, name="loop"))
    with pytest.raises(RuntimeError):
        loop.tick()
    loop.reset()
    (again,) = link.receive(queue, limit=1, timeout_s=5)
    link.ack([again])
    assert again.message_id == ref.id


def test_of_two_due_messages_for_a_job_the_newer_counts(database: Database) -> None:
    with database.begin() as tx:
        job_id = jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="test").job_id
        (new,) = claim_due(tx, 10, actor="test")
        old = AttemptRef(job_id, new.number - 1)
        assert set(jobs.lock_queued(tx, [new, old])) == {new}
        assert set(jobs.lock_queued(tx, [old, new])) == {new}
