"""The broker link's promises on a real RabbitMQ, and within one process."""

from __future__ import annotations

import json
import select
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from struct import pack
from typing import Any, Protocol

import pika
import pytest
from amqp.transport import TCPTransport

from atemporal import broker
from atemporal.broker import DEAD, REASON_HEADER, Delivery, Link, Outgoing
from atemporal.broker.wire import read_ahead, read_until
from atemporal.errors import AtemporalError, Service, Unavailable, Unknown
from atemporal.messages import COMMANDS, EVENTS, INTERNAL, LAUNCH, REAP, SUBMIT
from tests.servers.rabbitmq import RabbitMQ, purge


class Connect(Protocol):
    """Make a link."""

    def __call__(self, url: str, *, name: str) -> Link: ...


@pytest.fixture(params=["rabbitmq", "memory"])
def url(request: pytest.FixtureRequest) -> str:
    """Both transports: what holds on RabbitMQ has to hold in one process as well."""
    if request.param == "memory":
        return str(request.getfixturevalue("memory_url"))
    return str(request.getfixturevalue("broker_url"))


@pytest.fixture
def broker_url(broker_url: str) -> str:
    """The module's virtual host, emptied: a test that failed may have left messages."""
    broker.declare(broker_url)
    purge(broker_url, SUBMIT, LAUNCH, REAP, DEAD)
    return broker_url


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Links that end with the test, also where it fails: else they take the next one's messages."""
    with ExitStack() as opened:

        def connect(url: str, *, name: str) -> Link:
            return opened.enter_context(closing(Link(url, name=name)))

        yield connect


@pytest.fixture
def link(url: str) -> Iterator[Link]:
    link = Link(url, name="test")
    yield link
    link.close()


def due(number: int) -> Outgoing:
    body = json.dumps({"n": number}).encode()
    return Outgoing("job.due", body, f"m{number}", INTERNAL)


