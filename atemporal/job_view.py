"""A job as it is shown: one shape for HTTP, for `-o json` and for events.

Promise: `image` reads as a person would type it (`nginx:1.9`, not its normal form); instants are UTC
text with milliseconds; output that is not UTF-8 is shown with replacement characters. A
claim and a secret's value are never shown; the environment's values and the end of the output are for
the caller to ask for.
Mechanism: a view inherits the fields of what it shows, so a new field of a specification or an
attempt is shown without another line. The keys of the original, the 2015 project, come first: `id`,
`image`, `time`, `state`, and `instances` with `id`, `aws_id`, `dns`, `ip`. A view is made by `of`,
without checks: what an older release accepted is shown as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Self, cast
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from atemporal import causes, image, waiting
from atemporal.billing import dollars
from atemporal.clock import format_utc
from atemporal.model import Attempt, Event, Job, JobFields, Launch, LimitWait, Machine
from atemporal.states import BlockedReason, Fault, JobState, Outcome, Reason
from atemporal.waiting import Phase


def log_text(log: bytes | None) -> str | None:
    """The end of an attempt's output as text; None when there is none."""
    return None if log is None else log.decode(errors="replace")


Instant = Annotated[
    datetime,
    PlainSerializer(format_utc),
    Field(examples=["2015-04-25T05:27:27.069Z"]),
]
_COST = "in US dollars, an estimate until its end is confirmed; null: no price is known"
Cost = Annotated[str | None, Field(examples=["0.000346667"])]
LogTail = Annotated[bytes | None, PlainSerializer(log_text)]


class OriginalInstance(BaseModel):
    """The keys of the original's instances."""

    id: int = Field(description="the attempt's number")
    aws_id: str | None = Field(examples=["i-0123456789abcdef0"])
    dns: str | None = Field(description="public DNS name, known some time after the start")
    ip: str | None


class AttemptView(Attempt, OriginalInstance):
    """One attempt, that is one instance, under the original's names and ours."""

    model_config = ConfigDict(extra="ignore")

    job_id: UUID = Field(exclude=True)
    claim: str | None = Field(default=None, exclude=True)
    instance_proof: str | None = Field(default=None, exclude=True, repr=False)
    launch: Launch = Field(exclude=True)
    log_tail: LogTail = Field(default=None, exclude=True, repr=False)
    instance_type: str
    capacity_type: str
    subnet_id: str | None
    image_id: str = Field(description="the AMI's id")
    tags: dict[str, str] = Field(
        description="the tags that are asked for, for its instance and volumes, beside atemporal's own: "
        "the deployment's and those of the job's labels"
    )
    cause: str | None = Field(description="why it failed, or where that stands")
    created_at: Instant
    launched_at: Instant | None = None
    booted_at: Instant | None = None
    running_at: Instant | None = None
    exited_at: Instant | None = None
    closed_at: Instant | None = None
    dispatch_at: Instant | None = Field(default=None, description="when its launch was to begin")
    lead_s: float | None = Field(
        default=None, description="how long it might take to get ready, as was estimated then"
    )
    start_at: Instant | None = Field(
        default=None, description="the time for which it was launched ahead; null: it was due"
    )
    ready_at: Instant | None = Field(default=None, description="when its container could start")
    started_at: Instant | None = Field(default=None, description="when its container started")
    predicted_skew_s: float | None = Field(
        description="how late it was to start, as was estimated when its launch began"
    )
    start_skew_s: float | None = Field(description="how late it started")
    ahead_s: float | None = Field(
        description="for how many seconds its instance was there before its time"
    )
    booked: int | None = Field(default=None, exclude=True)
    billed_from: Instant | None = Field(
        default=None, description="when EC2 began to bill its instance, once that is booked"
    )
    billed_until: Instant | None = Field(default=None, description="when that was over")
    billed_s: int | None = Field(default=None, description="for how many seconds, at least 60")
    price_per_hour: str | None = Field(
        examples=["0.0208"], description="of its instance and disks, in US dollars, at its launch"
    )
    cost: Cost = Field(description=_COST)

    @classmethod
    def of(
        cls, attempt: Attempt, labels: Mapping[str, str], *, now: datetime | None = None
    ) -> Self:
        """Show an attempt of a job with these labels, as it is now."""
        price = attempt.launch.price
        cost = attempt.booked if now is None else attempt.cost_at(now)
        shown = {
            **dict(attempt),
            "id": attempt.number,
            "aws_id": attempt.instance_id,
            "dns": attempt.public_dns,
            "ip": attempt.public_ip,
            "instance_type": attempt.launch.instance_type,
            "capacity_type": attempt.launch.capacity_type,
            "subnet_id": attempt.launch.subnet_id,
            "image_id": attempt.launch.image_id,
            "tags": dict(attempt.launch.labelled(labels).tags or {}),
            "cause": causes.cause(attempt) or None,
            "predicted_skew_s": _seconds(attempt.predicted_skew),
            "start_skew_s": _seconds(attempt.start_skew),
            "ahead_s": _seconds(attempt.ahead),
            "price_per_hour": price and dollars(price.per_hour),
            "cost": cost_text(cost),
        }
        return cast(Self, cls.model_construct(**shown))


