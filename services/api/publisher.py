"""Notifications for the reaper: small messages that save it the wait for its next sweep.

Promise: `put` costs a caller nothing, whatever the broker does: it never waits and never fails. What
is put is published in order and in batches, again after a failure (readers drop duplicates).
Failure: while the broker is away messages wait, up to `BOUND` of them; what comes beyond, or is left
when the process ends, is dropped, because the reaper's sweep finds the same work in Postgres.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice

from atemporal.broker import Link, Outgoing
from atemporal.daemon import Runner
from atemporal.messages import Message
from atemporal.telemetry import logger

BOUND = 10_000
BATCH = 500
_IDLE_S = 1.0


class Publisher:
    """A queue in memory and the loop that empties it into the broker."""

    name = "publish"

    def __init__(self, link: Link) -> None:
        """Take the connection; it is not open yet."""
        self._link = link
        self._waiting: deque[Outgoing] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._runner = Runner(self, self._stop)
        self._log = logger(self.name)
        self._overflowing = False

    def put(self, message: Message) -> None:
        """Queue one message; dropped when too many wait."""
        outgoing = Outgoing.of(message)
        with self._changed:
            overflows = len(self._waiting) >= BOUND
            if not overflows:
                self._waiting.append(outgoing)
                self._changed.notify_all()
            if overflows and not self._overflowing:
                self._log.warning(
                    "too many notifications wait for the broker: the sweep will do the rest"
                )
            self._overflowing = overflows

    def start(self) -> None:
        """Begin to publish."""
        self._runner.start()

    def stop(self, within_s: float) -> bool:
        """Publish what waits, as far as that goes in half of the time; return whether it all went."""
        with self._changed:
            emptied = self._changed.wait_for(lambda: not self._waiting, within_s / 2)
            self._stop.set()
            self._changed.notify_all()
        return self._runner.join(within_s / 2) and emptied

    def tick(self) -> float:
        """Publish one batch, or wait about a second for one."""
        self._link.connect()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stop.is_set(), _IDLE_S)
            batch = list(islice(self._waiting, BATCH))
        self._link.publish(batch)
        self._link.heartbeat()
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._changed.notify_all()
        return 0.0

    def reset(self) -> None:
        """Drop the connection; what is not confirmed stays queued."""
        self._link.close()
