"""Messages on their way out and in, with what the broker needs to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from kombu.message import Message as Received

from atemporal.messages import Message, encode

# A pseudo-queue of the asker's channel: RabbitMQ 3.10 and 4.0 deliver to it and return the message too.
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"


@dataclass(frozen=True)
class Outgoing:
    """A message to publish, at an exchange, or with "" to a queue by its name.

    With `required`, it is a failure that no queue takes the message or that one refuses it; otherwise
    the others that take it count, and it is told. With `mandatory` the broker tells what no queue takes.
    """

    routing_key: str
    body: bytes
    message_id: str
    exchange: str
    required: bool = True
    mandatory: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None

    @classmethod
    def of(cls, message: Message) -> Outgoing:
        """A message on its way to whom it is for; one that has a queue must get there."""
        must = message.queue is not None
        return cls(
            message.routing_key,
            encode(message),
            message.message_id,
            message.exchange,
            required=must,
            mandatory=must,
        )

    @classmethod
    def reply(cls, message: Message, to: Delivery) -> Outgoing:
        """A reply, for the queue that the asker named; both may be gone by now."""
        reply_to = to.reply_to or ""
        return cls(
            reply_to,
            encode(message),
            message_id=str(uuid4()),
            exchange="",
            required=False,
            mandatory=not reply_to.startswith(DIRECT_REPLY_TO),
            correlation_id=to.correlation_id or to.message_id,
        )


@dataclass(frozen=True)
class Delivery:
    """A message received; its body is as it came.

    `unreadable` says why its properties could not be read; then there are none. `redelivered` is False
    when it surely comes for the first time. `properties` are all that AMQP has, but for the headers.
    """

    body: bytes
    message_id: str | None
    reply_to: str | None
    correlation_id: str | None
    routing_key: str
    handle: Received = field(repr=False)
    unreadable: str | None = None
    exchange: str = ""
    redelivered: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    properties: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
