"""Jobs claimed in a transaction of their own, which ends when the broker has their messages.

Promise: a message leaves when its job is due, by the database's clock, and not before; the jobs are
queued once every message is confirmed, and are scheduled as before when that fails.
Mechanism: jobs are claimed a little before their time and their messages wait here for it, so that
between the time and the message there is no statement. The database's clock is read just before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from atemporal.broker import Link, Outgoing
from atemporal.messages import JobDue
from atemporal.store import due
from atemporal.store.database import Database
from atemporal.store.due import Claimed
from atemporal.store.rows import Transaction
from services.scheduler.backlog import Given

# What a floating-point number of seconds since the epoch can be wrong by, and more.
_ROUNDING_S = 1e-6
_ROUTING_KEY = JobDue.type_name()


class Batch:
    """One claim on its way: made, `publish`ed, and then either `commit`ted or `abandon`ed."""

    def __init__(
        self,
        database: Database,
        link: Link,
        claim: Callable[[Transaction], Given],
        *,
        clock: Callable[[], float],
    ) -> None:
        """Begin a transaction and claim; `clock` is the time that `link.wait` goes by, in seconds."""
        self._link = link
        self._clock = clock
        self.begun_at = clock()
        with ExitStack() as transaction:
            self._tx = transaction.enter_context(database.begin())
            self.given = claim(self._tx)
            self._jobs = self.given.jobs
            self._transaction = transaction.pop_all()

    def __len__(self) -> int:
        """How many jobs it has."""
        return len(self._jobs)

    def publish(self, *, ahead: bool) -> None:
        """Send every message at its time; `ahead` says that some may have to wait for it.

        Raises:
            Unavailable, Unknown: as `Link.send`.
        """
        if not self._jobs:
            return
        if not ahead:
            self._send(self._jobs)
            return
        now = due.clock(self._tx)
        # Read after the answer came: so a message may be later than its time, never earlier.
        behind = self._clock() - now + _ROUNDING_S
        waiting = deque(sorted(self._jobs, key=lambda job: max(job.due_at, now)))
        while waiting:
            ready = []
            reached = self._clock() - behind
            while waiting and waiting[0].due_at <= reached:
                ready.append(waiting.popleft())
            if ready:
                self._send(ready)
            else:
                self._link.wait(waiting[0].due_at + behind)

    def commit(self) -> None:
        """Wait until the broker has confirmed every message, and commit.

        Raises:
            Unknown: not all were confirmed; the jobs are scheduled as before.
            Unavailable: the database is away; as for `Database.begin`.
        """
        with self._transaction:
            if self._jobs:
                self._link.settle(self._sent)

    def abandon(self, error: BaseException) -> None:
        """Roll back, because of an error elsewhere: the jobs are scheduled as before."""
        self._transaction.__exit__(type(error), error, error.__traceback__)

    def _send(self, jobs: Sequence[Claimed]) -> None:
        self._sent = self._link.send(
            [Outgoing(_ROUTING_KEY, job.body, job.message_id, JobDue.exchange) for job in jobs]
        )
