"""The loop that publishes the history of jobs and attempts.

Promise: every transition is published to listeners at least once; a listener whose queue is full or
broken costs the others nothing.
Mechanism: events are published with confirms and then marked; a crash in between publishes them again.
Failure: while the broker is away events wait in Postgres. What a listener's queue refuses is lost to
that listener: it is counted and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from atemporal.broker import Link, Outgoing
from atemporal.messages import JobEvent
from atemporal.metrics import Aggregate, counter, gauge, histogram
from atemporal.model import PublicEvent
from atemporal.store import events
from atemporal.store.database import Database
from atemporal.telemetry import logger
from atemporal.waiting import Phase

RELAYED = counter(
    "atemporal_events_relayed_total", "Lifecycle events that the broker has confirmed."
)
REFUSED = counter(
    "atemporal_events_refused_total", "Lifecycle events that a listener's queue did not take."
)
WAITING = gauge(
    "atemporal_outbox_events",
    "Events that the broker has not confirmed yet; 10,000 stands for that many or more.",
    aggregate=Aggregate.MAX,
)
OLDEST = gauge(
    "atemporal_outbox_oldest_seconds",
    "How long ago the oldest event happened that the broker has not confirmed yet, or 0.",
    aggregate=Aggregate.MAX,
)
ATTEMPT_DURATION = histogram(
    "atemporal_attempt_duration_seconds",
    "Duration of the phases that attempts came through.",
    buckets=(0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 14_400, 86_400),
    phase=[Phase.LAUNCH, Phase.BOOT, Phase.PULL, Phase.HOLD, Phase.RUN, Phase.STOP],
)

# The event that a phase ends with, and the instants of its beginning and its end.
_PHASES = {
    "attempt.warming": (Phase.LAUNCH, "created_at", "launched_at"),
    "attempt.booted": (Phase.BOOT, "launched_at", "booted_at"),
    "attempt.ready": (Phase.PULL, "booted_at", "ready_at"),
    "attempt.running": (Phase.HOLD, "ready_at", "running_at"),
    "attempt.exited": (Phase.RUN, "running_at", "exited_at"),
    "attempt.closed": (Phase.STOP, "exited_at", "closed_at"),
}

BATCH = 500
COUNT_AGAIN_S = 15.0
# A tick keeps the connection alive too, which the broker ends after a minute without a sign.
_IDLE_S = 10.0


class RelayLoop:
    """Publishes every transition."""

    name = "relay"

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        interval_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the connections; none is open yet.

        It looks every `interval_s` seconds while there are events, and half as often otherwise, if that
        is once in ten seconds at least.
        """
        self._database = database
        self._link = link
        self._interval_s = interval_s
        self._idle_s = max(interval_s, min(2 * interval_s, _IDLE_S))
        self._clock = clock
        self._count_at = 0.0
        self._log = logger(self.name)

    def tick(self) -> float:
        """Relay one batch; a crash between the confirm and the commit relays it again."""
        # Before the broker is asked for: while it is away, this is what grows.
        self._count()
        self._link.connect()
        with self._database.begin() as tx:
            waiting = events.unrelayed(tx, BATCH)
            if waiting:
                refused = self._link.publish([Outgoing.of(JobEvent.of(one)) for one in waiting])
                events.mark_relayed(tx, [one.id for one in waiting])
                self._tell(refused)
        RELAYED.inc(len(waiting))
        _observe(waiting)
        self._link.heartbeat()
        if len(waiting) == BATCH:
            return 0.0
        # Where nothing happens it was half of what an idle scheduler did.
        return self._interval_s if waiting else self._idle_s

    def _count(self) -> None:
        if self._clock() >= self._count_at:
            with self._database.begin() as tx:
                waiting, oldest_s = events.outbox(tx)
            WAITING.set(waiting)
            OLDEST.set(oldest_s)
            self._count_at = self._clock() + COUNT_AGAIN_S

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


def _observe(relayed: Iterable[PublicEvent]) -> None:
    """Measure the phases that ended with these events; a repeated event is measured again.

    A phase that an attempt did not come through, or that passed unseen, has no beginning or no end.
    Without an instance there is none to stop.
    """
    for event in relayed:
        if ended := _PHASES.get(event.type):
            phase, begin, end = ended
            needed = {begin, end} | ({"launched_at"} if phase is Phase.STOP else set())
            if needed <= event.times.keys():
                seconds = (event.times[end] - event.times[begin]).total_seconds()
                ATTEMPT_DURATION.labels(phase).observe(max(0.0, seconds))
