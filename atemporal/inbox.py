"""The batch in hand of a loop that consumes one queue.

Promise: an outage of Postgres or EC2, however long, costs no message a delivery: what was received
stays in hand, unacknowledged, and is tried again by the next tick; while the database is away nothing
more is taken. Only a broken connection, or an error nobody expected, gives the messages back, and the
broker counts that.
Mechanism: `tick` distinguishes the two by the link, which is closed by its own failures and by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from atemporal.broker import Delivery, Link
from atemporal.errors import Kept, Retry, Unavailable, Unknown
from atemporal.metrics import counter, series
from atemporal.telemetry import logger

DEAD_LETTERS = counter(
    "atemporal_dead_letters_total", "Messages put into the dead letters, by their queue.", queue=()
)


class Inbox:
    """One queue's messages, a batch at a time; used by one thread."""

    def __init__(self, link: Link, queue: str, *, ping: Callable[[], None]) -> None:
        """Take the connection, not yet open; `ping` raises while the database is away."""
        self._link = link
        self._queue = queue
        self._ping = ping
        self._batch: list[Delivery] = []
        self._dead_lettered: set[object] = set()
        self._log = logger(queue)
        series(DEAD_LETTERS, queue=[queue])

    @contextmanager
    def tick(self) -> Iterator[None]:
        """Everything one tick does.

        Raises:
            Kept: in place of a `Retry` or `Unknown` that left the connection as it was.
        """
        try:
            self._link.heartbeat()
            yield
        except (Retry, Unknown) as error:
            if not self._link.open:
                raise
            service = error.service if isinstance(error, Unavailable) else None
            raise Kept(str(error), service) from error

    def take(self, limit: int, *, linger_s: float | None = None) -> Sequence[Delivery]:
        """Return the batch that is still in hand, or receive one of `limit` at most.

        `linger_s` is how long it waits for more after the first; None: as `Link.receive` does.
        What can not even be read is dead-lettered at once, and is not in what is returned.

        Raises:
            Unavailable: the database or the broker is away.
            Unknown: a dead letter was not confirmed.
        """
        if not self._batch:
            self._ping()
            linger = {} if linger_s is None else {"linger_s": linger_s}
            self._batch = self._link.receive(self._queue, limit=limit, **linger)
        for delivery in self._batch:
            if delivery.unreadable is not None:
                self.dead_letter(delivery, delivery.unreadable)
        return [one for one in self._batch if one.unreadable is None]

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Put a copy of one of the batch into the dead letters, once however often it is tried.

        Raises:
            Unavailable, Unknown: as `Link.publish`.
        """
        if delivery.handle.delivery_tag not in self._dead_lettered:
            self._log.warning("dead-lettered", id=delivery.message_id, reason=reason)
            self._link.dead_letter(delivery, reason)
            self._dead_lettered.add(delivery.handle.delivery_tag)
            DEAD_LETTERS.labels(self._queue).inc()

    def done(self) -> None:
        """Acknowledge the whole batch: its work is committed.

        Raises:
            Unavailable: the broker is away; the batch comes again.
        """
        batch, self._batch = self._batch, []
        self._dead_lettered.clear()
        self._link.ack(batch)

    def reset(self) -> None:
        """Give everything back: drop the connection."""
        self._batch = []
        self._dead_lettered.clear()
        self._link.close()
