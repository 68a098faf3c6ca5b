"""The scheduler's loops, on real Postgres and RabbitMQ."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any
from uuid import UUID

import pika
import pika.data
import pytest
import structlog.testing
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.broker import DEAD, REASON_HEADER, Delivery, Link, Outgoing
from atemporal.errors import AtemporalError, Kept, Unavailable, Unknown
from atemporal.messages import EVENTS, LAUNCH, decode
from atemporal.model import AttemptRef, ExitRecord, parse_spec
from atemporal.states import JobState, Reason
from atemporal.store import attempts, jobs, launches
from atemporal.store.database import Database
from atemporal.terms import Terms
from services.scheduler.due import BATCH, DueLoop
from services.scheduler.relay import COUNT_AGAIN_S, RelayLoop
from services.scheduler.submit import SubmitLoop
from tests.claims import claim_due
from tests.integration.messaging import Publisher, length, until
from tests.launches import LAUNCH as INTENT
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import purge


@pytest.fixture
def link(broker_url: str, database: Database) -> Iterator[Link]:
    """A link for looking at queues; queues and tables are emptied after the test."""
    link = Link(broker_url, name="test")
    link.connect()
    yield link
    link.close()
    purge(broker_url, "atemporal.submit", LAUNCH, "atemporal.reap", DEAD)
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events CASCADE"))


@pytest.fixture
def due(broker_url: str, database: Database) -> Iterator[DueLoop]:
    loop = DueLoop(database, Link(broker_url, name="due"), poll_interval_s=0.05)
    yield loop
    loop.reset()


@pytest.fixture
def submits(broker_url: str, database: Database) -> Iterator[SubmitLoop]:
    loop = SubmitLoop(database, Link(broker_url, name="submit"))
    yield loop
    loop.reset()


def submitted(database: Database, count: int = 1, **fields: Any) -> list[UUID]:
    specs = [parse_spec({"image": "busybox", **fields})] * count
    with database.begin() as tx:
        return [one.job_id for one in jobs.submit(tx, specs, actor="test")]


def state(database: Database, job_id: UUID) -> JobState:
    with database.begin() as tx:
        return jobs.get(tx, job_id).state


def drain(link: Link, queue: str, *, more_s: float = 0.3) -> list[Delivery]:
    received: list[Delivery] = []
    while batch := link.receive(queue, limit=1000, timeout_s=2 if not received else more_s):
        link.ack(batch)
        received += batch
    return received


def test_a_due_job_is_emitted_once(database: Database, due: DueLoop, link: Link) -> None:
    (job_id,) = submitted(database)
    due.tick()
    due.tick()
    (message,) = drain(link, LAUNCH)
    assert decode(LAUNCH, message.body).ref == AttemptRef(job_id, 1)
    assert state(database, job_id) is JobState.QUEUED


def test_a_future_job_is_not_emitted(database: Database, due: DueLoop, link: Link) -> None:
    (job_id,) = submitted(database, delay_s=600)
    due.tick()
    assert link.receive(LAUNCH, limit=1, timeout_s=0.2) == []
    assert state(database, job_id) is JobState.SCHEDULED


def test_due_jobs_beyond_one_batch_are_emitted_without_a_pause(
    database: Database, due: DueLoop, link: Link
) -> None:
    wanted = set(submitted(database, BATCH + 20))
    due.tick()
    due.tick()
    sent = [decode(LAUNCH, one.body).job_id for one in drain(link, LAUNCH)]
    assert len(sent) == BATCH + 20
    assert set(sent) == wanted


def test_a_job_that_the_broker_did_not_confirm_stays_scheduled(
    database: Database, broker_url: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = submitted(database)
    own = Link(broker_url, name="due")
    loop = DueLoop(database, own, poll_interval_s=0.05)
    settle = own.settle

    def sent_but_unsure(sent: Any) -> None:
        settle(sent)
        raise AtemporalError("no confirm")

    monkeypatch.setattr(own, "settle", sent_but_unsure)
    with pytest.raises(AtemporalError, match="no confirm"):
        loop.tick()
    assert state(database, job_id) is JobState.SCHEDULED
    monkeypatch.undo()
    loop.tick()
    loop.reset()
    # The message went out twice, and names the same attempt both times.
    refs = {decode(LAUNCH, one.body).ref for one in drain(link, LAUNCH)}
    assert refs == {AttemptRef(job_id, 1)}
    assert state(database, job_id) is JobState.QUEUED


def test_a_job_that_another_scheduler_has_locked_is_not_asked_for_without_a_rest(
    database: Database, due: DueLoop, link: Link
) -> None:
    submitted(database)
    with database.begin() as other:
        other.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
        until, ticks = time.monotonic() + 1, 0
        while time.monotonic() < until:
            due.tick()
            ticks += 1
    assert ticks <= 20


def test_the_gauge_of_the_oldest_due_job_grows_while_the_broker_is_away(
    database: Database, link: Link
) -> None:
    submitted(database)
    with database.begin() as tx:
        tx.execute(text("UPDATE jobs SET due_at = now() - interval '1 hour'"))
    loop = DueLoop(database, Link("amqp://127.0.0.1:1//", name="due"), poll_interval_s=0.05)
    with pytest.raises(Unavailable):
        loop.tick()
    loop.reset()
    late_s = REGISTRY.get_sample_value("atemporal_oldest_due_seconds")
    assert late_s is not None
    assert 3600 <= late_s < 3700


@pytest.fixture
def publisher(broker_url: str, link: Link) -> Iterator[Publisher]:
    publisher = Publisher(broker_url)
    yield publisher
    publisher.close()


def test_a_job_message_becomes_a_job_and_gets_a_reply(
    database: Database, submits: SubmitLoop, publisher: Publisher
) -> None:
    publisher.send(
        {"type": "job.submit", "v": 1, "job": {"image": "nginx:1.9", "env": {"A": "1"}}}
    )
    reply = publisher.reply(submits)
    assert reply["status"] == "accepted"
    with database.begin() as tx:
        assert jobs.get(tx, UUID(reply["id"])).spec.env == {"A": "1"}


def test_a_job_message_that_comes_again_is_one_job(
    submits: SubmitLoop, publisher: Publisher
) -> None:
    for _ in range(2):
        publisher.send({"image": "nginx"}, message_id="order-17")
    first, second = publisher.reply(submits), publisher.reply(submits)
    assert (first["status"], second["status"]) == ("accepted", "duplicate")
    assert first["id"] == second["id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"\xff", "body"),
        ({"type": "job.submit", "job": {"image": "No Image"}}, "image"),
        ({"type": "job.submit", "job": {"image": "a", "env": {"A": "x" * 140_000}}}, "env"),
        ({"type": "job.submit", "job": {"image": "a", "labels": {"a": "\0"}}}, "labels"),
        ({"type": "job.submit", "job": {"image": "a", "network": "host"}}, "network"),
        ({"type": "job.other"}, "type"),
    ],
)
def test_a_bad_job_message_is_rejected_dead_lettered_and_blocks_nobody(
    submits: SubmitLoop, publisher: Publisher, link: Link, body: Any, field: str
) -> None:
    publisher.send(body)
    publisher.send({"image": "nginx"})
    replies = [publisher.reply(submits) for _ in range(2)]
    rejected = next(one for one in replies if one["status"] == "rejected")
    assert field in rejected["errors"]
    assert any(one["status"] == "accepted" for one in replies)
    (dead,) = drain(link, DEAD)
    assert field in dead.handle.headers[REASON_HEADER]


def test_the_largest_environment_comes_by_a_message_however_json_writes_it(
    database: Database, submits: SubmitLoop, publisher: Publisher
) -> None:
    lines = dict.fromkeys(("A", "B", "C"), "\n" * 80000)
    signs = dict.fromkeys(("A", "B", "C"), "é" * 40000)
    for env in (lines, signs):
        publisher.send({"image": "nginx", "env": env})
        reply = publisher.reply(submits)
        assert reply["status"] == "accepted", reply
        with database.begin() as tx:
            assert jobs.get(tx, UUID(reply["id"])).spec.env == env


def test_a_job_by_claim_is_rejected_where_machines_can_prove_nothing(
    database: Database, broker_url: str, publisher: Publisher, link: Link
) -> None:
    loop = SubmitLoop(database, Link(broker_url, name="submit"), terms=Terms(claims=False))
    publisher.send({"image": "a", "secrets": {"A": "hush"}})
    reply = publisher.reply(loop)
    loop.reset()
    assert reply["status"] == "rejected"
    assert "ATEMPORAL_IDENTITY_CERTIFICATES" in reply["errors"]["secrets"]
    (dead,) = drain(link, DEAD)
    assert "hush" not in json.dumps(dead.handle.headers, default=str)


def test_a_message_with_unreadable_properties_is_dead_lettered_at_once_and_the_others_go_on(
    database: Database, submits: SubmitLoop, publisher: Publisher, link: Link
) -> None:
    publisher.send({"image": "a", "key": "k-a"})
    odd: Any = b"caf\xe9"
    publisher.send_with(pika.BasicProperties(correlation_id=odd, reply_to=publisher.replies))
    publisher.send_with(pika.BasicProperties(message_id=odd))
    publisher.send({"image": "b", "key": "k-b"})
    until(submits, lambda: count(database) == 2)
    dead = drain(link, DEAD)
    reasons = [one.handle.headers[REASON_HEADER] for one in dead]
    assert len(reasons) == 2
    assert all("its properties can not be read" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["gzip", "zlib", "application/x-bz2"])
def test_a_compression_header_changes_no_body(
    submits: SubmitLoop, publisher: Publisher, link: Link, name: str
) -> None:
    body = json.dumps({"image": "nginx"}).encode()
    headers = {"compression": name}
    properties = pika.BasicProperties(headers=headers, **publisher.asking)
    publisher.send_with(properties, body)
    plain = publisher.reply(submits)
    publisher.send_with(properties, gzip.compress(body))
    compressed = publisher.reply(submits)
    assert plain["status"] == "accepted"
    assert "gzip; send plain JSON" in compressed["errors"]["body"]
    assert len(drain(link, DEAD)) == 1


@pytest.mark.parametrize(
    "stale", ["amq.rabbitmq.reply-to.g1h2AA1yZXBseUAxMjM0NQ==", "amq.rabbitmq.reply-to.x", "gone"]
)
def test_a_reply_to_nobody_costs_the_others_nothing(
    database: Database, submits: SubmitLoop, publisher: Publisher, stale: str
) -> None:
    publisher.send({"image": "a"})
    publisher.send_with(
        pika.BasicProperties(reply_to=stale, message_id="m"), json.dumps({"image": "b"}).encode()
    )
    publisher.send({"image": "c"})
    with structlog.testing.capture_logs() as logs:
        until(submits, lambda: count(database) == 3)
    # The first may come twice: together, and then alone.
    answers = {publisher.reply(submits)["id"] for _ in range(2)}
    while len(answers) < 2:
        answers.add(publisher.reply(submits)["id"])
    if stale == "gone":
        assert [one["error"] for one in logs if one["event"] == "reply not delivered"] == [
            "no queue takes 'gone' from exchange ''"
        ]


def test_a_broker_that_confirms_nothing_holds_up_replies_no_longer_than_it_may(
    database: Database, broker_url: str, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, now, tried = Link(broker_url, name="own"), [0.0], list[int]()
    # All are to come in one batch.
    monkeypatch.setattr(own, "receive", partial(own.receive, linger_s=1.0))
    loop = SubmitLoop(database, own, clock=lambda: now[0])

    def unconfirmed(messages: Sequence[Outgoing], **_: Any) -> Any:
        tried.append(len(messages))
        now[0] += 6.0
        raise Unknown("not confirmed")

    for number in range(8):
        publisher.send({"image": "a", "key": f"k-{number}"})
    monkeypatch.setattr(own, "publish", unconfirmed)
    until(loop, lambda: count(database) == 8)
    assert tried == [8, 1, 1]
    loop.reset()


def test_a_reply_says_its_time_and_has_no_content_encoding(
    submits: SubmitLoop, publisher: Publisher
) -> None:
    publisher.send({"image": "a", "run_at": "2030-04-25 07:27:27+02"})
    assert publisher.reply(submits)["time"] == "2030-04-25T05:27:27.000Z"
    assert publisher.last is not None
    assert publisher.last.content_encoding is None
    assert publisher.last.content_type == "application/json"


def test_the_same_key_for_another_job_is_rejected_saying_what_differs(
    submits: SubmitLoop, publisher: Publisher, link: Link
) -> None:
    for image in ("nginx:1", "nginx:2"):
        publisher.send({"image": image, "key": "k-1"})
    assert publisher.reply(submits)["status"] == "accepted"
    second = publisher.reply(submits)
    assert second["status"] == "rejected"
    assert "nginx:2" in second["errors"]["key"]
    assert len(drain(link, DEAD)) == 1


def count(database: Database) -> int:
    with database.begin() as tx:
        return int(tx.scalar(text("SELECT count(*) FROM jobs")) or 0)


def test_no_key_and_null_as_key_are_the_same(
    database: Database, submits: SubmitLoop, publisher: Publisher
) -> None:
    for _ in range(2):
        publisher.send({"image": "nginx", "key": None}, message_id="order-18")
    assert [publisher.reply(submits)["status"] for _ in range(2)] == ["accepted", "duplicate"]


def test_an_outage_of_postgres_costs_no_message_a_delivery(
    database: Database,
    submits: SubmitLoop,
    publisher: Publisher,
    link: Link,
    postgres_server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_hand() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "submit", away)
            with pytest.raises(Kept):
                until(submits, lambda: False)

    def away(*_: object, **__: object) -> None:
        raise Unavailable("Postgres went away between the ping and the work")

    for number in range(5):
        publisher.send({"image": "nginx"}, message_id=f"o-{number}")
    publisher.send({"image": "No Image"})
    in_hand()
    postgres_server.stop()
    try:
        for _ in range(30):
            with pytest.raises(Kept):
                submits.tick()
    finally:
        postgres_server.start()
    for number in range(5, 10):
        publisher.send({"image": "nginx"}, message_id=f"o-{number}")
    while count(database) < 10:
        submits.tick()
    replies = [publisher.reply(submits)["status"] for _ in range(11)]
    assert sorted(replies) == ["accepted"] * 10 + ["rejected"]
    assert len(drain(link, DEAD)) == 1


def test_while_postgres_is_away_no_message_is_taken(
    submits: SubmitLoop, publisher: Publisher, link: Link, postgres_server: Postgres
) -> None:
    publisher.send({"image": "nginx"})
    postgres_server.stop()
    try:
        with pytest.raises(Unavailable):
            submits.tick()
        (untouched,) = link.receive("atemporal.submit", limit=1, timeout_s=5)
        link.ack([untouched])
    finally:
        postgres_server.start()


def test_a_message_that_can_not_be_decoded_takes_no_others_along(
    database: Database,
    broker_url: str,
    publisher: Publisher,
    link: Link,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = pika.data.encode_short_string

    def foul(pieces: list[bytes], value: str) -> int:
        if value != "foul":
            return int(encode(pieces, value))
        pieces.append(b"\x02\xff\xfe")
        return 3

    monkeypatch.setattr(pika.data, "encode_short_string", foul)
    for number in range(10):
        publisher.send({"image": "nginx"}, "foul" if number == 5 else f"p-{number}")
    loop = SubmitLoop(database, Link(broker_url, name="submit"))
    for _ in range(100):
        if count(database) == 9 and length(broker_url, DEAD) == 1:
            break
        try:
            loop.tick()
        except Unavailable:
            loop.reset()
    assert (count(database), length(broker_url, DEAD)) == (9, 1)
    assert length(broker_url, "atemporal.submit") == 0
    loop.reset()


@pytest.mark.parametrize("bad", [{"image": "No Image"}, {"image": "nginx:2", "key": "k-2"}])
def test_dead_lettering_that_fails_makes_no_job_twice(
    database: Database,
    broker_url: str,
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    bad: dict[str, str],
) -> None:
    with database.begin() as tx:
        jobs.submit(tx, [parse_spec({"image": "nginx:1", "key": "k-2"})], actor="test")
    own = Link(broker_url, name="submit")
    # Both are to come in one batch.
    monkeypatch.setattr(own, "receive", partial(own.receive, linger_s=1.0))
    loop = SubmitLoop(database, own)
    publisher.send({"image": "nginx"})
    publisher.send(bad)

    def fails(*_: object) -> None:
        own.close()
        raise Unknown("the dead letter was not confirmed")

    with monkeypatch.context() as patch:
        patch.setattr(own, "dead_letter", fails)
        for _ in range(2):
            with pytest.raises(Unknown, match="not confirmed"):
                loop.tick()
            loop.reset()
    while length(broker_url, DEAD) < 1:
        loop.tick()
    loop.reset()
    assert count(database) == 2


def test_a_reply_that_can_not_be_sent_makes_no_job_twice(
    database: Database, broker_url: str, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Link(broker_url, name="submit")
    loop = SubmitLoop(database, own)
    publisher.send({"image": "nginx"})

    def fails(*_: object) -> None:
        own.close()
        raise Unknown("the reply was not confirmed")

    with monkeypatch.context() as patch:
        patch.setattr(own, "publish", fails)
        while count(database) == 0:
            loop.tick()
    loop.tick()
    loop.reset()
    assert count(database) == 1


def heard_by(channel: Any, queue: str) -> list[tuple[str, dict[str, Any]]]:
    coming = channel.consume(queue, auto_ack=True, inactivity_timeout=0.5)
    # Each time that nothing comes it gives nothing, and goes on.
    return [
        (method.routing_key, json.loads(body))
        for method, _, body in takewhile(lambda one: one[0] is not None, coming)
    ]


@pytest.mark.parametrize("binding", ["job.#", "#", "job.*", "*.submit"])
def test_no_binding_of_a_listener_gets_a_submit_or_its_environment(
    database: Database,
    submits: SubmitLoop,
    publisher: Publisher,
    broker_url: str,
    link: Link,
    binding: str,
) -> None:
    link.connect()
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EVENTS, binding)
    publisher.send({"image": "nginx", "env": {"SECRET": "hush"}})
    until(submits, lambda: count(database) == 1)
    DueLoop(database, link, poll_interval_s=0.05).tick()
    relay = RelayLoop(database, Link(broker_url, name="relay"), interval_s=0.1)
    relay.tick()
    relay.reset()
    heard = heard_by(channel, queue)
    connection.close()
    assert "hush" not in json.dumps(heard)
    assert {key for key, _ in heard} <= {"job.scheduled", "job.queued"}
    assert all(set(body) >= {"event_id", "job_id", "at"} for _, body in heard)


@pytest.mark.parametrize(("interval_s", "idle_s"), [(0.5, 1.0), (8.0, 10.0), (30.0, 30.0)])
def test_the_relay_looks_more_rarely_while_nothing_happens_but_keeps_its_connection(
    database: Database, broker_url: str, link: Link, interval_s: float, idle_s: float
) -> None:
    relay = RelayLoop(database, link, interval_s=interval_s)
    while events_left(database):
        relay.tick()
    assert relay.tick() == idle_s
    with database.begin() as tx:
        jobs.submit_one(tx, parse_spec({"image": "nginx"}), actor="test")
    assert relay.tick() == interval_s


def events_left(database: Database) -> int:
    with database.begin() as tx:
        return int(tx.scalar(text("SELECT count(*) FROM events WHERE NOT relayed")) or 0)


def test_the_outbox_is_measured_while_the_broker_is_away(
    database: Database, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    relay = RelayLoop(database, link, interval_s=0.1, clock=lambda: now)
    submitted(database, 3)
    with database.begin() as tx:
        tx.execute(text("UPDATE events SET at = at - interval '1 hour'"))
    monkeypatch.setattr(link, "connect", away)
    shown = REGISTRY.get_sample_value
    with pytest.raises(Unavailable):
        relay.tick()
    assert shown("atemporal_outbox_events") == 3
    assert 3600 <= (shown("atemporal_outbox_oldest_seconds") or 0) < 4000
    monkeypatch.undo()
    relay.tick()
    now = COUNT_AGAIN_S
    relay.tick()
    assert shown("atemporal_outbox_events") == 0
    assert shown("atemporal_outbox_oldest_seconds") == 0


def away() -> None:
    raise Unavailable("the broker is away")


def test_a_phase_is_measured_when_its_end_is_published_and_only_if_it_was_come_through(
    database: Database, link: Link
) -> None:
    submitted(database)
    with database.begin() as tx:
        (ref,) = claim_due(tx, 1, actor="test")
        assert launches.begin(tx, ref, INTENT, actor="test")
        attempts.booted(tx, ref, actor="test")
        assert attempts.claim(tx, ref, claim_id="c", instance_id=None, actor="test")
        record = ExitRecord(exit_code=0)
        assert attempts.end(tx, ref, Reason.COMPLETED, actor="test", exit_record=record)
        # It got ready so fast that nobody saw it.
        times = (
            "booted_at = created_at + interval '9 s', running_at = created_at + interval '20 s'"
        )
        tx.execute(text(f"UPDATE attempts SET {times}, exited_at = created_at + interval '80 s'"))
    before = measured()
    RelayLoop(database, link, interval_s=0.1).tick()
    changed = {phase: after - before[phase] for phase, after in measured().items()}
    assert changed == {"launch": 0, "boot": 0, "pull": 0, "hold": 0, "run": 60, "stop": 0}


def measured() -> dict[str, float]:
    phases = ("launch", "boot", "pull", "hold", "run", "stop")
    name = "atemporal_attempt_duration_seconds_sum"
    return {one: REGISTRY.get_sample_value(name, {"phase": one}) or 0 for one in phases}


def test_events_carry_labels_and_key_and_at_the_end_outcome_and_exit_code(
    database: Database, broker_url: str, link: Link
) -> None:
    link.connect()
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EVENTS, "#")
    with database.begin() as tx:
        spec = parse_spec({"image": "a", "key": "order-7", "labels": {"team": "blue"}})
        job_id = jobs.submit_one(tx, spec, actor="test").job_id
        (ref,) = claim_due(tx, 1, actor="test")
        assert launches.begin(tx, ref, INTENT, actor="test")
        record = ExitRecord(exit_code=7)
        assert attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=record)
    relay = RelayLoop(database, Link(broker_url, name="relay"), interval_s=0.1)
    relay.tick()
    relay.reset()
    heard = heard_by(channel, queue)
    connection.close()
    assert all(
        (body["job_id"], body["key"], body["labels"]) == (str(job_id), "order-7", {"team": "blue"})
        for _, body in heard
    )
    (finished,) = (body for key, body in heard if key.startswith("job.finished"))
    assert (finished["outcome"], finished["exit_code"]) == ("failed", 7)
    assert all("outcome" not in body for key, body in heard if "finished" not in key)


def test_every_transition_is_published_to_listeners(
    database: Database, broker_url: str, link: Link
) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, EVENTS, "job.#")
    (job_id,) = submitted(database, env={"SECRET": "hush"})
    with database.begin() as tx:
        jobs.cancel(tx, job_id, actor="test")
    relay = RelayLoop(database, Link(broker_url, name="relay"), interval_s=0.1)
    relay.tick()
    relay.tick()
    relay.reset()
    heard = heard_by(channel, queue)
    connection.close()
    assert [key for key, _ in heard] == ["job.scheduled", "job.finished.cancelled"]
    assert all(body["type"] == key for key, body in heard)
    assert {body["job_id"] for _, body in heard} == {str(job_id)}
    assert "hush" not in json.dumps([body for _, body in heard])