def test_a_batch_of_large_messages_ends_early_and_the_next_goes_on(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atemporal.broker.link.BATCH_BYTES", 1000)
    bodies = [bytes([number]) * 400 for number in range(7)]
    link.publish([Outgoing("job.due", body, "", INTERNAL) for body in bodies])
    sizes: list[int] = []
    found: list[bytes] = []
    while len(found) < len(bodies):
        batch = link.receive(LAUNCH, limit=64, linger_s=0.5, timeout_s=5)
        link.ack(batch)
        sizes.append(len(batch))
        found += [one.body for one in batch]
    assert found == bodies
    assert max(sizes) <= 3


def test_a_batch_arrives_whole_and_in_order(link: Link) -> None:
    link.publish([due(n) for n in range(500)])
    received: list[int] = []
    while len(received) < 500:
        batch = link.receive(LAUNCH, limit=64, timeout_s=5)
        assert batch
        received += [json.loads(one.body)["n"] for one in batch]
        link.ack(batch)
    assert received == list(range(500))
    assert link.receive(LAUNCH, limit=64, timeout_s=0.05) == []


def test_messages_that_a_dead_process_held_come_again(broker_url: str, connect: Connect) -> None:
    first, second = connect(broker_url, name="first"), connect(broker_url, name="second")
    first.publish([due(1)])
    assert len(first.receive(LAUNCH, limit=1, timeout_s=5)) == 1
    first.close()
    (again,) = second.receive(LAUNCH, limit=1, timeout_s=5)
    assert again.message_id == "m1"
    second.ack([again])
    second.close()


def test_a_message_no_queue_takes_is_a_failure_unless_nobody_has_to(
    broker_url: str, connect: Connect
) -> None:
    link = connect(broker_url, name="test")
    with pytest.raises(Unknown, match="no queue takes 'no\\.such\\.key'"):
        link.publish([Outgoing("no.such.key", b"{}", "1", COMMANDS)])
    nobody = Outgoing("no.such.key", b"{}", "1", EVENTS, required=False, mandatory=False)
    assert not link.publish([nobody])
    gone = Outgoing("no.such.queue", b"{}", "2", "", required=False)
    assert link.publish([nobody, gone]) == [
        (gone, "no queue takes 'no.such.queue' from exchange ''")
    ]
    link.close()


def test_a_dead_lettered_message_keeps_its_body_and_has_the_reason(
    link: Link, url: str, connect: Connect
) -> None:
    link.publish([Outgoing("job.submit", b"\xff not json", "bad", COMMANDS)])
    batch = link.receive(SUBMIT, limit=5, timeout_s=5)
    link.dead_letter(batch[0], "body: is not JSON")
    link.ack(batch)
    reader = connect(url, name="reader")
    (dead,) = reader.receive(DEAD, limit=5, timeout_s=5)
    assert dead.body == b"\xff not json"
    assert dead.handle.headers[REASON_HEADER] == "body: is not JSON"
    reader.ack([dead])
    reader.close()


def test_who_had_room_for_few_at_first_gets_many_when_it_has_room_for_many(
    broker_url: str, connect: Connect
) -> None:
    publisher = connect(broker_url, name="publisher")
    reader = connect(broker_url, name="reader")
    publisher.publish([due(n) for n in range(3)])
    while first := reader.receive(LAUNCH, limit=3, linger_s=0.3, timeout_s=1):
        reader.ack(first)
    publisher.publish([due(n) for n in range(200)])
    sizes, got = [], 0
    while got < 200:
        batch = reader.receive(LAUNCH, limit=1000, linger_s=1, timeout_s=10)
        reader.ack(batch)
        got += len(batch)
        sizes.append(len(batch))
    # What had come before is taken as it is.
    assert max(sizes) > 50
    reader.close()
    publisher.close()


def test_a_message_that_kills_its_readers_ends_in_the_dead_letters(
    broker_url: str, connect: Connect
) -> None:
    publisher = connect(broker_url, name="publisher")
    publisher.publish([due(13)])
    deliveries = 0
    for _ in range(60):
        victim = connect(broker_url, name="victim")
        deliveries += len(victim.receive(LAUNCH, limit=1, timeout_s=0.5))
        victim.close()
        if dead := publisher.receive(DEAD, limit=1, timeout_s=0.05):
            publisher.ack(dead)
            break
    else:
        raise AssertionError(f"still not dead after {deliveries} deliveries")
    assert 1 < deliveries < 40
    publisher.close()


def test_queues_are_quorum_queues_with_dead_letters(broker_url: str) -> None:
    assert set(broker.declare(broker_url)) >= {SUBMIT, LAUNCH, REAP, DEAD}
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        # Declaring again with other arguments is refused: this is how a plain client can tell.
        arguments = {
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        connection.channel().queue_declare(SUBMIT, durable=True, arguments=arguments)
    finally:
        connection.close()


def test_without_a_broker_the_first_use_fails_soon() -> None:
    link = Link("amqp://guest:hush@127.0.0.1:1//", name="test")
    with pytest.raises(Unavailable) as failure:
        link.publish([due(1)])
    assert "hush" not in str(failure.value)
    assert failure.value.service is Service.RABBITMQ


def test_a_link_works_again_after_the_broker_restarted(
    rabbitmq_server: RabbitMQ, broker_url: str, connect: Connect
) -> None:
    link = connect(broker_url, name="test")
    link.publish([due(1)])
    rabbitmq_server.restart()
    with pytest.raises(AtemporalError):
        link.publish([due(2)])
    link.publish([due(3)])
    received = link.receive(LAUNCH, limit=10, linger_s=0.5, timeout_s=10)
    assert {one.message_id for one in received} >= {"m1", "m3"}
    link.ack(received)
    link.close()


def test_a_frozen_broker_holds_a_publish_only_until_its_deadline(
    rabbitmq_server: RabbitMQ, broker_url: str, connect: Connect
) -> None:
    link = connect(broker_url, name="test")
    link.connect()
    rabbitmq_server.pause()
    try:
        with ThreadPoolExecutor(1) as pool:
            publish = pool.submit(link.publish, [due(1)], timeout_s=1)
            with pytest.raises(Unknown, match="not confirmed"):
                publish.result(timeout=20)
    finally:
        rabbitmq_server.resume()
    # A late confirm of the first must not pass for the second's: the link has a new connection.
    link.publish([due(2)])
    received = link.receive(LAUNCH, limit=10, linger_s=0.5, timeout_s=10)
    assert "m2" in {one.message_id for one in received}
    link.ack(received)
    link.close()


def test_an_idle_publisher_keeps_its_connection(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    monkeypatch.setattr("atemporal.broker.link._HEARTBEAT_S", 1)
    link = connect(broker_url, name="idle")
    link.connect()
    until = time.monotonic() + 4
    # Only time can tell: two heartbeats missed, and the connection counts as lost.
    while time.monotonic() < until:
        link.heartbeat()
        time.sleep(0.1)
    assert link.open
    link.close()


def test_a_message_that_kills_its_readers_takes_no_others_along(
    broker_url: str, connect: Connect
) -> None:
    publisher = connect(broker_url, name="publisher")
    publisher.publish([due(n) for n in range(20)])
    handled: set[str] = set()
    dead: list[Delivery] = []
    for _ in range(80):
        victim = connect(broker_url, name="victim")
        # Long enough for a slow broker: one that gives up early returns what it has not even seen.
        while batch := victim.receive(LAUNCH, limit=10, timeout_s=5):
            if any(one.message_id == "m7" for one in batch):
                break
            victim.ack(batch)
            handled |= {one.message_id or "" for one in batch}
        victim.close()
        if dead := publisher.receive(DEAD, limit=50, timeout_s=0.05):
            break
    assert [one.message_id for one in dead] == ["m7"]
    publisher.ack(dead)
    assert publisher.receive(DEAD, limit=50, timeout_s=0.1) == []
    publisher.close()
    last = connect(broker_url, name="last")
    rest = last.receive(LAUNCH, limit=50, linger_s=0.3, timeout_s=0.3)
    last.ack(rest)
    last.close()
    handled |= {one.message_id or "" for one in rest}
    assert handled == {f"m{n}" for n in range(20) if n != 7}


def test_an_unreadable_message_is_handed_out_as_one_among_the_others(
    broker_url: str, connect: Connect
) -> None:
    reader = connect(broker_url, name="reader")
    reader.connect()
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    # What pika's types do not say: it sends bytes as they are.
    odd: Any = b"caf\xe9"
    for properties in (
        pika.BasicProperties(message_id="m1"),
        pika.BasicProperties(correlation_id=odd),
        pika.BasicProperties(message_id="m2", headers={"x-delivery-count": "many"}),
        pika.BasicProperties(message_id="m3", headers={"compression": "gzip"}),
    ):
        channel.basic_publish(INTERNAL, "job.due", b"{}", properties)
    connection.close()
    received: list[Delivery] = []
    while len(received) < 4:
        batch = reader.receive(LAUNCH, limit=10, timeout_s=5)
        reader.ack(batch)
        received += batch
    assert [one.message_id for one in received] == ["m1", None, "m2", "m3"]
    assert [one.unreadable is None for one in received] == [True, False, True, True]
    assert all(one.body == b"{}" for one in received)
    assert reader.open
    reader.close()


def test_a_full_queue_of_a_listener_harms_no_other(broker_url: str, connect: Connect) -> None:
    link = connect(broker_url, name="relay")
    link.connect()
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    full = channel.queue_declare(
        "", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    ).method.queue
    other = channel.queue_declare("", exclusive=True).method.queue
    for queue in (full, other):
        channel.queue_bind(queue, EVENTS, "#")
    events = [
        Outgoing("job.queued", b"{}", f"event.{n}", EVENTS, required=False, mandatory=False)
        for n in range(20)
    ]
    refused = [message.message_id for message, _ in link.publish(events)]
    assert "event.0" not in refused
    assert "event.19" in refused
    heard = [
        channel.basic_get(other, auto_ack=True)[1].message_id
        for _ in range(channel.queue_declare(other, passive=True).method.message_count)
    ]
    assert heard == [f"event.{n}" for n in range(20)]
    connection.close()
    link.close()


def test_what_is_sent_has_no_content_encoding_and_what_is_absent_is_left_out(
    broker_url: str, connect: Connect
) -> None:
    link = connect(broker_url, name="test")
    link.publish([due(1)])
    (delivery,) = link.receive(LAUNCH, limit=1, timeout_s=5)
    properties = dict(delivery.handle.properties)
    assert properties.pop("application_headers", {}) == {}
    assert properties == {
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": "m1",
    }
    link.ack([delivery])
    link.close()


class Halves:
    """A connection as `read_until` knows it, on one end of a pair of sockets; the test has the other."""

    def __init__(self, *, tls: bool) -> None:
        self.peer, own = socket.socketpair()
        self.transport = TCPTransport("a broker")
        self.transport.sock = Tls(own) if tls else own
        self.transport._setup_transport()
        read_ahead(self.transport)
        self.frames: list[Any] = []

    def blocking_read(self) -> None:
        self.frames.append(self.transport.read_frame())

    def close(self) -> None:
        self.peer.close()
        self.transport.sock.close()


class Tls:
    """A socket that says as a TLS one does that nothing is there."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def recv(self, size: int) -> bytes:
        try:
            return self._sock.recv(size)
        except BlockingIOError as error:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "did not complete") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("arrived", [3, 7, 8, 5000, 9007])
def test_the_rest_of_a_frame_that_does_not_come_is_waited_for_until_the_deadline(
    arrived: int, tls: bool
) -> None:
    frame = pack(">BHI", 3, 1, 9000) + bytes(9000) + b"\xce"
    halves = Halves(tls=tls)
    with ThreadPoolExecutor(1) as pool:
        try:
            halves.peer.sendall(frame + frame[:arrived])
            for wait_s in (0, 0.01):
                until = time.monotonic() + wait_s
                pool.submit(read_until, halves, until, lambda: False).result(timeout=30)
                assert halves.frames == [(3, 1, bytes(9000))]
            halves.peer.sendall(frame[arrived:])
            until = time.monotonic() + 60
            enough = lambda: len(halves.frames) == 2  # noqa: E731
            pool.submit(read_until, halves, until, enough).result(timeout=90)
            assert halves.frames == [(3, 1, bytes(9000))] * 2
        finally:
            # Whoever reads still, hears of the end.
            halves.close()


@pytest.mark.parametrize("arrived", [3, 7, 5000])
def test_a_read_that_waits_for_the_rest_of_a_frame_ends_with_its_socket_timeout(
    arrived: int,
) -> None:
    frame = pack(">BHI", 3, 1, 9000) + bytes(9000) + b"\xce"
    halves = Halves(tls=False)
    with ThreadPoolExecutor(1) as pool:
        try:
            # As a declare reads: the socket waits, and the system ends that with the same EAGAIN.
            halves.transport.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, pack("@ll", 0, 50_000)
            )
            halves.peer.sendall(frame[:arrived])
            with pytest.raises(TimeoutError, match="the rest of a frame"):
                pool.submit(halves.blocking_read).result(timeout=30)
            halves.peer.sendall(frame[arrived:])
            assert select.select([halves.transport.sock], [], [], 30)[0]
            halves.blocking_read()
            assert halves.frames == [(3, 1, bytes(9000))]
        finally:
            halves.close()
