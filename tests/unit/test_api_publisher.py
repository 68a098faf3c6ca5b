"""Notifications for the reaper: in order, again after a failure, never at a caller's cost."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest

from atemporal.broker import Delivery, Link, Outgoing
from atemporal.errors import Unavailable, Unknown
from atemporal.messages import REAP, InstanceExited, InstanceRunning, JobCancel, decode
from atemporal.model import AttemptRef
from services.api import publisher as module
from services.api.publisher import BATCH, BOUND, Publisher

REF = AttemptRef(UUID("01890000-0000-7000-8000-000000000001"), 2)


class FakeLink(Link):
    """A broker that can be away, and that can hold its confirm back."""

    def __init__(self) -> None:
        super().__init__("memory://", name="fake")
        self.batches: list[list[Outgoing]] = []
        self.failures: list[Exception] = []
        self.confirms = threading.Event()
        self.confirms.set()
        self.asked = threading.Event()

    def connect(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def publish(
        self, messages: Sequence[Outgoing], *, timeout_s: float = 10.0
    ) -> Sequence[tuple[Outgoing, str]]:
        if not messages:
            return ()
        self.asked.set()
        self.confirms.wait(10)
        self.batches.append(list(messages))
        if self.failures:
            raise self.failures.pop(0)
        return ()

    def heartbeat(self) -> None:
        """Nothing is connected."""


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def publisher(link: FakeLink) -> Iterator[Publisher]:
    made = Publisher(link)
    yield made
    link.confirms.set()
    made.stop(10)


def numbered(number: int) -> InstanceExited:
    return InstanceExited.of(AttemptRef(REF.job_id, number))


def id_of(number: int) -> str:
    return numbered(number).message_id


def test_each_notification_reaches_the_reaper_with_its_type_and_id(memory_url: str) -> None:
    publisher = Publisher(Link(memory_url, name="publisher"))
    for kind in (InstanceRunning, InstanceExited, JobCancel):
        publisher.put(kind.of(REF))
    reaper = Link(memory_url, name="reaper")
    reaper.connect()
    publisher.start()
    received: list[Delivery] = []
    while len(received) < 3:
        batch = reaper.receive(REAP, limit=10)
        received += batch
        reaper.ack(batch)
    assert publisher.stop(10)
    reaper.close()
    messages = [decode(REAP, one.body) for one in received]
    assert [type(one) for one in messages] == [InstanceRunning, InstanceExited, JobCancel]
    assert {one.ref for one in messages} == {REF}
    assert [one.message_id for one in received] == [
        f"{REF.id}.running",
        f"{REF.id}.exited",
        f"{REF.id}.cancel",
    ]


@pytest.mark.parametrize("failure", [Unavailable("away"), Unknown("no confirm")])
def test_what_failed_to_publish_is_published_again_in_order(
    publisher: Publisher, link: FakeLink, failure: Exception
) -> None:
    link.failures = [Unavailable("not there yet"), failure]
    for number in range(3):
        publisher.put(numbered(number))
    publisher.start()
    assert publisher.stop(20)
    assert [one.message_id for one in link.batches[-1]] == [id_of(n) for n in range(3)]


def test_a_broker_that_hangs_costs_the_caller_nothing_and_memory_has_a_bound(
    publisher: Publisher, link: FakeLink
) -> None:
    link.confirms.clear()
    publisher.start()
    publisher.put(numbered(0))
    assert link.asked.wait(10)
    for number in range(1, BOUND + 100):
        publisher.put(numbered(number))
    link.confirms.set()
    assert publisher.stop(20)
    published = [one.message_id for batch in link.batches for one in batch]
    assert published == [id_of(number) for number in range(BOUND)]
    assert max(map(len, link.batches)) <= BATCH


def test_stop_is_bounded_while_the_broker_hangs(publisher: Publisher, link: FakeLink) -> None:
    link.confirms.clear()
    publisher.start()
    publisher.put(numbered(0))
    assert not publisher.stop(0.2)


def test_an_idle_publisher_stops_at_once(
    publisher: Publisher, link: FakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 60)
    publisher.start()
    assert publisher.stop(10)
    assert link.batches == []
