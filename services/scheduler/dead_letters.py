"""The loop that keeps dead letters, and sends again those that an operator wants sent again.

Promise: a letter is acknowledged once its row is committed: a crash in between delivers it again, and
it is one row all the same. A letter that is to be sent again is marked as sent once the broker has
confirmed it: a crash in between sends it twice, and both have the same message id.
Failure: without Postgres nothing is taken, and what is in hand is kept. Without the broker, or while a
queue refuses messages, what is to be sent again stays so. No letter's content can fail the loop: what
can not be read of it is left out (`atemporal.broker.dead_letters`).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from atemporal.broker import DEAD, Link
from atemporal.broker.dead_letters import again, read
from atemporal.errors import Unavailable, Unknown
from atemporal.inbox import Inbox
from atemporal.metrics import Aggregate, counter, gauge
from atemporal.model.dead_letter import QUEUES, DeadReason
from atemporal.store import dead_letters
from atemporal.store.database import Database
from atemporal.telemetry import logger

DEAD_LETTERS = counter(
    "atemporal_dead_letters_total",
    "Dead letters that were kept, by the queue that their message came from.",
    queue=[*QUEUES, "other"],
    reason=DeadReason,
)
REPLAYED = counter(
    "atemporal_dead_letters_replayed_total", "Dead letters whose replay the broker has confirmed."
)
UNDECIDED = gauge(
    "atemporal_dead_letters_undecided",
    "Dead letters that nobody has sent again or dropped; 10,000 stands for that many or more.",
    aggregate=Aggregate.MAX,
)

# A body can have as many bytes as the broker allows.
BATCH = 50
COUNT_AGAIN_S = 15.0


class DeadLetterLoop:
    """Takes dead letters into Postgres, and replays."""

    name = "dead-letters"

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        interval_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the connections; none is open yet. `clock` gives seconds."""
        self._database = database
        self._link = link
        self._interval_s = interval_s
        self._clock = clock
        self._count_at = clock()
        self._inbox = Inbox(link, DEAD, ping=database.ping)
        self._tried = False
        self._log = logger(self.name)

    def tick(self) -> float:
        """Keep one batch of letters, then send a batch of replays."""
        with self._inbox.tick():
            kept = self._keep()
            sent = self._replay()
        self._count()
        return 0.0 if kept or sent else self._interval_s

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again, and the broker says so."""
        self._tried = False
        self._inbox.reset()

    def _keep(self) -> int:
        batch = self._inbox.hold(BATCH)
        if batch:
            # The answer to a commit can be lost, and the batch is still in hand.
            tried, self._tried = self._tried, True
            with self._database.begin() as tx:
                new = dead_letters.keep(tx, [read(one) for one in batch], tried=tried)
            self._tried = False
            for letter in new:
                queue = letter.queue if letter.queue in QUEUES else "other"
                DEAD_LETTERS.labels(queue, letter.reason).inc()
            self._inbox.done()
        return len(batch)

    def _replay(self) -> int:
        """Send a batch to each queue: one that refuses is no reason to send to the others again."""
        sent, failure = 0, None
        with self._database.begin() as tx:
            queues = dead_letters.queues_to_replay_to(tx)
        for queue in queues:
            try:
                sent += self._replay_to(queue)
            except (Unavailable, Unknown) as error:
                failure = error
        if failure is not None:
            raise failure
        return sent

    def _replay_to(self, queue: str) -> int:
        with self._database.begin() as tx:
            letters = dead_letters.to_replay(tx, queue, BATCH)
            if letters:
                self._link.publish([again(letter) for letter in letters])
                dead_letters.mark_replayed(tx, [letter.id for letter in letters])
        for letter in letters:
            REPLAYED.inc()
            self._log.info("replayed", letter=str(letter.id), queue=letter.queue)
        return len(letters)

    def _count(self) -> None:
        if self._clock() >= self._count_at:
            with self._database.begin() as tx:
                UNDECIDED.set(dead_letters.undecided(tx))
            self._count_at = self._clock() + COUNT_AGAIN_S
