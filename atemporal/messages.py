"""The messages between processes, and the public ones for other systems.

Promise: a body is JSON with `type` and `v`, carries ids and never an environment or a secret (but for
`job.submit`, which is how one comes in), and a reader passes over fields it does not know, so that
old and new versions talk to each other. A message only notifies: its reader loads the row and acts on
that, so a duplicate, a reordering or a loss costs time and never correctness.
Mechanism: a class holds all that is particular to its message: its type, which is its routing key as
well, its exchange and queue, and its message id. Bindings, decoding, publishing, the schemas and the
table in `docs/messages.md` follow from it. The argument of a `Queue` is the union of its messages, for
the type checker; a test compares the two.
Failure: what is no message, or belongs into another queue, is `Invalid`: a case for the dead letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator

from atemporal.errors import Invalid
from atemporal.job_view import EventView, Instant
from atemporal.json_object import read_object
from atemporal.model import AttemptRef, Event, describe, forms
from atemporal.model.attempt import KnownReason
from atemporal.states import Outcome

BODY_LIMIT = 1024 * 1024
"""How many bytes a body may have: the largest environment, however JSON writes it."""

COMMANDS = "atemporal"
"""The exchange of what other systems ask for; an environment may be in it."""
INTERNAL = "atemporal.internal"
"""The exchange of the project's own notifications."""
EVENTS = "atemporal.events"
"""The exchange of what others may hear; there is never an environment in it."""

M = TypeVar("M", bound="Message")


class Queue(str, Generic[M]):
    """The name of a queue that holds messages of the types `M`."""

    __slots__ = ()

    @property
    def types(self) -> tuple[type[Message], ...]:
        """The classes of its messages."""
        return tuple(kind for kind in MESSAGES if kind.queue == self)


SUBMIT: Queue[JobSubmit] = Queue("atemporal.submit")
LAUNCH: Queue[JobDue] = Queue("atemporal.launch")
REAP: Queue[InstanceRunning | InstanceExited | JobCancel] = Queue("atemporal.reap")
SCHEDULE: Queue[SchedulePut | SchedulePause | ScheduleResume | ScheduleRun | ScheduleDelete] = (
    Queue("atemporal.schedule")
)


class Message(BaseModel):
    """What all have; one that has a queue must reach it, any other may find nobody who listens."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    queue: ClassVar[Queue[Any] | None] = None
    exchange: ClassVar[str] = ""
    v: Literal[1] = 1
    type: str

    @field_validator("v", mode="before")
    @classmethod
    def _v_is_a_number(cls, v: Any) -> Any:
        # For Python, and so for a Literal, True and 1.0 are 1.
        if type(v) is not int:
            raise ValueError("write the number 1")
        return v

    @classmethod
    def type_name(cls) -> str:
        """The `type` of all messages of this class."""
        return str(cls.model_fields["type"].default)

    @property
    def routing_key(self) -> str:
        """How the exchange finds who wants it."""
        return self.type

    @property
    def message_id(self) -> str:
        """The same for the same message sent again; empty when nothing identifies it."""
        return ""


class Notification(Message):
    """Something happened to an attempt; its row says what."""

    exchange = INTERNAL
    job_id: UUID
    attempt: int

    @classmethod
    def of(cls, ref: AttemptRef) -> Self:
        """Make the message for an attempt."""
        return cls.model_validate({"job_id": ref.job_id, "attempt": ref.number})

    @property
    def ref(self) -> AttemptRef:
        """The attempt that the message is for."""
        return AttemptRef(self.job_id, self.attempt)

    @property
    def message_id(self) -> str:
        """The attempt and what happened to it."""
        return f"{self.ref.id}.{self.type.rpartition('.')[2]}"


class JobDue(Notification):
    """scheduler -> launcher: this attempt is due."""

    queue = LAUNCH
    type: Literal["job.due"] = "job.due"


class JobCancel(Notification):
    """api -> reaper: this attempt has been cancelled, its instance has to go."""

    queue = REAP
    type: Literal["job.cancel"] = "job.cancel"


class InstanceRunning(Notification):
    """api -> reaper: a machine claimed this attempt; its address can be written down."""

    queue = REAP
    type: Literal["instance.running"] = "instance.running"


class InstanceExited(Notification):
    """api -> reaper: this attempt ended; its instance has to go."""

    queue = REAP
    type: Literal["instance.exited"] = "instance.exited"


class JobSubmit(Message):
    """Other systems -> scheduler: make this job. `job` holds the fields of a job's specification."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    queue = SUBMIT
    exchange = COMMANDS
    type: Literal["job.submit"] = "job.submit"
    job: dict[str, Any] = Field(repr=False)


