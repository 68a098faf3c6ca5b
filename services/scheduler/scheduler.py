"""What the scheduler does, as three loops.

Promise: a due job is handed to the broker as soon as it is due and never before; a job message
from another system becomes one job, however often it comes; every transition is told to listeners
at least once.
Mechanism: due jobs are claimed in batches, published with confirms, and only then committed: a crash
in between leaves them scheduled, and the message it may have sent finds nothing to do. Asleep, the
due loop wakes for the next due time or for a NOTIFY, and looks once per poll interval anyhow.
Failure: without the broker nothing is claimed; without Postgres no more messages are taken, and those
in hand are kept, however long it lasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

from atemporal.broker import SUBMIT, Delivery, Link, Outgoing
from atemporal.errors import Invalid, Unavailable, Unknown
from atemporal.inbox import Inbox
from atemporal.messages import JobDue, JobEvent, SubmitReply, decode_submit, encode
from atemporal.model import AttemptRef, Event, JobSpec, parse_spec
from atemporal.store import events, jobs
from atemporal.store.database import Database, NotificationListener
from atemporal.store.jobs import Submission
from atemporal.telemetry import DUE_EMITTED, OLDEST_DUE, RELAYED, SUBMITS, logger
from atemporal.userdata import check_fits

ACTOR = "scheduler"
CLAIM_BATCH = 500
SUBMIT_BATCH = 200
RELAY_BATCH = 500
# What is due and was not given to us is locked by another scheduler: let it commit.
_LOCKED_S = 0.05


class DueLoop:
    """Claims what is due and emits it."""

    name = "due"

    def __init__(self, database: Database, link: Link, *, poll_interval_s: float) -> None:
        """Take the connections; none is open yet."""
        self._database = database
        self._link = link
        self._poll_interval_s = poll_interval_s
        self._listener: NotificationListener | None = None

    def tick(self) -> float:
        """Emit one batch; when there is no more, sleep until there may be."""
        # Listening begins before looking: what is submitted in between is not missed.
        if self._listener is None:
            self._listener = self._database.listen()
        # Before the broker is asked for: while it is away, this is what grows.
        before = self._next_due_in()
        self._link.connect()
        with self._database.begin() as tx:
            due = jobs.claim_due(tx, CLAIM_BATCH, actor=ACTOR)
            self._link.publish([_due_message(ref) for ref in due])
        DUE_EMITTED.inc(len(due))
        if len(due) == CLAIM_BATCH:
            return 0.0
        next_in = self._next_due_in()
        sleep = self._poll_interval_s if next_in is None else next_in
        locked = not due and before is not None and before <= 0
        self._link.heartbeat()
        self._listener.wait(min(max(sleep, _LOCKED_S if locked else 0.0), self._poll_interval_s))
        return 0.0

    def _next_due_in(self) -> float | None:
        with self._database.begin() as tx:
            next_in = jobs.next_due_in(tx)
        OLDEST_DUE.set(max(0.0, -next_in) if next_in is not None else 0.0)
        return next_in

    def reset(self) -> None:
        """Drop both connections."""
        self._link.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class SubmitLoop:
    """Takes job messages from other systems into Postgres, and answers them."""

    name = "submit"

    def __init__(self, database: Database, link: Link) -> None:
        """Take the connections; none is open yet."""
        self._database = database
        self._link = link
        self._inbox = Inbox(link, SUBMIT, ping=database.ping)
        self._log = logger(self.name)

    def tick(self) -> float:
        """Take one batch: bury the bad ones, write the good ones in one transaction, answer all.

        Nothing that can fail comes between the commit and the ack: a batch that comes again makes
        its jobs without a key again.
        """
        with self._inbox.tick():
            answers = self._take()
        for _, answer in answers:
            SUBMITS.labels("amqp", answer.status).inc()
        try:
            self._link.publish([_reply(one, answer) for one, answer in answers if one.reply_to])
        except (Unavailable, Unknown) as error:
            # The link is closed now; the jobs are written, and asking again tells what became of them.
            self._log.warning("replies not sent", error=str(error))
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()

    def _take(self) -> list[tuple[Delivery, SubmitReply]]:
        good: list[tuple[Delivery, JobSpec]] = []
        answers: list[tuple[Delivery, SubmitReply]] = []
        for delivery in self._inbox.take(SUBMIT_BATCH):
            try:
                good.append((delivery, _spec(delivery)))
            except Invalid as error:
                answers.append((delivery, self._reject(delivery, error.fields)))
        if good:
            answers += self._write(good)
        self._inbox.done()
        return answers

    def _reject(
        self, delivery: Delivery, errors: Mapping[str, str], job_id: UUID | None = None
    ) -> SubmitReply:
        reason = "; ".join(f"{name}: {why}" for name, why in errors.items())
        self._log.warning("job message rejected", id=delivery.message_id, reason=reason)
        self._inbox.dead_letter(delivery, reason)
        return SubmitReply(status="rejected", id=job_id, errors=dict(errors))

    def _write(
        self, good: Sequence[tuple[Delivery, JobSpec]]
    ) -> list[tuple[Delivery, SubmitReply]]:
        with self._database.begin() as tx:
            written = jobs.submit(tx, [spec for _, spec in good], actor="amqp")
            # Buried before the commit: a burial that fails undoes the jobs beside it.
            return [
                (delivery, self._answer(delivery, spec, submission))
                for (delivery, spec), submission in zip(good, written, strict=True)
            ]

    def _answer(self, delivery: Delivery, spec: JobSpec, submission: Submission) -> SubmitReply:
        if submission.differs:
            why = jobs.describe_difference(spec.key, submission)
            return self._reject(delivery, {"key": why}, submission.job_id)
        status = "accepted" if submission.created else "duplicate"
        return SubmitReply.model_validate({"status": status, "id": submission.job_id})


class RelayLoop:
    """Tells listeners of every transition."""

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
            waiting = events.unrelayed(tx, RELAY_BATCH)
            if waiting:
                self._link.publish([_event_message(event) for event in waiting])
                events.mark_relayed(tx, [event.id for event in waiting])
        RELAYED.inc(len(waiting))
        self._link.heartbeat()
        return 0.0 if len(waiting) == RELAY_BATCH else self._interval_s

    def reset(self) -> None:
        """Drop the connection."""
        self._link.close()


def _spec(delivery: Delivery) -> JobSpec:
    fields = dict(decode_submit(delivery.body).job)
    if fields.get("key") is None:
        fields["key"] = delivery.message_id
    spec = parse_spec(fields)
    check_fits(spec)
    return spec


def _due_message(ref: AttemptRef) -> Outgoing:
    body = encode(JobDue(job_id=ref.job_id, attempt=ref.number))
    return Outgoing("job.due", body, message_id=f"{ref.id}.due")


def _event_message(event: Event) -> Outgoing:
    message = JobEvent(**event.model_dump(exclude={"id"}), event_id=event.id)
    # Nobody has to listen: an event that no queue takes is not a failure.
    return Outgoing(event.type, encode(message), message_id=f"event.{event.id}", mandatory=False)


def _reply(delivery: Delivery, answer: SubmitReply) -> Outgoing:
    # The asker may be gone by now, and its queue with it.
    return Outgoing(
        delivery.reply_to or "",
        encode(answer),
        message_id=str(uuid4()),
        mandatory=False,
        exchange="",
        correlation_id=delivery.correlation_id or delivery.message_id,
    )
