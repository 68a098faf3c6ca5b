"""The loop that publishes the history of jobs and attempts.

Promise: every transition is published to listeners at least once; a listener whose queue is full or
broken costs the others nothing.
Mechanism: events are published with confirms and then marked; a crash in between publishes them again.
Failure: while the broker is away events wait in Postgres. What a listener's queue refuses is lost to
that listener: it is counted and told.
"""

from __future__ import annotations

from collections.abc import Sequence

from atemporal.broker import Link, Outgoing
from atemporal.messages import JobEvent
from atemporal.metrics import counter
from atemporal.store import events
from atemporal.store.database import Database
from atemporal.telemetry import logger

RELAYED = counter(
    "atemporal_events_relayed_total", "Lifecycle events that the broker has confirmed."
)
REFUSED = counter(
    "atemporal_events_refused_total", "Lifecycle events that a listener's queue did not take."
)

BATCH = 500
# A tick keeps the connection alive too, which the broker ends after a minute without a sign.
_IDLE_S = 10.0


class RelayLoop:
    """Publishes every transition."""

    name = "relay"

    def __init__(self, database: Database, link: Link, *, interval_s: float) -> None:
        """Take the connections; none is open yet.

        It looks every `interval_s` seconds while there are events, and half as often otherwise, if that
        is once in ten seconds at least.
        """
        self._database = database
        self._link = link
        self._interval_s = interval_s
        self._idle_s = max(interval_s, min(2 * interval_s, _IDLE_S))
        self._log = logger(self.name)

    def tick(self) -> float:
        """Relay one batch; a crash between the confirm and the commit relays it again."""
        self._link.connect()
        with self._database.begin() as tx:
            waiting = [JobEvent.of(event) for event in events.unrelayed(tx, BATCH)]
            if waiting:
                refused = self._link.publish([Outgoing.of(event) for event in waiting])
                events.mark_relayed(tx, [event.event_id for event in waiting])
                self._tell(refused)
        RELAYED.inc(len(waiting))
        self._link.heartbeat()
        if len(waiting) == BATCH:
            return 0.0
        # Where nothing happens it was half of what an idle scheduler did.
        return self._interval_s if waiting else self._idle_s

    def _tell(self, refused: Sequence[tuple[Outgoing, str]]) -> None:
        if refused:
            REFUSED.inc(len(refused))
            message, why = refused[0]
            self._log.warning(
                "a listener's queue refused events",
                count=len(refused),
                first=message.message_id,
                error=why,
            )

    def reset(self) -> None:
        """Drop the connection."""
        self._link.close()
