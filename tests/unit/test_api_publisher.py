"""Waking the reaper: in order, again after a failure, and never at a caller's cost."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest

from atemporal.broker import REAP, Delivery, Link, Outgoing
from atemporal.errors import Unavailable, Unknown
from atemporal.messages import InstanceExited, InstanceRunning, JobCancel, decode_notification
from atemporal.model import AttemptRef
from services.api import publisher as module
from services.api.publisher import BATCH, BOUND, Publisher

REF = AttemptRef(UUID("01890000-0000-7000-8000-000000000001"), 2)


class FakeLink(Link):
    """A broker that can be away, and that can hold its answer back."""

    def __init__(self) -> None:
        super().__init__("memory://", name="fake")
        self.batches: list[list[Outgoing]] = []
        self.failures: list[Exception] = []
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()

    def connect(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def publish(self, messages: Sequence[Outgoing], *, timeout_s: float = 10.0) -> None:
        if not messages:
            return
        self.asked.set()
        self.answers.wait(10)
        self.batches.append(list(messages))
        if self.failures:
            raise self.failures.pop(0)

    def heartbeat(self) -> None:
        """Nothing is connected."""


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def publisher(link: FakeLink) -> Iterator[Publisher]:
    made = Publisher(link)
    yield made
    link.answers.set()
    made.stop(10)


def numbered(number: int) -> Outgoing:
    return Outgoing("instance.exited", b"{}", message_id=str(number))


def test_each_wake_is_one_message_of_its_kind() -> None:
    url = "memory://"
    publisher = Publisher(Link(url, name="publisher"))
    publisher.running(REF)
    publisher.exited(REF)
    publisher.cancelled(REF)
    reaper = Link(url, name="reaper")
    reaper.connect()
    publisher.start()
    received: list[Delivery] = []
    while len(received) < 3:
        batch = reaper.receive(REAP, limit=10)
        received += batch
        reaper.ack(batch)
    assert publisher.stop(10)
    reaper.close()
    messages = [decode_notification(one.body) for one in received]
    assert [type(one) for one in messages] == [InstanceRunning, InstanceExited, JobCancel]
    assert {one.ref for one in messages} == {REF}
    assert [one.message_id for one in received] == [
        f"{REF.id}.running",
        f"{REF.id}.exited",
        f"{REF.id}.cancel",
    ]


@pytest.mark.parametrize("failure", [Unavailable("away"), Unknown("no confirm")])
def test_what_failed_is_published_again_and_in_order(
    publisher: Publisher, link: FakeLink, failure: Exception
) -> None:
    link.failures = [Unavailable("not there yet"), failure]
    for number in range(3):
        publisher.put(numbered(number))
    publisher.start()
    assert publisher.stop(20)
    assert [one.message_id for one in link.batches[-1]] == ["0", "1", "2"]


def test_a_silent_broker_costs_the_caller_nothing_and_memory_has_a_bound(
    publisher: Publisher, link: FakeLink
) -> None:
    link.answers.clear()
    publisher.start()
    publisher.put(numbered(0))
    assert link.asked.wait(10)
    for number in range(1, BOUND + 100):
        publisher.put(numbered(number))
    link.answers.set()
    assert publisher.stop(20)
    published = [one.message_id for batch in link.batches for one in batch]
    assert published == [str(number) for number in range(BOUND)]
    assert max(map(len, link.batches)) <= BATCH


def test_the_end_is_bounded_while_the_broker_is_silent(
    publisher: Publisher, link: FakeLink
) -> None:
    link.answers.clear()
    publisher.start()
    publisher.put(numbered(0))
    assert not publisher.stop(0.2)


def test_an_idle_queue_ends_at_once(
    publisher: Publisher, link: FakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 60)
    publisher.start()
    assert publisher.stop(10)
    assert link.batches == []
