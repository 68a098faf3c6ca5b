"""The messages between processes, and the public ones for other systems.

Promise: a body is JSON with `type` and `v`, carries ids and never an environment or a secret (but for
`job.submit`, which is how one comes in), and a reader passes over fields it does not know, so that
old and new versions talk to each other. A message is a wake-up: its reader loads the row and acts on
that, so a duplicate, a reordering or a loss costs time and never correctness.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from atemporal.errors import Invalid
from atemporal.model import AttemptRef, describe

BODY_LIMIT = 256 * 1024


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    v: Literal[1] = 1


class _AboutAttempt(_Message):
    job_id: UUID
    attempt: int

    @property
    def ref(self) -> AttemptRef:
        """The attempt that the message is about."""
        return AttemptRef(self.job_id, self.attempt)


class JobDue(_AboutAttempt):
    """scheduler -> launcher: this attempt is due."""

    type: Literal["job.due"] = "job.due"


class JobCancel(_AboutAttempt):
    """api -> reaper: this attempt has been cancelled, its instance has to go."""

    type: Literal["job.cancel"] = "job.cancel"


class InstanceRunning(_AboutAttempt):
    """api -> reaper: a machine claimed this attempt; its address can be written down."""

    type: Literal["instance.running"] = "instance.running"


class InstanceExited(_AboutAttempt):
    """api -> reaper: this attempt ended; its instance has to go."""

    type: Literal["instance.exited"] = "instance.exited"


class JobSubmit(_Message):
    """Other systems -> scheduler: make this job. `job` holds the fields of a job's specification."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["job.submit"] = "job.submit"
    job: dict[str, Any] = Field(repr=False)


class SubmitReply(_Message):
    """scheduler -> whoever asked by `reply_to`."""

    type: Literal["job.submit.reply"] = "job.submit.reply"
    status: Literal["accepted", "duplicate", "rejected"]
    id: UUID | None = None
    errors: dict[str, str] = Field(default_factory=dict)


class JobEvent(_Message):
    """Lifecycle of jobs and attempts, for listeners; the routing key is the same as `type`."""

    type: str
    event_id: int
    job_id: UUID
    attempt: int
    at: AwareDatetime
    actor: str
    detail: dict[str, Any] = Field(default_factory=dict)


Notification = Annotated[
    JobDue | JobCancel | InstanceRunning | InstanceExited, Field(discriminator="type")
]
_NOTIFICATION: TypeAdapter[JobDue | JobCancel | InstanceRunning | InstanceExited] = TypeAdapter(
    Notification
)


def encode(message: BaseModel) -> bytes:
    """Write a message's body; what is absent is left out."""
    return message.model_dump_json(exclude_none=True).encode()


def decode_notification(body: bytes) -> JobDue | JobCancel | InstanceRunning | InstanceExited:
    """Read a message between daemons.

    Raises:
        Invalid: it is none; the message belongs into the dead letters.
    """
    _check_size(body)
    try:
        return _NOTIFICATION.validate_json(body)
    except ValidationError as error:
        raise Invalid(describe(error)) from None


def decode_submit(body: bytes) -> JobSubmit:
    """Read a `job.submit` message; a bare job (no envelope) is accepted too.

    Raises:
        Invalid: it is none; the message belongs into the dead letters.
    """
    _check_size(body)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Invalid({"body": "is not JSON"}) from None
    if isinstance(fields, dict) and "type" not in fields and "image" in fields:
        fields = {"job": fields}
    try:
        return JobSubmit.model_validate(fields)
    except ValidationError as error:
        raise Invalid(describe(error)) from None


def _check_size(body: bytes) -> None:
    if len(body) > BODY_LIMIT:
        raise Invalid({"body": f"has {len(body)} bytes, {BODY_LIMIT} are allowed"})