def cost_text(nano: int | None) -> str | None:
    """An amount in dollars as text; None where it is not known."""
    return None if nano is None else dollars(nano)


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 3)


class OriginalJob(BaseModel):
    """The keys of the original's jobs, but for `payload`."""

    id: UUID
    image: str = Field(examples=["nginx:1.9"])
    time: Instant = Field(description="when it was asked to run")
    state: JobState
    instances: tuple[AttemptView, ...]


# Rules for what is asked for. A job is shown that an earlier release took and this one would refuse.
_RULES = frozenset(
    (
        *("not", "pattern", "propertyNames", "prefixItems", "uniqueItems", "minimum", "maximum"),
        *("minLength", "maxLength", "maxItems", "maxProperties"),
    )
)


def _without_rules(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_rules(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: _without_rules(one) for key, one in value.items()}
        if name == "properties"
        else _without_rules(value)
        for name, value in schema.items()
        if name not in _RULES and (name, value) != ("additionalProperties", False)
    }


def _shows_any_job(schema: dict[str, Any]) -> None:
    for name in JobFields.model_fields.keys() & schema["properties"].keys():
        schema["properties"][name] = _without_rules(schema["properties"][name])


class JobView(JobFields, OriginalJob):
    """A job: what was asked for, and how it stands."""

    # Readers pass over what they do not know: a newer release may show more.
    model_config = ConfigDict(extra="ignore", json_schema_extra=_shows_any_job)

    time: Instant = Field(description="when it was asked to run")
    machine: Annotated[
        Machine, WithJsonSchema(_without_rules(Machine.model_json_schema(mode="serialization")))
    ] = Field(description=JobFields.model_fields["machine"].description)
    read_at: Instant | None = Field(description="when it stood so, by the database's clock")
    delay_s: int | None = Field(default=None, exclude=True)
    outcome: Outcome | None
    reason: Reason | None = Field(description="why the last attempt ended")
    fault: Fault | None = Field(description="whose fault that was")
    attempt: int = Field(description="the number of the last attempt, 0 before the first")
    exit_code: int | None = Field(description="of the last attempt")
    cost: Cost = Field(description=f"of all attempts, {_COST}")
    waiting_for: str | None = Field(examples=["its machine to boot"])
    waiting_since: Instant | None
    waiting_until: Instant | None = Field(
        description="when something ends the wait; null: nothing"
    )
    waiting_on: BlockedReason | None = Field(description="what hinders it")
    waiting_detail: str | None = Field(description="more about that, for people")
    waiting_limit: LimitWait | None = Field(
        description="the concurrency limit that it waits for, and how many come before it"
    )
    due_at: Instant = Field(description="when the next attempt is due")
    dispatch_at: Instant | None = Field(
        default=None, description="when the launch for it begins; null: when it is due"
    )
    lead_s: float | None = Field(
        default=None, description="how long launch, boot and pull may take, by the last estimate"
    )
    start_by: Instant | None = Field(
        default=None,
        description="its start deadline; null: it has none, or its container has started",
    )
    created_at: Instant
    updated_at: Instant
    finished_at: Instant | None

    @classmethod
    def of(
        cls,
        job: Job,
        *,
        deadlines: Mapping[Phase, float],
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Self:
        """Show a job; `deadlines` are the seconds that the deployment gives each phase.

        `env` is shown in place of the job's own; `more` is what a subclass adds.
        """
        waiting_for = waiting.of_job(job)
        shown = {
            **dict(job.spec),
            **dict(job),
            "image": image.familiar(job.spec.image),
            "env": job.spec.env if env is None else dict(env),
            "time": job.run_at,
            "instances": tuple(
                AttemptView.of(one, job.spec.labels, now=job.read_at) for one in job.attempts
            ),
            "exit_code": job.exit_code,
            "cost": cost_text(job.cost),
            "fault": job.reason and job.reason.fault,
            "waiting_for": waiting_for and waiting_for.what,
            "waiting_since": waiting_for and waiting_for.since,
            "waiting_until": waiting_for and waiting.until(waiting_for, job, deadlines),
            "waiting_on": waiting_for and waiting_for.blocked_on,
            "waiting_detail": waiting_for and waiting_for.detail,
            "waiting_limit": waiting_for and waiting_for.limit,
            **more,
        }
        return cast(Self, cls.model_construct(**shown))


class EventView(BaseModel):
    """One transition of a job or an attempt."""

    type: str
    event_id: int
    job_id: UUID
    attempt: int
    at: AwareDatetime
    actor: str
    detail: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, event: Event) -> Self:
        """Show an event."""
        return cls.model_validate({**dict(event), "event_id": event.id})
