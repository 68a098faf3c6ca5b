"""A connection to RabbitMQ: publishing that is sure, consuming in batches, dead letters with a reason.

Promise: `publish` returns only when the broker has answered every message, and every message that is
required to reach its queue did; `receive` hands out a batch that stays ours until it is acknowledged,
so what a dying process held is delivered again; a message nobody can use goes to the dead letters with
the reason and is never dropped.
Mechanism: a batch is written at once, its confirms are awaited together and matched by delivery tag;
who has other work meanwhile sends first and settles later. After any failure the connection is dropped,
because a late confirm of an old message would otherwise pass for the confirm of the next one. A `Link`
belongs to one thread.
A new connection takes its first message alone, and more only when that one did not fail often
before: so a message that kills its readers takes no others along.
Failure: what surely was not done leaves as `Unavailable`, what may have been done as `Unknown`; the
next use connects again. Connecting is tried once a call, so that a stopping daemon is never held. A
broker that is short of memory or disk says so and takes nothing: that is a failure at once.

With a `memory://` URL all of this works inside one process, without confirms and durability.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError
from kombu import Connection, Consumer, Queue
from kombu.exceptions import KombuError
from kombu.message import Message as Received

from atemporal.broker import dead_letters, frames
from atemporal.broker.confirms import Confirms, Sent
from atemporal.broker.envelope import Delivery, Outgoing
from atemporal.broker.topology import EXCHANGES, QUEUES
from atemporal.broker.wire import UNREADABLE, PlainMessage, frame_handler, read_ahead, read_until
from atemporal.errors import Invalid, Service, Unavailable, Unknown

BATCH_BYTES = 16 * 1024 * 1024
"""A batch ends with the message that makes it so large: it is worked on as a whole."""
_SUSPECT_AFTER = 3
_CONNECT_S = 5
_HEARTBEAT_S = 30
# A frozen broker keeps its sockets open; without these a declare would wait for it for ever.
_SOCKET_S = 15
_FAILURES = (AMQPError, KombuError, OSError, ValueError, struct.error)


class Link:
    """One connection for one thread: a publisher, and the consumer of at most one queue."""

    def __init__(self, url: str, *, name: str, declare: bool = True) -> None:
        """Remember where the broker is; nothing is connected yet.

        `declare` makes exchanges and queues on connecting; a user without the right to configure
        leaves that to `atemporal broker declare`.
        """
        self._url = url
        self._name = name
        self._declare = declare
        self._connection: Connection | None = None
        # py-amqp's connection, where it is one.
        self._amqp: Any = None
        self._blocked = False
        self._confirms: Confirms | None = None
        self._consumed: tuple[str, Consumer] | None = None
        self._alone = False
        self._prefetch = 0
        self._received: deque[Received] = deque()

    @property
    def open(self) -> bool:
        """Whether there is a connection, as far as is known; every failure of its own closes it."""
        return self._connection is not None

    def connect(self) -> None:
        """Connect now, if not connected; otherwise the first use does.

        Raises:
            Unavailable: the broker does not answer, or refuses us.
        """
        self._connected()

    def publish(
        self, messages: Sequence[Outgoing], *, timeout_s: float = 10.0
    ) -> Sequence[tuple[Outgoing, str]]:
        """Publish all and return when the broker has answered each of them.

        Returns those refused, and why, that are not `required`.

        Raises:
            Unavailable: none has been published.
            Unknown: some may have been; publishing all again is safe where readers drop duplicates.
        """
        return self.settle(self.send(messages), timeout_s=timeout_s) if messages else ()

    def send(self, messages: Sequence[Outgoing]) -> Sent:
        """Send all and return at once; `settle` tells what became of them.

        Raises:
            Unavailable: none has been sent.
            Unknown: some may have been.
        """
        self._connected()
        try:
            return self._send(messages)
        except _FAILURES as error:
            self.close()
            raise Unknown(f"publishing to RabbitMQ was not confirmed: {error}") from error
        except BaseException:
            self.close()
            raise

    def settle(self, sent: Sent, *, timeout_s: float = 10.0) -> Sequence[tuple[Outgoing, str]]:
        """Return when the broker has answered all of `sent`, and what was sent before it.

        Returns those refused, and why, that are not `required`.

        Raises:
            Unknown: some may be nowhere; sending all again is safe where readers drop duplicates.
        """
        confirms = sent.confirms
        if confirms is None:
            return ()
        if confirms is not self._confirms:
            raise Unknown("publishing to RabbitMQ was not confirmed: the connection was lost")
        try:
            return self._settle(confirms, sent.last, timeout_s)
        except _FAILURES as error:
            self.close()
            raise Unknown(f"publishing to RabbitMQ was not confirmed: {error}") from error
        except BaseException:
            self.close()
            raise

    def wait(self, until: float) -> None:
        """Heed what the broker says until that time of `monotonic`, to the fraction of a millisecond.

        Raises:
            Unavailable: it is gone.
        """
        with self._guarded():
            if self._amqp is None:
                sleep(max(0.0, until - monotonic()))
            else:
                read_until(self._amqp, until, lambda: False)

    def receive(
        self, queue: str, *, limit: int, linger_s: float = 0.0, timeout_s: float = 1.0
    ) -> list[Delivery]:
        """Wait up to `timeout_s` for a message, then up to `linger_s` for more, `limit` at most.

        What has arrived already is taken in any case, so whoever is busy gets full batches by itself.

        The batch is ours until `ack`; what is never acknowledged comes again to somebody. A message
        that has failed often is a batch of its own.

        Raises:
            Unavailable: the broker is away; the batches received and not acknowledged come again.
        """
        if self._consumed is not None and self._consumed[0] != queue:
            raise ValueError(f"this link consumes {self._consumed[0]}, not {queue}")
        with self._guarded() as connection:
            self._consume(queue, limit)
            self._await(connection, monotonic() + timeout_s, lambda: bool(self._received))
            if self._received and not _suspect(self._received[0]):
                self._widen(limit)
                self._await(
                    connection, monotonic() + linger_s, lambda: len(self._received) >= limit
                )
            connection.heartbeat_check()
            return self._batch(limit)

    def ack(self, batch: Sequence[Delivery]) -> None:
        """Give up a whole batch: its work is committed.

        Raises:
            Unavailable: the broker is away; the batch comes again.
        """
        if not batch:
            return
        with self._guarded():
            if self._confirms is not None:
                # Batches are settled whole and in order, so every smaller tag is settled too.
                batch[-1].handle.ack(multiple=True)
            else:
                for delivery in batch:
                    delivery.handle.ack()

    def dead_letter(
        self, delivery: Delivery, reason: str, errors: Mapping[str, str] | None = None
    ) -> None:
        """Publish a copy to the dead letters with the reason; the caller then acks the original.

        `errors` says for each bad field what is wrong with it.

        Raises:
            Unavailable, Unknown: as `publish`; the original is not acknowledged and comes again.
        """
        queue = self._consumed[0] if self._consumed else ""
        at = datetime.now(UTC)
        self.publish([dead_letters.copy_of(delivery, reason, errors or {}, queue=queue, at=at)])

    def heartbeat(self) -> None:
        """Keep the connection alive while the thread works long on something else.

        Raises:
            Unavailable: it is gone.
        """
        if self._connection is not None:
            with self._guarded() as connection:
                # Nobody else reads a publisher's socket, and the broker's heartbeats wait there.
                self._await(connection, monotonic(), lambda: False)
                connection.heartbeat_check()

    def close(self) -> None:
        """Drop the connection; what was received and not acknowledged comes again."""
        connection, self._connection = self._connection, None
        self._amqp = self._confirms = self._consumed = None
        self._blocked = False
        self._received.clear()
        if connection is not None:
            with contextlib.suppress(*_FAILURES):
                connection.collect(socket_timeout=1)

    def _connected(self) -> Connection:
        if self._connection is not None:
            return self._connection
        try:
            connection = Connection(
                self._url,
                connect_timeout=_CONNECT_S,
                heartbeat=_HEARTBEAT_S,
                ssl=self._tls(),
                transport_options=self._transport_options(),
            )
            # An unknown transport is found out here.
            connection.transport_cls  # noqa: B018
        except (KeyError, ValueError, ImportError) as error:
            # The text is not repeated: it can hold a password.
            raise Invalid(
                {"ATEMPORAL_BROKER_URL": "not a broker's; write amqp://user:password@host:5672//"}
            ) from error
        try:
            # `connect()` would sleep and repeat here, deaf to a stop.
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            self._connection = connection
            if connection.transport.driver_type == "amqp":
                self._amqp = connection.connection
                read_ahead(self._amqp.transport)
            channel = connection.default_channel
            if self._declare:
                for one in (*EXCHANGES, *QUEUES):
                    one(channel).declare()
            if self._amqp is not None:
                channel.confirm_select()
                self._confirms = Confirms(channel)
        except _FAILURES as error:
            self._connection = connection
            self.close()
            where = connection.as_uri()
            refuses = "ACCESS_REFUSED" in str(error) or "NOT_ALLOWED" in str(error)
            what = "refuses us" if refuses else "does not answer"
            why = str(error).removeprefix("(0, 0): ")
            raise Unavailable(f"RabbitMQ at {where} {what}: {why}", Service.RABBITMQ) from error
        return connection

    def _tls(self) -> dict[str, str] | bool:
        # Without the name py-amqp takes any host's certificate, if its authority is trusted.
        parts = urlsplit(self._url)
        return {"server_hostname": parts.hostname or ""} if parts.scheme == "amqps" else False

    def _transport_options(self) -> dict[str, Any]:
        if self._url.startswith("memory:"):
            return {"polling_interval": 0.02}
        return {
            "client_properties": {"connection_name": self._name},
            "read_timeout": _SOCKET_S,
            "write_timeout": _SOCKET_S,
            "frame_handler": frame_handler,
            "on_blocked": self._on_blocked,
        }

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[Connection]:
        connection = self._connected()
        try:
            yield connection
        except _FAILURES as error:
            self.close()
            raise Unavailable(f"RabbitMQ went away: {error}", Service.RABBITMQ) from error

    def _consume(self, queue: str, limit: int) -> None:
        if self._consumed is not None:
            return
        # A channel of its own: publishing must not end with a consumer's channel error.
        channel = self._connected().channel()
        if self._confirms is not None:
            channel.Message = PlainMessage
        consumer = Consumer(
            channel,
            queues=[Queue(queue, no_declare=True)],
            on_message=self._received.append,
            auto_declare=False,
        )
        # One process's memory has no count of deliveries, and nobody to protect.
        self._alone = self._confirms is not None
        self._prefetch = 1 if self._alone else 2 * limit
        consumer.qos(prefetch_count=self._prefetch)
        consumer.consume()
        self._consumed = (queue, consumer)

    def _widen(self, limit: int) -> None:
        """Take more than one message at a time from now on, and more again where more is asked for."""
        if self._consumed is None or self._confirms is None:
            return
        if self._alone or self._prefetch < limit:
            self._alone, self._prefetch = False, 2 * limit
            # A quorum queue gives each consumer the limit that was set when it came.
            _, consumer = self._consumed
            consumer.cancel()
            consumer.qos(prefetch_count=self._prefetch)
            consumer.consume()

    def _batch(self, limit: int) -> list[Delivery]:
        batch: list[Delivery] = []
        size = 0
        while self._received and len(batch) < limit and size < BATCH_BYTES:
            suspect = _suspect(self._received[0])
            if suspect and batch:
                break
            batch.append(_delivery(self._received.popleft()))
            size += len(batch[-1].body)
            if suspect:
                break
        return batch

    def _send(self, messages: Sequence[Outgoing]) -> Sent:
        assert self._connection is not None
        channel = self._connection.default_channel
        if self._confirms is None:
            for message in messages:
                # kombu's producer gives bytes a content encoding, and some clients then decode no JSON.
                content = channel.prepare_message(
                    message.body,
                    content_type="application/json",
                    headers=dict(message.headers),
                    properties={
                        "delivery_mode": 2,
                        "message_id": message.message_id,
                        "correlation_id": message.correlation_id,
                        "reply_to": message.reply_to,
                    },
                )
                channel.basic_publish(
                    content, exchange=message.exchange, routing_key=message.routing_key
                )
            return Sent(None)
        written = frames.publish(
            messages, channel=channel.channel_id, frame_max=self._amqp.frame_max
        )
        sent = self._confirms.sent(messages)
        self._amqp.transport.write(written)
        # By this py-amqp knows that it needs no heartbeat.
        self._amqp.bytes_sent += 1
        return sent

    def _settle(
        self, confirms: Confirms, last: int, timeout_s: float
    ) -> Sequence[tuple[Outgoing, str]]:
        until = monotonic() + timeout_s
        read_until(self._amqp, until, lambda: self._blocked or confirms.answered(last))
        refused = confirms.take_refused()
        if not confirms.answered(last):
            if self._blocked:
                raise KombuError("it takes no messages, it is short of memory or disk")
            raise TimeoutError(
                f"{confirms.open_until(last)} messages unconfirmed after {timeout_s} s"
            )
        return refused

    def _await(self, connection: Connection, until: float, enough: Callable[[], bool]) -> None:
        """Handle what comes until `enough()` or that time, and what has come in any case."""
        if self._amqp is not None:
            read_until(self._amqp, until, enough)
            return
        with contextlib.suppress(TimeoutError):
            while not enough():
                connection.drain_events(timeout=max(until - monotonic(), 0.001))


def declare(url: str) -> list[str]:
    """Make the exchanges and the queues; return the queues' names.

    Raises:
        Unavailable: the broker does not answer, or a queue exists with other arguments.
    """
    link = Link(url, name="atemporal declare")
    try:
        link.connect()
    finally:
        link.close()
    return list(dict.fromkeys(queue.name for queue in QUEUES))


def _suspect(message: Received) -> bool:
    """Whether it came back so often that it may be what its readers fail of."""
    # At a first delivery the header is whatever its publisher wrote there.
    count = (message.headers or {}).get("x-delivery-count")
    return isinstance(count, int) and count >= _SUSPECT_AFTER


def _delivery(message: Received) -> Delivery:
    body = message.body
    properties, headers = message.properties, message.headers or {}
    route = message.delivery_info
    # Anybody may have written such a header; ours is a text.
    unreadable = headers.get(UNREADABLE)
    return Delivery(
        body=body.encode() if isinstance(body, str) else bytes(body),
        message_id=properties.get("message_id") or None,
        reply_to=properties.get("reply_to") or None,
        correlation_id=properties.get("correlation_id") or None,
        routing_key=route.get("routing_key", ""),
        handle=message,
        unreadable=unreadable if isinstance(unreadable, str) else None,
        exchange=route.get("exchange", ""),
        redelivered=bool(route.get("redelivered")),
        headers=headers,
        properties=properties,
    )
