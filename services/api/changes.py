"""What people change: one way for the calls and for the page.

Promise: whoever asks, by HTTP or on the page, the same guard decides, the same metrics count it, the
history and the log name who it was, and a daemon that has to act on it is notified once it is committed.
`SCOPES` says what a token needs for each.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final, TypeVar
from uuid import UUID

from atemporal.messages import JobCancel
from atemporal.metrics import series
from atemporal.metrics.endings import ENDED
from atemporal.metrics.fires import count_fire
from atemporal.model import Job
from atemporal.model.dead_letter import RecordedLetter
from atemporal.states import Reason
from atemporal.store import dead_letters, jobs, schedules
from atemporal.store.database import Database
from atemporal.store.rows import Transaction
from atemporal.store.schedules import Changed
from atemporal.telemetry import logger
from services.api.publisher import Publisher

series(ENDED, reason=[Reason.CANCELLED])

SCOPES: Final = MappingProxyType(
    {
        "cancel": ("cancel",),
        "retry": ("cancel",),
        "replay": ("submit",),
        "drop": ("cancel",),
        # It cancels jobs that are made ahead.
        "pause": ("submit", "cancel"),
        "resume": ("submit",),
    }
)

T = TypeVar("T")


class Changes:
    """The changes, each in a transaction of its own."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        """Take where they are written down, and who is notified."""
        self._database = database
        self._publisher = publisher
        self._jobs = logger("jobs")
        self._letters = logger("dead-letters")
        self._schedules = logger("schedules")

    def cancel(self, job_id: UUID, actor: str) -> Job:
        """Finish a job as cancelled; its instance is ended. Again: no change.

        Raises:
            NotFound: there is no such job.
            Conflict: it has finished otherwise.
        """
        with self._database.begin() as tx:
            ref = jobs.cancel(tx, job_id, actor=actor)
            job = jobs.get(tx, job_id)
        if ref is not None:
            self._publisher.put(JobCancel.of(ref))
            ENDED.labels(Reason.CANCELLED).inc()
        self._jobs.info("cancelled", job=str(job_id), actor=actor)
        return job

    def retry(self, job_id: UUID, actor: str) -> Job:
        """Schedule a finished job for now, with fresh budgets.

        Raises:
            NotFound: there is no such job.
            Conflict: it has not finished.
        """
        with self._database.begin() as tx:
            jobs.retry(tx, job_id, actor=actor)
            job = jobs.get(tx, job_id)
        self._jobs.info("retried", job=str(job_id), actor=actor)
        return job

    def replay(self, letter_id: UUID, actor: str) -> RecordedLetter:
        """Have a dead letter sent again by a scheduler, once. Again: no change.

        Raises:
            NotFound: there is no such letter.
            Conflict: it was dropped, or can not be sent.
        """
        with self._database.begin() as tx:
            letter = dead_letters.replay(tx, letter_id, actor=actor)
        state = letter.state.value
        self._letters.info("replay", letter=str(letter_id), actor=actor, state=state)
        return letter

    def drop(self, letter_id: UUID, actor: str) -> RecordedLetter:
        """Give a dead letter's message up. Again: no change.

        Raises:
            NotFound: there is no such letter.
            Conflict: it was sent again.
        """
        with self._database.begin() as tx:
            letter = dead_letters.drop(tx, letter_id, actor=actor)
        self._letters.info("dropped", letter=str(letter_id), actor=actor)
        return letter

    def pause(self, name: str, actor: str, show: Callable[[Transaction], T]) -> T:
        """Pause a schedule, and return what `show` makes of it then. Again: no change.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.begin() as tx:
            done = schedules.pause(tx, name, actor=actor)
            shown = show(tx)
        self.settle(done, "paused", actor)
        return shown

    def resume(self, name: str, actor: str, show: Callable[[Transaction], T]) -> T:
        """Resume a schedule, and return what `show` makes of it then. Again: no change.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.begin() as tx:
            done = schedules.resume(tx, name)
            shown = show(tx)
        self.settle(done, "resumed", actor)
        return shown

    def settle(self, changed: Changed, what: str, actor: str) -> None:
        """What follows from a schedule's change that is committed: notifications, metrics, the log."""
        for ref in changed.ended:
            self._publisher.put(JobCancel.of(ref))
            ENDED.labels(Reason.CANCELLED).inc()
        for fire in changed.passed_over:
            count_fire(fire)
        name, ended = changed.schedule.name, len(changed.ended)
        self._schedules.info(what, schedule=name, actor=actor, ended=ended)
