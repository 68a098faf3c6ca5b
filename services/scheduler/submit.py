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
from atemporal.errors import Invalid, Unavailable, Unknown
from atemporal.inbox import Inbox
from atemporal.messages import SUBMIT, SubmitReply, decode
from atemporal.metrics import series
from atemporal.metrics.submits import SUBMITS
from atemporal.model import JobSpec, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from atemporal.store.jobs import Submission
from atemporal.telemetry import logger
from atemporal.userdata import check_fits

BATCH = 500
# As long as a batch of replies may take, one by one: the next messages wait behind them.
REPLIES_S = 10.0
_VIA = "amqp"

series(SUBMITS, via=[_VIA])


class SubmitLoop:
    """Takes job messages from other systems into Postgres, and replies."""

    name = "submit"

    def __init__(
        self, database: Database, link: Link, *, clock: Callable[[], float] = monotonic
    ) -> None:
        """Take the connections; none is open yet. `clock` gives seconds."""
        self._clock = clock
        self._database = database
        self._link = link
        self._inbox = Inbox(link, SUBMIT, ping=database.ping)
        self._log = logger(self.name)

    def tick(self) -> float:
        """Take one batch: dead-letter the bad, write the good in one transaction, reply to all.

        Nothing that can fail comes between the commit and the ack: a batch that comes again makes
        its jobs without a key again.
        """
        with self._inbox.tick():
            replies = self._take()
        for _, reply in replies:
            SUBMITS.labels(_VIA, reply.status).inc()
        self._answer([Outgoing.reply(reply, to) for to, reply in replies if to.reply_to])
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()

    def _answer(self, replies: Sequence[Outgoing]) -> None:
        """Send the replies together; if the link breaks over them, each alone.

        A broker can close the connection for one `reply_to`. The jobs are written: who hears nothing
        asks again, with the same key.
        """
        try:
            self._send(replies)
        except (Unavailable, Unknown) as error:
            self._log.warning("replies not sent together", error=str(error))
            until = self._clock() + REPLIES_S
            for reply in replies:
                if self._clock() >= until:
                    self._log.warning("the other replies are given up", first=reply.routing_key)
                    return
                try:
                    self._send([reply])
                except Unavailable:
                    return
                except Unknown as lost:
                    self._log.warning("reply not sent", to=reply.routing_key, error=str(lost))

    def _send(self, replies: Sequence[Outgoing]) -> None:
        for reply, why in self._link.publish(replies):
            self._log.warning("reply not delivered", to=reply.routing_key, error=why)

    def _take(self) -> list[tuple[Delivery, SubmitReply]]:
        good: list[tuple[Delivery, JobSpec]] = []
        replies: list[tuple[Delivery, SubmitReply]] = []
        for delivery in self._inbox.take(BATCH):
            try:
                good.append((delivery, _spec(delivery)))
            except Invalid as error:
                replies.append((delivery, self._reject(delivery, error.fields)))
        if good:
            replies += self._write(good)
        self._inbox.done()
        return replies

    def _reject(
        self, delivery: Delivery, errors: Mapping[str, str], job_id: UUID | None = None
    ) -> SubmitReply:
        reason = "; ".join(f"{name}: {why}" for name, why in errors.items())
        self._inbox.dead_letter(delivery, reason)
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


def _spec(delivery: Delivery) -> JobSpec:
    fields = dict(decode(SUBMIT, delivery.body).job)
    if fields.get("key") is None:
        fields["key"] = delivery.message_id
    spec = parse_spec(fields)
    check_fits(spec)
    return spec
