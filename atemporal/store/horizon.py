"""The horizon of the events: the number up to which none can come any more.

Promise: whoever has seen all events up to the horizon has missed none, while others write.
Mechanism: an event has its number before its transaction commits, so a smaller number may become
visible after a larger one. Two readings settle it: first the last number that was given out, then a
transaction's own number. Whatever has one of those numbers has a smaller transaction number than that,
because it changes a row of a job or attempt before it records the event. Once no smaller transaction
runs, nothing can come any more up to that number. Mostly none runs at once. (The upper end of a
snapshot would not do: it is behind the last transaction that is over; one that runs may have a larger
number.)
Failure: a transaction that stays open for more than a minute is not waited for, or a forgotten session
would keep all events from their readers; an event that it writes can then be missed by who has gone past
it. There is one reading at a time, so with such a session an event is shown after up to two minutes. A
process that has just started knows no reading of a minute ago: it begins with what is some minutes old,
and knows more as soon as the transactions of that moment are over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from sqlalchemy import Connection, text

from atemporal.store import events
from atemporal.store.database import server_time

# Not waited for when it is open longer; and how old an event is that is beyond doubt without a reading.
_PATIENCE_S = 60.0
_BEYOND_DOUBT = timedelta(minutes=2)

_NEWEST = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM events_id_seq")
_OWN = text("SELECT pg_current_xact_id()::text::bigint")
_OLDEST = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


def newest(tx: Connection) -> int:
    """The last number that was given out, perhaps to an event that never comes."""
    found: int = tx.scalar(_NEWEST) or 0
    return found


@dataclass(frozen=True)
class _Reading:
    """The last number, a transaction that got its own after it, and when both were read."""

    newest: int
    transaction: int
    at: float


class Horizon:
    """The horizon as one process knows it; safe to share between threads."""

    def __init__(self, *, fresh_s: float = 0.0, clock: Callable[[], float] = monotonic) -> None:
        """Take for how long an answer is good; `clock` gives seconds."""
        self._fresh_s = fresh_s
        self._clock = clock
        self._lock = threading.Lock()
        self._settled: int | None = None
        self._asked_at = float("-inf")
        self._open: _Reading | None = None

    def settled(self, tx: Connection) -> int:
        """The number up to which no event can come any more.

        Each statement of the transaction must have its own snapshot, as is usual. It should end soon: it
        gets a number, and so holds up whoever else asks.
        """
        with self._lock:
            if self._settled is None or self._clock() - self._asked_at >= self._fresh_s:
                self._settled = self._ask(tx)
                self._asked_at = self._clock()
            return self._settled

    def _ask(self, tx: Connection) -> int:
        last, known = newest(tx), self._settled
        if last == known:
            return last
        # In this order: what got a number before it was read has a smaller transaction number.
        reading = _Reading(last, tx.execute(_OWN).scalar_one(), self._clock())
        oldest = tx.execute(_OLDEST).scalar_one()
        if oldest >= reading.transaction:
            self._open = None
            return last
        before = self._open
        if before is None:
            self._open = reading
        elif oldest > before.transaction or reading.at - before.at > _PATIENCE_S:
            self._open, known = reading, before.newest
        if known is None:
            known = events.before(tx, server_time(tx) - _BEYOND_DOUBT, upto=last)
        return known
