"""What a submitter asks for, and reading it: from a submitter, or from the database.

Promise: whatever is in a `JobSpec` has been checked, so nobody behind it checks again; a bad field is
refused with its name, the reason and what is allowed, before anything happens. What is read from the
database was checked when it was written, maybe by another release: there the types alone count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    Strict,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)

from atemporal import architecture, billing, environment, image, tags
from atemporal.clock import INSTANT_PATTERN, TIME_FORM, parse_utc
from atemporal.errors import Invalid
from atemporal.lead import LIMIT_S
from atemporal.model import container, forms, secret, secret_reference
from atemporal.model.frozen import Frozen
from atemporal.model.machine import Machine
from atemporal.model.text import storable

DEFAULT_TIMEOUT_S = 86_400
MAX_TIMEOUT_S = 365 * 86_400
LONGEST_LEAD_S = int(LIMIT_S)
MOST_LABELS = 32

# Neither true nor "60" nor 1e2 is a whole number.
Whole = Annotated[int, Strict()]
ExitCode = Annotated[Whole, Field(ge=1, le=255)]


def _empty_object(value: Any) -> Any:
    """PHP writes an empty object as an empty list."""
    return {} if value == [] else value


_ObjectOrEmptyList = BeforeValidator(_empty_object)


def _instant(value: Any) -> datetime:
    """Read text; an instant of Python's has its zone. A number is none: seconds or milliseconds?"""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if not isinstance(value, str):
        why = f"is not text; write UTC as {TIME_FORM} or with an offset"
        raise ValueError(why)  # noqa: TRY004 - what pydantic reports
    return parse_utc(value)


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "pattern": INSTANT_PATTERN, "examples": [TIME_FORM]}),
]
"""An instant as a submitter writes it; every door reads it with `clock.parse_utc`."""


def _lead(value: Any) -> Any:
    """Tell a lead from `auto` first, so that what is wrong is told in one sentence."""
    number = type(value) is int and 0 <= value <= LONGEST_LEAD_S
    if not (value == "auto" or number):
        raise ValueError(f"is no lead; write auto, or whole seconds from 0 to {LONGEST_LEAD_S}")
    return value


Lead = Annotated[int, Strict(), Field(ge=0, le=LONGEST_LEAD_S)]
_LEAD = BeforeValidator(_lead)


def _max_cost(value: Any) -> Any:
    """A bound in dollars: text, because a number of JSON may not be what was written."""
    if not isinstance(value, str):
        raise ValueError('is not text; write dollars like "1.50"')  # noqa: TRY004 - what pydantic reports
    nano = billing.amount(value)
    if nano <= 0:
        raise ValueError("is no bound: it has to be more than 0")
    return billing.dollars(nano)


