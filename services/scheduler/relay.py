"""The loop that publishes the history of jobs and attempts.

Promise: every transition is published to listeners at least once.
Mechanism: events are published with confirms and then marked; a crash in between publishes them again.
Failure: while the broker is away events wait in Postgres.
"""

from __future__ import annotations

from atemporal.broker import Link, Outgoing
from atemporal.messages import JobEvent
from atemporal.store import events
from atemporal.store.database import Database
from atemporal.telemetry import RELAYED

BATCH = 500


class RelayLoop:
    """Publishes every transition."""

    name = "relay"

    def __init__(self, database: Database, link: Link, *, interval_s: float) -> None:
        """Take the connections; none is open yet."""
        self._database = database
        self._link = link
        self._interval_s = interval_s

    def tick(self) -> float:
        """Relay one batch; a crash between the confirm and the commit relays it again."""
        self._link.connect()
        with self._database.begin() as tx:
            waiting = events.unrelayed(tx, BATCH)
            if waiting:
                self._link.publish([Outgoing.of(JobEvent.of(event)) for event in waiting])
                events.mark_relayed(tx, [event.id for event in waiting])
        RELAYED.inc(len(waiting))
        self._link.heartbeat()
        return 0.0 if len(waiting) == BATCH else self._interval_s

    def reset(self) -> None:
        """Drop the connection."""
        self._link.close()
