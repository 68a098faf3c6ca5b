"""The batch in hand of a loop that consumes one queue.

Promise: an outage of Postgres or EC2, however long, costs no message a delivery: what was received
stays in hand, unacknowledged, and is tried again by the next tick; while the database is away nothing
more is taken. Only a broken connection, or an error nobody expected, gives the messages back, and the
broker counts that.
Mechanism: `tick` distinguishes the two by the link, which is closed by its own failures and by no other.
How long a batch is in hand is a metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

from atemporal.broker import Delivery, Link
from atemporal.errors import Kept, Retry, Unavailable, Unknown
from atemporal.metrics import Aggregate, gauge, series
from atemporal.telemetry import logger

OLDEST_UNACKED = gauge(
    "atemporal_oldest_unacked_seconds",
    "How long the oldest message that this process has not acknowledged has been in its hand, or 0.",
    aggregate=Aggregate.MAX,
    queue=(),
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
        self._received_at = 0.0
        series(OLDEST_UNACKED, queue=[queue])
        OLDEST_UNACKED.labels(queue).set_function(self._in_hand_s)

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

    def hold(self, limit: int, *, linger_s: float | None = None) -> Sequence[Delivery]:
        """Return the batch that is still in hand, or receive one of `limit` at most.

        `linger_s` is how long it waits for more after the first; None: as `Link.receive` does.

        Raises:
            Unavailable: the database or the broker is away.
        """
        if not self._batch:
            self._ping()
            linger = {} if linger_s is None else {"linger_s": linger_s}
            self._batch = self._link.receive(self._queue, limit=limit, **linger)
            self._received_at = monotonic()
        return self._batch

    def _in_hand_s(self) -> float:
        """Asked by whoever reads the metrics: while a tick hangs, nobody else could say it."""
        return monotonic() - self._received_at if self._batch else 0.0

    def take(self, limit: int, *, linger_s: float | None = None) -> Sequence[Delivery]:
        """Return as `hold` does what can be read; the rest is dead-lettered at once.

        Raises:
            Unavailable: the database or the broker is away.
            Unknown: a dead letter was not confirmed.
        """
        batch = self.hold(limit, linger_s=linger_s)
        for delivery in batch:
            if delivery.unreadable is not None:
                self._dead_letter(delivery, delivery.unreadable, {})
        return [one for one in batch if one.unreadable is None]

    def dead_letter(self, delivery: Delivery, errors: Mapping[str, str]) -> None:
        """Put a copy of one of the batch into the dead letters, once however often it is tried.

        `errors` says for each bad field what is wrong with it.

        Raises:
            Unavailable, Unknown: as `Link.publish`.
        """
        reason = "; ".join(f"{name}: {why}" for name, why in errors.items())
        self._dead_letter(delivery, reason, errors)

    def _dead_letter(self, delivery: Delivery, reason: str, errors: Mapping[str, str]) -> None:
        if delivery.handle.delivery_tag not in self._dead_lettered:
            self._log.warning("dead-lettered", id=delivery.message_id, reason=reason)
            self._link.dead_letter(delivery, reason, errors)
            self._dead_lettered.add(delivery.handle.delivery_tag)

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