class JobFields(Frozen):
    """The fields of a specification, each listed here and nowhere else: `JobSpec` has their rules."""

    image: Annotated[forms.Image, Field(max_length=512, description="The image to run.")]
    command: Annotated[forms.Command, Field(max_length=256)] | None = Field(
        default=None, description="What to run in place of the image's own command."
    )
    entrypoint: Annotated[forms.Entrypoint, Field(min_length=1, max_length=256)] | None = Field(
        default=None,
        description="What to run in place of the image's own entrypoint; its command counts no more.",
    )
    env: Annotated[forms.Environment, _ObjectOrEmptyList] = Field(
        default_factory=dict, repr=False, description="The variables of the job's environment."
    )
    secrets: Annotated[secret.Secrets, _ObjectOrEmptyList] = Field(
        default_factory=dict,
        repr=False,
        description="Variables of its environment that nobody is shown: in place of a value is null.",
    )
    secret_refs: Annotated[
        secret_reference.References, Field(max_length=100), _ObjectOrEmptyList
    ] = Field(
        default_factory=dict,
        description="Variables whose values the machine gets from AWS by the role of its instance, like "
        "ssm:/team/password or secretsmanager:password.",
    )
    delivery: Literal["auto", "inline", "claim"] = Field(
        default="auto",
        description="How the job gets onto its machine: inline is in the user-data, claim is asked for "
        "by the machine; auto is claim with secrets or where it is too large for the other.",
    )
    time: Instant | None = Field(
        default=None,
        validation_alias=AliasChoices("time", "run_at"),
        description="When to run, in UTC or with an offset; absent or past means now.",
    )
    lead: Annotated[Literal["auto"] | Lead, _LEAD] = Field(
        default="auto",
        description="How long before its time the launch begins, so that the container can start on "
        "time: auto is what recent machines took; a number of seconds; 0 is none.",
    )
    delay_s: Annotated[Whole, Field(ge=0, le=MAX_TIMEOUT_S)] | None = Field(
        default=None, description="When to run: so many seconds after the submit."
    )
    start_deadline_s: Annotated[Whole, Field(ge=1, le=MAX_TIMEOUT_S)] | None = Field(
        default=None,
        description="How long after its time its container may start: a job that has not started by "
        "then is not started any more, and ends as cancelled.",
    )
    timeout_s: Annotated[Whole, Field(ge=1, le=MAX_TIMEOUT_S)] = Field(
        default=DEFAULT_TIMEOUT_S, description="How long the container may run."
    )
    max_attempts: Annotated[Whole, Field(ge=1, le=100)] = Field(
        default=1, description="How often the program may fail."
    )
    infra_retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        default=3, description="How often the infrastructure may fail and is tried again."
    )
    retry_on: Annotated[tuple[ExitCode, ...], Field(max_length=255)] = Field(
        default=(),
        description="The only exit codes that lead to another attempt, like 75,137.",
    )
    no_retry_on: Annotated[tuple[ExitCode, ...], Field(max_length=255)] = Field(
        default=(), description="Exit codes that never lead to another attempt, like 2."
    )
    backoff_s: Annotated[Whole, Field(ge=0, le=3600)] = Field(
        default=10,
        description="The pause before another attempt; doubled with each failure of its kind.",
    )
    max_cost: Annotated[forms.Amount, BeforeValidator(_max_cost)] | None = Field(
        default=None,
        description="What all its attempts may cost together, in US dollars like 1.50: a job that "
        "passes it is ended within a minute.",
    )
    priority: Annotated[Whole, Field(ge=-100, le=100)] = Field(
        default=0, description="Among jobs due together the higher goes first."
    )
    machine: Annotated[Machine, _ObjectOrEmptyList] = Field(
        default=Machine(), description="The instance that the job wants."
    )
    ports: Annotated[tuple[forms.Port, ...], forms.EACH_ONCE, Field(max_length=32)] = Field(
        default=("80:80",), description="Ports to publish, as HOST:CONTAINER."
    )
    user: container.User | None = Field(
        default=None, description="Who runs it in the container: USER or USER:GROUP."
    )
    workdir: container.Workdir | None = Field(
        default=None, description="The directory of the container in which it begins."
    )
    memory_mb: container.Memory | None = Field(
        default=None,
        description="The most memory it may have, in MiB: one that wants more is killed.",
    )
    shm_mb: container.SharedMemory | None = Field(
        default=None,
        description="The size of /dev/shm in the container, in MiB; docker's own is 64.",
    )
    volumes: container.Volumes = Field(
        default=(),
        description="Directories of the container that are on the machine's disk, like /data; "
        "HOST:CONTAINER where the operator allows it.",
    )
    gpus: container.Gpus | None = Field(
        default=None, description="NVIDIA GPUs that it gets: all, or how many."
    )
    network: container.Network = Field(
        default="bridge",
        description="Its network: docker's bridge with the published ports, the machine's own, or none.",
    )
    labels: Annotated[forms.Labels, Field(max_length=MOST_LABELS), _ObjectOrEmptyList] = Field(
        default_factory=dict,
        description="Names and values to find the job by; they become tags of its instance too.",
    )
    key: Annotated[forms.Key, Field(max_length=255)] | None = Field(
        default=None, description="Your name for this submit: the same key is the same job."
    )


