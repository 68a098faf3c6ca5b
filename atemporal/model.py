"""A job, its attempts, and what a machine reports: the nouns everything else is about.

Promise: whatever is in a `JobSpec` has been checked, so nobody behind it checks again; a bad field
is refused with its name, the reason and what is allowed, before anything happens. What is read from
the books was checked when it was written, maybe by another release: there the types alone count. All
types are frozen: a change of state happens in the database, and the next read shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints
from uuid import UUID

from pydantic import (
    AliasChoices,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from atemporal import environment, image
from atemporal.errors import Invalid
from atemporal.states import AttemptState, BlockedReason, JobState, Outcome, Reason

CapacityType = Literal["on-demand", "spot", "spot-then-on-demand"]

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_PORT = re.compile(r"([0-9]{1,5}):([0-9]{1,5})(?:/(?:tcp|udp))?")
_INSTANCE_TYPE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")

DEFAULT_TIMEOUT_S = 86_400
MAX_TIMEOUT_S = 365 * 86_400
LOG_TAIL_LIMIT = 32 * 1024
# By convention of shells and docker: 128 plus the number of the signal.
_SIGNALS = (129, 192)


def _storable(text: str) -> bool:
    """Tell whether Postgres takes the text: neither NUL nor half of a surrogate pair is in it."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


ExitCode = Annotated[int, Field(ge=1, le=255)]


