"""The loop that makes jobs of other systems' messages.

Promise: a job message becomes one job, however often it comes; what is no job is refused with the
reason, in the reply and in the dead letters.
Failure: without Postgres no more messages are taken, and those in hand are kept, however long it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from uuid import UUID

from atemporal.broker import Delivery, Link, Outgoing
from atemporal.errors import Invalid
from atemporal.inbox import Inbox
from atemporal.messages import SUBMIT, SubmitReply, decode
from atemporal.metrics import series
from atemporal.metrics.submits import SUBMITS
from atemporal.model import JobSpec, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from atemporal.store.jobs import Submission
from atemporal.telemetry import logger
from atemporal.terms import ANY_TERMS, Terms
from atemporal.userdata import check_fits
from services.scheduler.replies import Replies

BATCH = 500
_VIA = "amqp"

series(SUBMITS, via=[_VIA])


class SubmitLoop:
    """Takes job messages from other systems into Postgres, and replies."""

    name = "submit"

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        terms: Terms = ANY_TERMS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the connections; none is open yet. `clock` gives seconds."""
        self._database = database
        self._terms = terms
        self._inbox = Inbox(link, SUBMIT, ping=database.ping)
        self._replies = Replies(link, logger(self.name), clock=clock)

    def tick(self) -> float:
        """Take one batch: dead-letter the bad, write the good in one transaction, reply to all.

        Nothing that can fail comes between the commit and the ack: a batch that comes again makes
        its jobs without a key again.
        """
        with self._inbox.tick():
            replies = self._take()
        for _, reply in replies:
            SUBMITS.labels(_VIA, reply.status).inc()
        self._replies.send([Outgoing.reply(reply, to) for to, reply in replies if to.reply_to])
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()

    def _take(self) -> list[tuple[Delivery, SubmitReply]]:
        good: list[tuple[Delivery, JobSpec]] = []
        replies: list[tuple[Delivery, SubmitReply]] = []
        for delivery in self._inbox.take(BATCH):
            try:
                good.append((delivery, self._spec(delivery)))
            except Invalid as error:
                replies.append((delivery, self._reject(delivery, error.fields)))
        if good:
            replies += self._write(good)
        self._inbox.done()
        return replies

    def _reject(
        self, delivery: Delivery, errors: Mapping[str, str], job_id: UUID | None = None
    ) -> SubmitReply:
        self._inbox.dead_letter(delivery, errors)
        return SubmitReply(status="rejected", id=job_id, errors=dict(errors))

    def _write(
        self, good: Sequence[tuple[Delivery, JobSpec]]
    ) -> list[tuple[Delivery, SubmitReply]]:
        with self._database.begin() as tx:
            written = jobs.submit(tx, [spec for _, spec in good], actor="amqp")
            # Dead-lettered before the commit: a failure of that undoes the jobs beside it.
            return [
                (delivery, self._reply(delivery, spec, submission))
                for (delivery, spec), submission in zip(good, written, strict=True)
            ]

    def _reply(self, delivery: Delivery, spec: JobSpec, submission: Submission) -> SubmitReply:
        if submission.differs:
            why = jobs.describe_difference(spec.key, submission)
            return self._reject(delivery, {"key": why}, submission.job_id)
        status = "accepted" if submission.created else "duplicate"
        return SubmitReply.model_validate(
            {"status": status, "id": submission.job_id, "time": submission.run_at}
        )

    def _spec(self, delivery: Delivery) -> JobSpec:
        fields = dict(decode(SUBMIT, delivery.body).job)
        if fields.get("key") is None:
            fields["key"] = delivery.message_id
        spec = parse_spec(fields)
        check_fits(spec)
        self._terms.check(spec)
        return spec
