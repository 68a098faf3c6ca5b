"""Another system that publishes messages and hears replies, and the loop that takes them.

The other system is plain pika and JSON, nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import pika

from atemporal.messages import COMMANDS

# A tick waits about a second for a message; on a busy machine the first of them may see none.
TICKS = 30


class Loop(Protocol):
    """What takes the messages."""

    def tick(self) -> object:
        """Take one batch."""


def until(loop: Loop, done: Callable[[], bool]) -> None:
    """Let the loop tick until so.

    Raises:
        AssertionError: `TICKS` did not bring it.
    """
    for _ in range(TICKS):
        loop.tick()
        if done():
            return
    raise AssertionError(f"it takes more than {TICKS} ticks")


def length(url: str, queue: str) -> int:
    """How many messages wait there; those in somebody's hand are not counted."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)
    finally:
        connection.close()


class Publisher:
    """A connection with a queue for its replies; used by one thread."""

    def __init__(self, url: str) -> None:
        """Connect, and declare the queue."""
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        self.last: pika.BasicProperties | None = None
        self.replies = self._channel.queue_declare("", exclusive=True).method.queue

    @property
    def asking(self) -> dict[str, str]:
        """The properties of a message that wants a reply."""
        return {"reply_to": self.replies, "correlation_id": "c-1"}

    def send(self, body: Any, message_id: str | None = None, key: str = "job.submit") -> None:
        """Publish what is JSON, or bytes as they are; it is in the queue when this returns."""
        properties = pika.BasicProperties(message_id=message_id, delivery_mode=2, **self.asking)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_with(properties, raw, key)

    def send_with(
        self, properties: pika.BasicProperties, body: bytes = b"{}", key: str = "job.submit"
    ) -> None:
        """Publish with these properties."""
        self._channel.basic_publish(COMMANDS, key, body, properties, mandatory=True)

    def reply(self, loop: Loop) -> dict[str, Any]:
        """The next reply; `loop` ticks until there is one.

        Raises:
            AssertionError: `TICKS` brought none.
        """
        for _ in range(TICKS):
            got, properties, body = self._channel.basic_get(self.replies, auto_ack=True)
            if got is not None:
                assert properties.correlation_id == "c-1"
                self.last = properties
                reply: dict[str, Any] = json.loads(body)
                return reply
            loop.tick()
        raise AssertionError(f"no reply within {TICKS} ticks")

    def close(self) -> None:
        """Close the connection; its queue goes with it."""
        self._connection.close()
