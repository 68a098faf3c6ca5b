"""Dead letters on real Postgres and RabbitMQ: kept once, with the reason, and sent again safely."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pika
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.broker import DEAD, Link, Outgoing
from atemporal.errors import Conflict, InDoubt, Kept, NotFound, Unavailable, Unknown
from atemporal.messages import BODY_LIMIT, COMMANDS, INTERNAL, LAUNCH, REAP, SUBMIT
from atemporal.model.dead_letter import DeadReason, LetterState, RecordedLetter
from atemporal.store import dead_letters
from atemporal.store.database import Database
from services.scheduler.dead_letters import BATCH, COUNT_AGAIN_S, DeadLetterLoop
from services.scheduler.submit import SubmitLoop
from tests.integration.messaging import length
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import purge

QUEUES = (SUBMIT, LAUNCH, REAP, DEAD)


@pytest.fixture
def link(broker_url: str, database: Database) -> Iterator[Link]:
    """A link to publish with; queues and tables are emptied after the test."""
    link = Link(broker_url, name="test")
    link.connect()
    yield link
    link.close()
    purge(broker_url, *QUEUES)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events, dead_letters"))


@pytest.fixture
def loop(broker_url: str, database: Database, link: Link) -> Iterator[DeadLetterLoop]:
    loop = a_loop(broker_url, database)
    yield loop
    loop.reset()


@pytest.fixture
def submits(broker_url: str, database: Database, link: Link) -> Iterator[SubmitLoop]:
    loop = SubmitLoop(database, Link(broker_url, name="submit"))
    yield loop
    loop.reset()


def a_loop(broker_url: str, database: Database, own: Link | None = None) -> DeadLetterLoop:
    return DeadLetterLoop(database, own or Link(broker_url, name="dead"), interval_s=0.0)


def submit(body: Any, message_id: str = "", **more: Any) -> Outgoing:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Outgoing("job.submit", raw, message_id, COMMANDS, **more)


def letters(database: Database, **wanted: Any) -> list[RecordedLetter]:
    """Whole letters, the eldest first."""
    with database.begin() as tx:
        page = dead_letters.listing(tx, **wanted, limit=1000)
        return [dead_letters.get(tx, one.id) for one in reversed(page.letters)]


def count(database: Database, table: str = "jobs") -> int:
    with database.begin() as tx:
        return int(tx.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def until(done: Callable[[], bool], *loops: Any, within_s: float = 60) -> None:
    """Let the loops tick until so; those that give their messages back begin anew."""
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, "it did not come true in time"
        for loop in loops:
            loop.tick()


def kept(database: Database, loop: DeadLetterLoop, number: int = 1) -> list[RecordedLetter]:
    until(lambda: count(database, "dead_letters") >= number, loop)
    return letters(database)


def asked(database: Database, letter_id: UUID) -> RecordedLetter:
    with database.begin() as tx:
        return dead_letters.replay(tx, letter_id, actor="op")


def replayed(database: Database, loop: DeadLetterLoop, letter_id: UUID) -> RecordedLetter:
    asked(database, letter_id)

    def sent() -> bool:
        with database.begin() as tx:
            return dead_letters.get(tx, letter_id).state is LetterState.REPLAYED

    until(sent, loop)
    with database.begin() as tx:
        return dead_letters.get(tx, letter_id)


# Each with the field that is wrong.
MALFORMED: Sequence[tuple[Any, str]] = (
    (b"\xff\xfe", "body"),
    (b'{"image": "busybox"', "body"),
    (b'{"image": "busybox", "image": "nginx"}', "body"),
    ({"type": "job.cancel", "v": 1}, "type"),
    ({"image": "No Image"}, "image"),
    ({"image": "busybox", "env": {"A": "x" * 140_000}}, "env"),
    ({"image": "busybox", "labels": {"a": "\0"}}, "labels"),
    ({"image": "busybox", "timeout_s": "60"}, "timeout_s"),
    ({"image": "busybox", "colour": "red"}, "colour"),
    ({"image": "busybox", "time": "tomorrow"}, "time"),
)


@pytest.mark.timeout(400)
def test_of_ten_thousand_submits_fifty_are_malformed_and_each_is_kept_with_its_field_and_reason(
    database: Database, loop: DeadLetterLoop, submits: SubmitLoop, link: Link
) -> None:
    wrong: dict[str, str] = {}
    messages = []
    for number in range(10_000):
        body: Any = {"image": "busybox", "command": [str(number)]}
        if number % 200 == 77:
            body, wrong[f"m-{number}"] = MALFORMED[number // 200 % len(MALFORMED)]
        messages.append(submit(body, f"m-{number}"))
    assert len(wrong) == 50
    before = kept_so_far("invalid")
    for start in range(0, len(messages), 1000):
        link.publish(messages[start : start + 1000], timeout_s=60)
    until(
        lambda: count(database) >= 9_950 and count(database, "dead_letters") >= 50,
        submits,
        loop,
        within_s=300,
    )
    assert count(database) == 9_950
    found = letters(database)
    assert {one.message_id: [*one.errors] for one in found} == {
        message_id: [field] for message_id, field in wrong.items()
    }
    for one in found:
        assert (one.reason, one.queue, one.routing_key, one.exchange) == (
            DeadReason.INVALID,
            SUBMIT,
            "job.submit",
            COMMANDS,
        )
        (field,) = one.errors
        assert one.detail == f"{field}: {one.errors[field]}"
    assert kept_so_far("invalid") == before + 50


def kept_so_far(reason: str, queue: str = SUBMIT) -> float:
    labels = {"reason": reason, "queue": queue}
    return REGISTRY.get_sample_value("atemporal_dead_letters_total", labels) or 0.0


def test_a_letter_that_comes_again_after_its_commit_is_one_row(
    database: Database, broker_url: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Link(broker_url, name="dying")
    dying = a_loop(broker_url, database, own)
    link.publish([Outgoing(DEAD, b"?", f"m-{n}", "") for n in range(3)])

    def dies(_: object) -> None:
        own.close()
        raise Unavailable("it died before the acknowledgement")

    with monkeypatch.context() as patch:
        patch.setattr(own, "ack", dies)
        until(
            lambda: count(database, "dead_letters") >= 3,
            _Surviving(dying),
        )
    before = kept_so_far("unknown", "other")
    loop = a_loop(broker_url, database)
    until(lambda: length(broker_url, DEAD) == 0, loop)
    loop.tick()
    loop.reset()
    assert sorted(one.message_id or "" for one in letters(database)) == ["m-0", "m-1", "m-2"]
    assert kept_so_far("unknown", "other") == before


def test_letters_whose_commit_was_not_answered_are_kept_once(
    database: Database, loop: DeadLetterLoop, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    link.publish([Outgoing(DEAD, b"?", "", "") for _ in range(5)])
    begin, keep, kept_now = database.begin, dead_letters.keep, list[int]()

    def kept(*given: Any, **more: Any) -> Any:
        new = keep(*given, **more)
        kept_now.append(len(new))
        return new

    @contextmanager
    def in_doubt() -> Iterator[Any]:
        before = len(kept_now)
        with begin() as tx:
            yield tx
        if len(kept_now) > before:
            raise InDoubt("the answer to the commit was lost")

    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "keep", kept)
        patch.setattr(database, "begin", in_doubt)
        while sum(kept_now) < 5:
            with contextlib.suppress(Kept):
                loop.tick()
    for _ in range(3):
        loop.tick()
    assert count(database, "dead_letters") == 5


class _Surviving:
    """A loop whose failures reset it, as a daemon does."""

    def __init__(self, loop: DeadLetterLoop) -> None:
        self._loop = loop

    def tick(self) -> None:
        try:
            self._loop.tick()
        except (Unavailable, Unknown) as error:
            if not isinstance(error, Kept):
                self._loop.reset()


def test_messages_that_are_alike_and_have_no_id_are_a_letter_each(
    database: Database, loop: DeadLetterLoop, link: Link
) -> None:
    link.publish([Outgoing(DEAD, b"?", "", "") for _ in range(BATCH + 5)])
    assert len(kept(database, loop, BATCH + 5)) == BATCH + 5


def test_an_outage_of_postgres_keeps_letters_in_hand_and_loses_none(
    database: Database,
    loop: DeadLetterLoop,
    link: Link,
    postgres_server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link.publish([Outgoing(DEAD, b"?", f"m-{n}", "") for n in range(5)])

    def away(*_: object, **__: object) -> None:
        raise Unavailable("Postgres went away between the ping and the work")

    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "keep", away)
        for _ in range(30):
            with pytest.raises(Kept):
                loop.tick()
    postgres_server.stop()
    try:
        with pytest.raises(Kept):
            loop.tick()
    finally:
        postgres_server.start()
    found = kept(database, loop, 5)
    assert [one.message_id for one in found] == [f"m-{n}" for n in range(5)]
    # They were delivered once: nothing was given back meanwhile.
    assert all("x-delivery-count" not in one.properties["headers"] for one in found)


def raw_channel(url: str) -> tuple[pika.BlockingConnection, Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    return connection, channel


class TestByTheBroker:
    def test_rejected(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        link.publish([Outgoing("job.due", b'{"n":1}', "m-1", INTERNAL)])
        connection, channel = raw_channel(broker_url)
        for method, _, _ in channel.consume(LAUNCH, inactivity_timeout=10):
            channel.basic_reject(method.delivery_tag, requeue=False)
            break
        connection.close()
        (one,) = kept(database, loop)
        assert_of_broker(one, DeadReason.REJECTED)
        assert (one.body, one.message_id) == (b'{"n":1}', "m-1")

    def test_expired(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        connection, channel = raw_channel(broker_url)
        properties = pika.BasicProperties(expiration="1", message_id="m-1", delivery_mode=2)
        channel.basic_publish(INTERNAL, "job.due", b"{}", properties)
        connection.close()
        (one,) = kept(database, loop)
        assert_of_broker(one, DeadReason.EXPIRED)

    def test_delivered_too_often(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        link.publish([Outgoing("job.due", b"{}", "m-1", INTERNAL)])
        for _ in range(60):
            victim = Link(broker_url, name="victim")
            victim.receive(LAUNCH, limit=1, timeout_s=0.5)
            victim.close()
            loop.tick()
            if count(database, "dead_letters"):
                break
        (one,) = kept(database, loop)
        assert_of_broker(one, DeadReason.DELIVERY_LIMIT)

    def test_with_properties_that_can_not_be_read(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        connection, channel = raw_channel(broker_url)
        odd: Any = b"caf\xe9"
        properties = pika.BasicProperties(expiration="1", message_id=odd)
        channel.basic_publish(INTERNAL, "job.due", b"kept all the same", properties)
        connection.close()
        (one,) = kept(database, loop)
        assert (one.reason, one.queue, one.body) == (
            DeadReason.UNREADABLE,
            None,
            b"kept all the same",
        )
        assert "its properties can not be read" in one.detail
        with pytest.raises(Conflict, match="where it came from"):
            asked(database, one.id)


def assert_of_broker(one: RecordedLetter, reason: DeadReason) -> None:
    assert (one.reason, one.queue, one.exchange, one.routing_key) == (
        reason,
        LAUNCH,
        INTERNAL,
        "job.due",
    )
    (death,) = one.deaths
    assert (death.queue, death.reason, death.count) == (LAUNCH, reason.value, 1)
    assert death.time is not None
    assert abs((one.received_at - death.time).total_seconds()) < 120
    assert one.dead_at == death.time


class TestReplay:
    def test_a_message_that_has_become_good_is_a_job_with_its_own_key(
        self,
        database: Database,
        loop: DeadLetterLoop,
        submits: SubmitLoop,
        link: Link,
        broker_url: str,
    ) -> None:
        # As if an older release had not known what this one knows.
        body = json.dumps({"image": "busybox"}).encode()
        self.dead(broker_url, link, body, "order-17", reply_to="nobody", correlation_id="c-1")
        (letter,) = kept(database, loop)
        sent = replayed(database, loop, letter.id)
        assert (sent.decided_by, sent.replayed_at is not None) == ("op", True)
        until(lambda: count(database) == 1, submits)
        with database.begin() as tx:
            assert tx.scalar(text("SELECT key FROM jobs")) == "order-17"

    def dead(self, url: str, link: Link, body: bytes, message_id: str = "", **more: Any) -> None:
        """Let a reader of the submits refuse it."""
        link.publish([submit(body, message_id, **more)])
        reader = Link(url, name="reader")
        (one,) = reader.receive(SUBMIT, limit=1, timeout_s=5)
        reader.dead_letter(one, "image: unknown here", {"image": "unknown here"})
        reader.ack([one])
        reader.close()

    def test_twice_it_is_sent_once(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        self.dead(broker_url, link, b"{}", "m-1")
        (letter,) = kept(database, loop)
        assert asked(database, letter.id).state is LetterState.REPLAYING
        first = replayed(database, loop, letter.id)
        again = asked(database, letter.id)
        assert (again.state, again.decided_at) == (LetterState.REPLAYED, first.decided_at)
        loop.tick()
        assert length(broker_url, SUBMIT) == 1

    @pytest.mark.parametrize("body", [{"image": "busybox"}, {"image": "busybox", "key": "k"}])
    @pytest.mark.parametrize("message_id", ["", "m-1"])
    def test_sent_twice_after_a_crash_it_is_one_job(
        self,
        database: Database,
        loop: DeadLetterLoop,
        submits: SubmitLoop,
        link: Link,
        broker_url: str,
        monkeypatch: pytest.MonkeyPatch,
        body: dict[str, str],
        message_id: str,
    ) -> None:
        self.dead(broker_url, link, json.dumps(body).encode(), message_id)
        (letter,) = kept(database, loop)

        def dies(*_: object) -> None:
            raise Unavailable("it died after the broker's word")

        with monkeypatch.context() as patch:
            patch.setattr(dead_letters, "mark_replayed", dies)
            asked(database, letter.id)
            for _ in range(2):
                with pytest.raises(Kept):
                    loop.tick()
        assert letters(database)[0].state is LetterState.REPLAYING
        replayed(database, loop, letter.id)
        assert length(broker_url, SUBMIT) == 3
        until(lambda: length(broker_url, SUBMIT) == 0 and count(database) > 0, submits)
        submits.tick()
        assert count(database) == 1

    def test_of_one_that_is_still_wrong_a_new_letter_comes_that_names_the_earlier_one(
        self, database: Database, loop: DeadLetterLoop, submits: SubmitLoop, link: Link
    ) -> None:
        link.publish([submit({"image": "No Image"}, "m-1")])
        until(lambda: count(database, "dead_letters") == 1, submits, loop)
        (first,) = letters(database)
        asked(database, first.id)
        until(lambda: count(database, "dead_letters") == 2, submits, loop)
        first, second = letters(database)
        assert (first.state, second.state) == (LetterState.REPLAYED, LetterState.KEPT)
        assert (second.replay_of, first.replay_of) == (first.id, None)
        assert (second.errors, second.message_id) == (first.errors, "m-1")
        assert (second.queue, second.routing_key) == (SUBMIT, "job.submit")

    def test_one_that_does_not_reach_its_queue_stays_to_be_sent_and_holds_up_no_new_letter(
        self,
        database: Database,
        broker_url: str,
        loop: DeadLetterLoop,
        link: Link,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.dead(broker_url, link, b"{}", "m-1")
        (letter,) = kept(database, loop)
        own = Link(broker_url, name="own")
        troubled = a_loop(broker_url, database, own)
        loop.reset()
        asked(database, letter.id)

        def refuses(*_: object) -> None:
            own.close()
            raise Unknown("a queue refused a message (it may be full)")

        with monkeypatch.context() as patch:
            patch.setattr(own, "publish", refuses)
            link.publish([Outgoing(DEAD, b"?", "other", "")])
            until(lambda: count(database, "dead_letters") == 2, _Surviving(troubled))
        assert letters(database)[0].state is LetterState.REPLAYING
        replayed(database, troubled, letter.id)
        troubled.reset()

    def test_two_schedulers_send_it_once(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        self.dead(broker_url, link, b"{}", "m-1")
        (letter,) = kept(database, loop)
        asked(database, letter.id)
        with database.begin() as tx:
            assert [one.id for one in dead_letters.to_replay(tx, SUBMIT, 10)] == [letter.id]
            loop.tick()
            with database.begin() as other:
                assert dead_letters.to_replay(other, SUBMIT, 10) == []
        assert length(broker_url, SUBMIT) == 0

    def test_one_that_was_dropped_is_not_sent_and_one_that_was_sent_is_not_dropped(
        self, database: Database, loop: DeadLetterLoop, link: Link, broker_url: str
    ) -> None:
        for number in range(2):
            self.dead(broker_url, link, b"secret", f"m-{number}")
        first, second = kept(database, loop, 2)
        with database.begin() as tx:
            dropped = dead_letters.drop(tx, first.id, actor="op")
        assert (dropped.state, dropped.body, dropped.properties) == (LetterState.DROPPED, None, {})
        assert (dropped.decided_by, dropped.detail) == ("op", "image: unknown here")
        with database.begin() as tx:
            assert dead_letters.drop(tx, first.id, actor="other").decided_by == "op"
        with pytest.raises(Conflict, match="was dropped"):
            asked(database, first.id)
        replayed(database, loop, second.id)
        with database.begin() as tx, pytest.raises(Conflict, match="is replayed"):
            dead_letters.drop(tx, second.id, actor="op")

    def test_one_that_is_too_large_is_not_sent(
        self, database: Database, loop: DeadLetterLoop, submits: SubmitLoop, link: Link
    ) -> None:
        link.publish([submit(b"x" * (BODY_LIMIT + 5), "m-1")])
        until(lambda: count(database, "dead_letters") == 1, submits, loop)
        (one,) = letters(database)
        assert (one.body_size, len(one.body or b"")) == (BODY_LIMIT + 5, BODY_LIMIT)
        with pytest.raises(Conflict, match="are kept"):
            asked(database, one.id)


def test_the_number_that_wait_for_a_decision_is_shown(
    database: Database, broker_url: str, link: Link
) -> None:
    now = [0.0]
    own = Link(broker_url, name="dead")
    loop = DeadLetterLoop(database, own, interval_s=0.0, clock=lambda: now[0])
    link.publish([Outgoing(DEAD, b"?", f"m-{n}", "") for n in range(3)])
    found = kept(database, loop, 3)

    def shown() -> float | None:
        now[0] += COUNT_AGAIN_S
        loop.tick()
        return REGISTRY.get_sample_value("atemporal_dead_letters_undecided")

    assert shown() == 3
    with database.begin() as tx:
        dead_letters.drop(tx, found[0].id, actor="op")
    assert shown() == 2
    loop.reset()


def test_a_header_that_says_that_a_message_can_not_be_read_is_a_text_or_nothing(
    database: Database, submits: SubmitLoop, link: Link, broker_url: str
) -> None:
    connection, channel = raw_channel(broker_url)
    properties = pika.BasicProperties(headers={"x-atemporal-unreadable": 5})
    channel.basic_publish(COMMANDS, "job.submit", b'{"image":"busybox"}', properties)
    connection.close()
    until(lambda: count(database) == 1, submits)


def test_an_end_of_an_id_is_enough(database: Database, loop: DeadLetterLoop, link: Link) -> None:
    link.publish([Outgoing(DEAD, b"?", "m", "")])
    (one,) = kept(database, loop)
    with database.begin() as tx:
        for part in (str(one.id), str(one.id)[:13], str(one.id)[-6:]):
            assert dead_letters.resolve(tx, part) == one.id
        with pytest.raises(NotFound, match="no dead letter"):
            dead_letters.resolve(tx, "ffffffffffff")
        with pytest.raises(NotFound, match="not a dead letter id"):
            dead_letters.resolve(tx, "the last one")