class ScheduleMessage(Message):
    """What somebody else wants of a recurring schedule.

    `key`, or else AMQP's `message_id`, tells it from every other message: it is applied once. With a
    `serial` it is not applied after one of the same schedule whose serial is as high or higher.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    queue = SCHEDULE
    exchange = COMMANDS
    key: Annotated[forms.Key, Field(max_length=255)] | None = Field(
        default=None, description="absent: AMQP's `message_id`; the same message has the same"
    )
    serial: Annotated[int, Strict(), Field(ge=0, le=2**63 - 1)] | None = Field(
        default=None, description="grows with each message about the schedule; absent: none counts"
    )


class SchedulePut(ScheduleMessage):
    """Other systems -> scheduler: make this schedule, or make the one of its name like this."""

    type: Literal["schedule.put"] = "schedule.put"
    schedule: dict[str, Any] = Field(repr=False)


class NamedSchedule(ScheduleMessage):
    """The same about a schedule that is there."""

    name: forms.ScheduleName

    @field_validator("name")
    @classmethod
    def _name_is_one(cls, name: str) -> str:
        return forms.checked_schedule_name(name)


class SchedulePause(NamedSchedule):
    """Other systems -> scheduler: fire no more until it is resumed."""

    type: Literal["schedule.pause"] = "schedule.pause"


class ScheduleResume(NamedSchedule):
    """Other systems -> scheduler: fire again, from now on."""

    type: Literal["schedule.resume"] = "schedule.resume"


class ScheduleRun(NamedSchedule):
    """Other systems -> scheduler: run its job now, once for each key."""

    type: Literal["schedule.run"] = "schedule.run"


class ScheduleDelete(NamedSchedule):
    """Other systems -> scheduler: delete it."""

    type: Literal["schedule.delete"] = "schedule.delete"


class ScheduleReply(Message):
    """scheduler -> whoever asked by `reply_to` about a schedule."""

    type: Literal["schedule.reply"] = "schedule.reply"
    status: Literal["accepted", "duplicate", "outdated", "rejected"]
    name: str | None = Field(default=None, description="the schedule's")
    version: int | None = Field(
        default=None, description="counts the schedule's changes; absent: there is none"
    )
    paused: bool | None = Field(default=None, description="whether it is paused")
    job_id: UUID | None = Field(default=None, description="of the job that a `schedule.run` made")
    errors: dict[str, str] = Field(default_factory=dict)

    @field_validator("errors")
    @classmethod
    def _errors_can_be_sent(cls, errors: dict[str, str]) -> dict[str, str]:
        return {_sendable(name): _sendable(why) for name, why in errors.items()}


class SubmitReply(Message):
    """scheduler -> whoever asked by `reply_to`."""

    type: Literal["job.submit.reply"] = "job.submit.reply"
    status: Literal["accepted", "duplicate", "rejected"]
    id: UUID | None = None
    time: Instant | None = Field(default=None, description="when the job was asked to run")
    errors: dict[str, str] = Field(default_factory=dict)

    @field_validator("errors")
    @classmethod
    def _errors_can_be_sent(cls, errors: dict[str, str]) -> dict[str, str]:
        # They may repeat what was sent, and JSON can hold what is no text: half of a surrogate pair.
        return {_sendable(name): _sendable(why) for name, why in errors.items()}


class JobEvent(Message, EventView):
    """Lifecycle of jobs and attempts, for listeners; the routing key is the same as `type`."""

    exchange = EVENTS
    key: str | None = Field(default=None, description="the job's key")
    labels: dict[str, str] = Field(default_factory=dict, description="the job's labels")
    outcome: Outcome | None = Field(default=None, description="of a job that has finished")
    exit_code: int | None = Field(
        default=None, description="of the attempt that it is about, once its program has ended"
    )
    reason: KnownReason = Field(
        default=None, description="why that attempt, or the job, ended, once it has"
    )
    instance_id: str | None = Field(
        default=None, description="of that attempt, once EC2 has named it"
    )
    times: dict[str, Instant] = Field(
        default_factory=dict,
        description="what is known of that attempt's way when the event is read: `created_at`, "
        "`launched_at`, `booted_at`, `ready_at`, `running_at`, `started_at`, `exited_at`, `closed_at`",
    )

    @classmethod
    def of(cls, event: Event) -> Self:
        """Make the message of an event, with what is known of its job."""
        name = event.type.removeprefix("job.finished.")
        outcome = Outcome(name) if name in frozenset(Outcome) else None
        fields = {**dict(event), "event_id": event.id, "outcome": outcome}
        # What a job ended by is in the event itself, and may be no attempt's ending.
        fields["reason"] = event.detail.get("reason", fields.get("reason"))
        return cls.model_validate(fields)

    @property
    def message_id(self) -> str:
        """The event's number."""
        return f"event.{self.event_id}"


def _sendable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _leaves(kind: type[Message]) -> Iterator[type[Message]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for one in below:
        yield from _leaves(one)


MESSAGES: tuple[type[Message], ...] = tuple(_leaves(Message))


@cache
def _kinds(queue: Queue[Any]) -> Mapping[str, type[Message]]:
    return {kind.type_name(): kind for kind in queue.types}


def encode(message: Message) -> bytes:
    """Write a message's body; what is absent is left out."""
    return message.model_dump_json(exclude_none=True).encode()


def decode(queue: Queue[M], body: bytes) -> M:
    """Read a message that came by a queue. A bare job (no envelope) passes for a `job.submit`.

    Raises:
        Invalid: it is none, or one of another queue; the message belongs into the dead letters.
    """
    if len(body) > BODY_LIMIT:
        raise Invalid({"body": f"has {len(body)} bytes, {BODY_LIMIT} are allowed"})
    fields = read_object(body)
    if queue == SUBMIT and "type" not in fields:
        # Written by hand, mostly.
        fields = {"job": fields} if "image" in fields else fields
        fields = {"type": JobSubmit.type_name(), **fields}
    name = fields.get("type")
    kind = _kinds(queue).get(name) if isinstance(name, str) else None
    if kind is None:
        raise Invalid({"type": f"{name!a:.100} does not belong into {queue}"})
    try:
        # `M` is the union of the queue's classes.
        return cast(M, kind.model_validate(fields))
    except ValidationError as error:
        raise Invalid(describe(error)) from None