class JobSpec(JobFields):
    """What a submitter asks for.

    `time` (or `run_at`) absent or past means now; `delay_s` asks for so many seconds after the submit
    instead.
    `timeout_s` bounds the container's run, `max_attempts` how often the program may fail,
    `infra_retries` how often the infrastructure may. With `retry_on` only these exit codes lead to
    another attempt, those in `no_retry_on` never do. `ports` are published as `host:container`.
    """

    model_config = ConfigDict(json_schema_extra={"not": forms.BOTH_TIMES})

    @field_validator("image")
    @classmethod
    def _image_is_a_reference(cls, text: str) -> str:
        return image.normalise(text)

    @field_validator("command", "entrypoint")
    @classmethod
    def _command_is_argv(cls, command: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if command is not None and not all(map(storable, command)):
            raise ValueError("an argument holds a NUL character or is not valid Unicode text")
        for number, word in enumerate(command or (), start=1):
            if (size := len(word.encode())) > environment.LONGEST:
                raise ValueError(
                    f"argument {number} takes {size} bytes, and a program can be started with "
                    f"{environment.LONGEST} in one: let the container fetch it"
                )
        if command and not command[0]:
            raise ValueError("its first element, the program to run, is empty")
        return command or None

    @field_validator("entrypoint")
    @classmethod
    def _program_is_a_path(cls, entrypoint: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if entrypoint and len(entrypoint[0]) > forms.LONGEST_PATH:
            raise ValueError(f"its program has more than {forms.LONGEST_PATH} characters")
        return entrypoint

    @field_validator("env")
    @classmethod
    def _env_is_an_environment(cls, env: dict[str, str]) -> dict[str, str]:
        environment.check(env)
        return dict(sorted(env.items()))

    @field_validator("secrets")
    @classmethod
    def _secrets_are_variables(
        cls, secrets: dict[str, SecretStr], info: ValidationInfo
    ) -> dict[str, SecretStr]:
        secret.check(secrets, info.data.get("env", {}))
        return dict(sorted(secrets.items()))

    @field_validator("secret_refs")
    @classmethod
    def _references_are_variables(
        cls, references: dict[str, str], info: ValidationInfo
    ) -> dict[str, str]:
        secret_reference.check(references, info.data.get("env", {}), info.data.get("secrets", {}))
        return dict(sorted(references.items()))

    @field_validator("time")
    @classmethod
    def _time_is_utc(cls, time: datetime | None) -> datetime | None:
        try:
            return time.astimezone(UTC) if time else None
        except OverflowError:
            raise ValueError("in UTC it is not within the years 1 to 9999") from None

    @field_validator("ports")
    @classmethod
    def _ports_are_ports(cls, ports: tuple[str, ...]) -> tuple[str, ...]:
        taken: dict[tuple[int, str], str] = {}
        for port in ports:
            match = forms.PORT.fullmatch(port)
            if not match or not all(0 < int(number) < 65536 for number in match.group(1, 2)):
                raise ValueError(f"{port!r} is not HOST:CONTAINER[/tcp|/udp], for example 80:8080")
            wanted = (int(match[1]), match[3] or "tcp")
            if wanted in taken:
                raise ValueError(
                    f"{taken[wanted]!r} and {port!r} want the same port of the machine"
                )
            taken[wanted] = port
        return ports

    @field_validator("labels")
    @classmethod
    def _labels_are_short(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not forms.LABEL.fullmatch(name):
                raise ValueError(f"{name!r} is not a label name (letters, digits, . _ / -)")
            if len(value) > 255 or not storable(value):
                raise ValueError(f"the value of label {name!r} is not text of 0 to 255 characters")
            try:
                tags.check_value(value)  # it becomes one: see `atemporal.tags`
            except ValueError as error:
                raise ValueError(f"the value of label {name!r} {error}") from None
        return dict(sorted(labels.items()))

    @field_validator("key", mode="before")
    @classmethod
    def _key_is_not_empty(cls, key: Any) -> Any:
        if key == "":
            raise ValueError("it is empty; give some text, or leave it out")
        return key

    @field_validator("key")
    @classmethod
    def _key_isstorable(cls, key: str | None) -> str | None:
        if key is not None and not storable(key):
            raise ValueError("it holds a NUL character or is not valid Unicode text")
        return key

    @model_validator(mode="after")
    def _one_time_only(self) -> JobSpec:
        if self.time is not None and self.delay_s is not None:
            raise ValueError("give time or delay_s, not both")
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
    config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    return create_model(f"Stored{model.__name__}", __config__=config, **fields)


_StoredSpec = _stored(JobSpec, machine=_stored(Machine))


def read_spec(stored: Mapping[str, Any], key: str | None) -> JobSpec:
    """Read a specification from the database, whichever release wrote it.

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
            "secrets": dict(sorted(read.secrets.items())),
            "secret_refs": dict(sorted(read.secret_refs.items())),
            "labels": dict(sorted(read.labels.items())),
            "machine": Machine.model_construct(**dict(read.machine)),
        }
    )


def with_values(spec: JobSpec, *, exclude: Collection[str]) -> dict[str, Any]:
    """A specification as it is stored, with its secrets' values; not for anybody's eyes."""
    stored = spec.model_dump(mode="json", exclude=set(exclude))
    return {**stored, "secrets": secret.revealed(spec.secrets)}


def parse_spec(fields: dict[str, Any]) -> JobSpec:
    """Check a submitter's fields.

    Raises:
        Invalid: with the name of each bad field and why; values are never repeated for `env`, `secrets`.
    """
    if {"time", "run_at"} <= fields.keys():
        raise Invalid({"time": "give time or run_at, which are the same, not both"})
    try:
        spec = JobSpec.model_validate(fields)
    except ValidationError as error:
        raise Invalid(describe(error)) from None
    # Here and not in the model: a job that an earlier release took is still read.
    architecture.check_one(spec.machine.instance_types)
    return spec


def by_own_names(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields by their names in the model, where another name was given alone."""
    fields = dict(given)
    for name, field in model.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices) and name not in fields:
            for other in field.validation_alias.choices:
                if isinstance(other, str) and other in fields:
                    fields[name] = fields.pop(other)
                    break
    return fields


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