class Machine(_Frozen):
    """The instance a job wants; what is left out comes from the deployment's settings."""

    instance_types: tuple[str, ...] = Field(default=(), max_length=20)
    # The first name of this field, which clients may still write.
    capacity_type: CapacityType = Field(
        default="on-demand", validation_alias=AliasChoices("capacity_type", "market")
    )
    subnets: tuple[Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")], ...] = ()
    disk_gb: Annotated[int, Field(ge=8, le=16_384)] | None = None

    @field_validator("instance_types")
    @classmethod
    def _types_look_right(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for name in types:
            if not _INSTANCE_TYPE.fullmatch(name):
                raise ValueError(f"{name!r} is not an instance type; write for example t3.small")
        return types


class JobSpec(_Frozen):
    """What a submitter asks for.

    `run_at` absent or past means now; `delay_s` asks for so many seconds after the submit instead.
    `timeout_s` bounds the container's run, `max_attempts` how often the program may fail,
    `infra_retries` how often the infrastructure may. With `retry_on` only these exit codes lead to
    another attempt, those in `no_retry_on` never do. `ports` are published as `host:container`.
    """

    image: Annotated[str, Field(max_length=512)]
    command: Annotated[tuple[str, ...], Field(max_length=256)] | None = None
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    run_at: AwareDatetime | None = None
    delay_s: Annotated[int, Field(ge=0, le=MAX_TIMEOUT_S)] | None = None
    timeout_s: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_S)] = DEFAULT_TIMEOUT_S
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 1
    infra_retries: Annotated[int, Field(ge=0, le=100)] = 3
    retry_on: Annotated[tuple[ExitCode, ...], Field(max_length=255)] = ()
    no_retry_on: Annotated[tuple[ExitCode, ...], Field(max_length=255)] = ()
    backoff_s: Annotated[int, Field(ge=0, le=3600)] = 10
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    machine: Machine = Machine()
    ports: Annotated[tuple[str, ...], Field(max_length=32)] = ("80:80",)
    labels: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    key: Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f]+$")] | None = None

    @field_validator("image")
    @classmethod
    def _image_is_a_reference(cls, text: str) -> str:
        return image.normalise(text)

    @field_validator("command")
    @classmethod
    def _command_is_argv(cls, command: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if command is not None and not all(map(_storable, command)):
            raise ValueError("an argument holds a NUL character or is not valid Unicode text")
        if command and not command[0]:
            raise ValueError("the first word, which is the program to run, is empty")
        return command or None

    @field_validator("env")
    @classmethod
    def _env_is_an_environment(cls, env: dict[str, str]) -> dict[str, str]:
        environment.check(env)
        return dict(sorted(env.items()))

    @field_validator("run_at")
    @classmethod
    def _run_at_is_utc(cls, run_at: datetime | None) -> datetime | None:
        try:
            return run_at.astimezone(UTC) if run_at else None
        except OverflowError:
            raise ValueError("in UTC it is not within the years 1 to 9999") from None

    @field_validator("ports")
    @classmethod
    def _ports_are_ports(cls, ports: tuple[str, ...]) -> tuple[str, ...]:
        for port in ports:
            match = _PORT.fullmatch(port)
            if not match or not all(0 < int(number) < 65536 for number in match.groups()):
                raise ValueError(f"{port!r} is not HOST:CONTAINER[/tcp|/udp], for example 80:8080")
        return ports

    @field_validator("labels")
    @classmethod
    def _labels_are_short(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not _LABEL.fullmatch(name):
                raise ValueError(f"{name!r} is not a label name (letters, digits, . _ / -)")
            if len(value) > 255 or not _storable(value):
                raise ValueError(f"the value of label {name!r} is not text of 0 to 255 characters")
        return dict(sorted(labels.items()))

    @field_validator("key", mode="before")
    @classmethod
    def _key_is_not_empty(cls, key: Any) -> Any:
        if key == "":
            raise ValueError("it is empty; give some text, or leave it out")
        return key

    @field_validator("key")
    @classmethod
    def _key_is_storable(cls, key: str | None) -> str | None:
        if key is not None and not _storable(key):
            raise ValueError("it holds a NUL character or is not valid Unicode text")
        return key

    @model_validator(mode="after")
    def _one_time_only(self) -> JobSpec:
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        return self


def _stored(model: type[BaseModel], **inner: Any) -> Any:
    """The model's fields by their types alone, without the rules for input; `inner` are exchanged."""
    types = get_type_hints(model) | inner
    fields: Any = {
        name: (
            types[name],
            Field()
            if field.is_required()
            else Field(
                default_factory=partial(field.get_default, call_default_factory=True),
                validation_alias=field.validation_alias,
            ),
        )
        for name, field in model.model_fields.items()
    }
    return create_model(f"Stored{model.__name__}", __config__=ConfigDict(extra="ignore"), **fields)


_StoredSpec = _stored(JobSpec, machine=_stored(Machine))


class AttemptRef(NamedTuple):
    """Which attempt of which job: the fencing pair every guarded update carries."""

    job_id: UUID
    number: int

    @property
    def id(self) -> str:
        """The attempt's name in tokens, tags, logs and on the machine."""
        return f"{self.job_id}.{self.number}"


class Launch(BaseModel):
    """The intent: all that a RunInstances call is made of, committed before the call.

    It is kept so that a repeated call is the identical call even when settings have changed since.
    `placement` counts the candidates tried for one attempt; the ClientToken is derived from it.
    `calls` counts the calls that may have been sent with this placement: once there was one, the
    candidate is exchanged only for a definite refusal. A row that does not say is taken to have one.
    `installation` is whose instance it will be; rows of older releases do not say.
    """

    # A newer release may have written more.
    model_config = ConfigDict(frozen=True, extra="ignore")

    placement: int = 0
    calls: int = 1
    image_id: str
    instance_type: str
    capacity_type: Literal["on-demand", "spot"] = Field(
        default="on-demand", validation_alias=AliasChoices("capacity_type", "market")
    )
    subnet_id: str | None = None
    security_group_ids: tuple[str, ...] = ()
    key_name: str | None = None
    instance_profile: str | None = None
    disk_gb: int | None = None
    os_family: str = Field(
        default="flatcar", validation_alias=AliasChoices("os_family", "flavour")
    )
    callback_base: str
    key_id: str
    deadline_s: int
    installation: UUID | None = None


class ExitRecord(BaseModel):
    """What a machine says about the end of its container.

    `phase` is what ended it: the pull, docker's refusal to create or to start the container, or the
    run. Who ends the machine in between leaves `pull` or `run`: the program is not to blame.
    `exit_code` is the container's and is absent when none ever started. `stopped`: the machine was
    ended from outside while the container ran, and took it along. `definite`: the registry said that
    there is no such image, or not for us; asking again would not help.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: Literal["pull", "create", "start", "run"] = "run"
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    oom_killed: bool = False
    timed_out: bool = False
    interrupted: bool = False
    stopped: bool = False
    definite: bool = False
    service_result: Annotated[str, Field(max_length=64)] | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    log_tail: Annotated[Base64Bytes, Field(max_length=2 * LOG_TAIL_LIMIT)] = b""
    claim: Annotated[str, Field(max_length=64)] | None = None
    instance_id: Annotated[str, Field(max_length=64)] | None = None

    @property
    def reason(self) -> Reason:
        """Name the ending; where signs contradict each other the more specific one wins."""
        if self.phase == "pull":
            return Reason.IMAGE_REFUSED if self.definite else Reason.PULL_FAILED
        if self.phase == "create":
            return Reason.CREATE_FAILED
        if self.phase == "start":
            return Reason.START_FAILED
        if self.interrupted:
            return Reason.SPOT_INTERRUPTED
        if self.timed_out:
            return Reason.TIMED_OUT
        if self.stopped:
            return Reason.INSTANCE_LOST
        # Docker's mark can be that of a child, which the program outlived.
        if self.oom_killed and self.exit_code != 0:
            return Reason.OUT_OF_MEMORY
        if self.exit_code is None:
            # A machine that does not even know of a start never had a word from its docker. A bare
            # callback, as a program itself may send it, says nothing about its machine.
            silent = self.claim is not None and self.started_at is None
            return Reason.INSTANCE_LOST if silent else Reason.UNREPORTED
        if self.exit_code == 0:
            return Reason.COMPLETED
        signalled = _SIGNALS[0] <= self.exit_code <= _SIGNALS[1]
        return Reason.SIGNALLED if signalled else Reason.EXIT_NONZERO


def _reason_if_known(stored: Any) -> Any:
    return stored if stored in frozenset(Reason) else None


def _blocked_reason_if_known(stored: Any) -> Any:
    return stored if stored in frozenset(BlockedReason) else None


KnownReason = Annotated[Reason | None, BeforeValidator(_reason_if_known)]
KnownBlockedReason = Annotated[BlockedReason | None, BeforeValidator(_blocked_reason_if_known)]


class Attempt(_Frozen):
    """One instance's life for one job, as it is recorded.

    `reason` is None as well for one that only a newer release knows; `state` says that it ended.
    `blocked_on` is what keeps it from its instance, or kept it until it ended without one.
    `end_code` is EC2's code for the end of its instance (see `end_code`). `detail` is a sentence for
    people: nothing may be decided by it.
    """

    job_id: UUID
    number: int
    state: AttemptState
    reason: KnownReason = None
    launch: Launch
    instance_id: str | None = None
    public_dns: str | None = None
    public_ip: str | None = None
    claim: str | None = None
    blocked_on: KnownBlockedReason = None
    end_code: str | None = None
    exit_code: int | None = None
    oom_killed: bool | None = None
    log_tail: bytes | None = Field(default=None, repr=False)
    detail: str | None = None
    created_at: datetime
    launched_at: datetime | None = None
    booted_at: datetime | None = None
    running_at: datetime | None = None
    exited_at: datetime | None = None
    closed_at: datetime | None = None

    @property
    def ref(self) -> AttemptRef:
        """The attempt's fencing pair."""
        return AttemptRef(self.job_id, self.number)


class Job(_Frozen):
    """A job as the books have it; `attempt` is the number of the last attempt, 0 before the first.

    `run_at` is when it was asked for, `due_at` when the next attempt is due.
    """

    id: UUID
    spec: JobSpec
    state: JobState
    outcome: Outcome | None = None
    reason: KnownReason = None
    attempt: int = 0
    run_at: datetime
    due_at: datetime
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last attempt, once it has one."""
        return self.attempts[-1].exit_code if self.attempts else None


class Event(_Frozen):
    """One transition: history, outbox and audit at once."""

    id: int
    job_id: UUID
    attempt: int
    at: datetime
    type: str
    actor: str
    detail: dict[str, Any]


def read_spec(stored: Mapping[str, Any], key: str | None) -> JobSpec:
    """Read a specification from the books, whichever release wrote it.

    What an earlier one accepted counts, though this one would refuse it; fields that a newer one
    wrote are passed over.

    Raises:
        ValidationError: a field is missing or has another type.
    """
    read = _StoredSpec.model_validate(stored)
    # JSON's objects have an order of their own in the database; a machine's manifest depends on it.
    return JobSpec.model_construct(
        **{
            **dict(read),
            "key": key,
            "command": read.command or None,
            "env": dict(sorted(read.env.items())),
            "labels": dict(sorted(read.labels.items())),
            "machine": Machine.model_construct(**dict(read.machine)),
        }
    )


def parse_spec(fields: dict[str, Any]) -> JobSpec:
    """Check a submitter's fields.

    Raises:
        Invalid: with the name of each bad field and why; values are never repeated for `env`.
    """
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as error:
        raise Invalid(describe(error)) from None


def describe(error: ValidationError) -> dict[str, str]:
    """Turn pydantic's errors into `{field: why}` for a reader who does not know pydantic."""
    fields: dict[str, str] = {}
    for item in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in item["loc"]) or "job"
        why = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            why = "unknown field"
        elif item["type"] == "tuple_type":
            of = "numbers" if name in ("retry_on", "no_retry_on") else "strings"
            why = f"write a list of {of}"
        elif item["type"] in ("dict_type", "model_type", "model_attributes_type"):
            why = "write an object"
        fields[name] = f"{fields[name]}; {why}" if name in fields else why
    return fields
