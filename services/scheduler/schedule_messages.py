"""The loop that makes and changes recurring schedules by other systems' messages.

Promise: a message is applied once, however often it comes, and none after a later one
(`atemporal.store.schedule_messages`); what can not be applied is refused with the field and the reason,
in the reply and in the dead letters. It does what the HTTP API does, by the same store and the same
reading.
Mechanism: each message is a transaction of its own; the batch is acknowledged when all are done. A
death in between delivers the batch again, and what was committed is known by its key.
Failure: without Postgres no more messages are taken, and those in hand are kept. Without the broker the
reaper's sweep ends the instances of what was taken back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from time import monotonic
from uuid import UUID

from atemporal.broker import Delivery, Link, Outgoing
from atemporal.errors import Conflict, Invalid, NotFound, Unavailable, Unknown, Unreadable
from atemporal.inbox import Inbox
from atemporal.messages import (
    SCHEDULE,
    JobCancel,
    ScheduleDelete,
    SchedulePause,
    SchedulePut,
    ScheduleReply,
    ScheduleResume,
    ScheduleRun,
    decode,
)
from atemporal.metrics import counter, series
from atemporal.metrics.endings import ENDED
from atemporal.metrics.fires import count_fire
from atemporal.model import parse_spec
from atemporal.model.forms import SCHEDULE_NAME
from atemporal.model.schedule import Schedule, parse_schedule
from atemporal.states import Reason
from atemporal.store import schedule_messages, schedules
from atemporal.store.database import Database
from atemporal.store.rows import Transaction
from atemporal.store.schedule_messages import Identity, Kind
from atemporal.store.schedules import Changed
from atemporal.telemetry import logger
from atemporal.terms import ANY_TERMS, Terms
from services.scheduler.replies import Replies

TAKEN = counter(
    "atemporal_schedule_messages_total",
    "Messages of other systems that make or change recurring schedules, by what became of them.",
    result=["accepted", "duplicate", "outdated", "rejected"],
)
series(ENDED, reason=[Reason.CANCELLED])

BATCH = 100
ACTOR = "amqp"

_Message = SchedulePut | SchedulePause | ScheduleResume | ScheduleRun | ScheduleDelete


class ScheduleMessageLoop:
    """Takes other systems' messages about schedules into Postgres, and replies."""

    name = "schedule-messages"

    def __init__(
        self,
        database: Database,
        link: Link,
        *,
        allowed: bool = True,
        terms: Terms = ANY_TERMS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the connections; none is open yet.

        Unless it is `allowed` every message is refused. `clock` gives seconds.
        """
        self._database = database
        self._link = link
        self._allowed = allowed
        self._terms = terms
        self._inbox = Inbox(link, SCHEDULE, ping=database.ping)
        self._log = logger(self.name)
        self._replies = Replies(link, self._log, clock=clock)

    def tick(self) -> float:
        """Apply one batch, each message by itself; dead-letter the bad, reply to all."""
        done: list[tuple[Delivery, ScheduleReply]] = []
        with self._inbox.tick():
            for delivery in self._inbox.take(BATCH):
                done.append((delivery, self._one(delivery)))
            self._inbox.done()
        for _, reply in done:
            TAKEN.labels(reply.status).inc()
        self._replies.send([Outgoing.reply(reply, to) for to, reply in done if to.reply_to])
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()

    def _one(self, delivery: Delivery) -> ScheduleReply:
        name, message = None, None
        try:
            message = decode(SCHEDULE, delivery.body)
            if not self._allowed:
                why = "is not taken here: ATEMPORAL_SCHEDULE_MESSAGES is off"
                raise Invalid({"type": f"{message.type} {why}"})
            name = _name(message)
            checked = self._checked(message)
            return self._apply(message, checked, _key(message, delivery))
        except Invalid as error:
            errors = dict(error.fields)
        except (NotFound, Unreadable) as error:
            errors = {"name": str(error)}
        except Conflict as error:
            errors = {"key" if isinstance(message, ScheduleRun) else "name": str(error)}
        self._inbox.dead_letter(delivery, errors)
        return ScheduleReply(status="rejected", name=name, errors=errors)

    def _apply(self, message: _Message, name: str, key: str) -> ScheduleReply:
        identity = Identity(key, name, message.serial, _digest(message))
        changed: Changed | None = None
        with self._database.begin() as tx:
            seen = schedule_messages.seen(tx, identity)
            status, job_id = seen.kind.value, seen.job_id
            if seen.kind is Kind.NEW:
                changed, job_id = _do(tx, message, name, key)
                schedule_messages.applied(tx, identity, job_id=job_id)
                done = job_id is not None or (changed is not None and changed.changed)
                status = "accepted" if done else "duplicate"
            known = schedules.known(tx, name)
        if changed is not None:
            self._after(changed)
        self._log.info(message.type, schedule=name, status=status, actor=ACTOR)
        return _reply(status, name, known, job_id)

    def _checked(self, message: _Message) -> str:
        """Its schedule's name, if all of it is right.

        Raises:
            Invalid: with each bad field and why.
        """
        if isinstance(message, SchedulePut):
            spec = parse_schedule(message.schedule)
            self._terms.check(spec.job, within="job.")
            return spec.name
        return message.name

    def _after(self, changed: Changed) -> None:
        for fire in changed.passed_over:
            count_fire(fire)
        if not changed.ended:
            return
        ENDED.labels(Reason.CANCELLED).inc(len(changed.ended))
        try:
            self._link.publish([Outgoing.of(JobCancel.of(ref)) for ref in changed.ended])
        except (Unavailable, Unknown) as error:
            self._log.warning("the reaper's sweep will end instances", error=str(error))


def _name(message: _Message) -> str | None:
    """The name that it gives, as far as it is one."""
    if not isinstance(message, SchedulePut):
        return message.name
    name = message.schedule.get("name")
    return name if isinstance(name, str) and SCHEDULE_NAME.fullmatch(name) else None


def _key(message: _Message, delivery: Delivery) -> str:
    key = delivery.message_id if message.key is None else message.key
    if key is None:
        why = "give one, or set the message's message_id: by it the same message is known again"
        raise Invalid({"key": why})
    # By the rules for any job's: that of a `schedule.run` is its job's.
    parse_spec({"image": "none", "key": key})
    return key


def _digest(message: _Message) -> str:
    # Without what is absent: a later release knows of more fields, and of the same message all the same.
    wanted = message.model_dump(mode="json", exclude={"key"}, exclude_none=True)
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def _do(
    tx: Transaction, message: _Message, name: str, key: str
) -> tuple[Changed | None, UUID | None]:
    """Apply it; returns the change, or the job that it made; neither if there was nothing to do."""
    match message:
        case SchedulePut():
            return schedules.put(tx, parse_schedule(message.schedule), actor=ACTOR), None
        case SchedulePause():
            return schedules.pause(tx, name, actor=ACTOR), None
        case ScheduleResume():
            return schedules.resume(tx, name), None
        case ScheduleDelete():
            try:
                return schedules.remove(tx, name, actor=ACTOR), None
            except NotFound:
                # As it was wanted; it counts, so that an earlier `put` does not come after it.
                return None, None
        case ScheduleRun():
            return None, schedules.run_now(tx, name, key=key, actor=ACTOR).job_id


def _reply(status: str, name: str, known: Schedule | None, job_id: UUID | None) -> ScheduleReply:
    version = known.version if known else None
    paused = known.paused_at is not None if known else None
    fields = {"status": status, "name": name, "version": version, "paused": paused}
    return ScheduleReply.model_validate({**fields, "job_id": job_id})
