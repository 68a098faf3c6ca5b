"""A recurring schedule: what is asked for, how it is recorded, and what became of its fires.

Promise: whatever is in a `ScheduleSpec` has been checked, the job and the cron line too; a bad field is
refused with its name (`job.image` for one of the job's) and the reason. Its job has neither a time nor a
key: each fire gives it both, and the label `LABEL`, by which a schedule's jobs are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StrictInt, ValidationError, field_validator

from atemporal.calendar import CronLine
from atemporal.clock import format_utc
from atemporal.errors import Invalid
from atemporal.model import forms, secret, secret_reference
from atemporal.model.frozen import Frozen
from atemporal.model.job_spec import (
    MAX_TIMEOUT_S,
    MOST_LABELS,
    JobSpec,
    by_own_names,
    describe,
    parse_spec,
    read_spec,
    with_values,
)
from atemporal.model.machine import Machine
from atemporal.recurrence import CatchUp, FireOutcome, FireReason, Overlap, Rules
from atemporal.userdata import check_fits

LABEL = "atemporal/schedule"
"""The label of a schedule's jobs; its value is the schedule's name."""

NEXT_SHOWN, MOST_NEXT = 5, 100
"""So many of the next fires are shown with a schedule, and so many at most."""
FIRES_SHOWN, MOST_FIRES = 20, 1000
"""The same of the latest."""

_OF_THE_FIRE = ("time", "run_at", "delay_s", "key", "start_deadline_s")
# The label that names the schedule is one too.
_LABELS = MOST_LABELS - 1

_Seconds = Annotated[StrictInt, Field(ge=1, le=MAX_TIMEOUT_S)]


def is_name(text: str) -> bool:
    """Tell whether a schedule may have this name."""
    return forms.SCHEDULE_NAME.fullmatch(text) is not None


class ScheduleFields(Frozen):
    """The fields of a schedule but for its job."""

    name: forms.ScheduleName = Field(
        description="What the schedule is called: letters, digits, _ and -."
    )
    cron: str = Field(
        max_length=1024, description="When it fires: five cron fields, or like @daily."
    )
    zone: str = Field(
        default="UTC", description="The zone whose clock that is read on, like Europe/Berlin."
    )
    catch_up: CatchUp = Field(
        default=CatchUp.SKIP,
        description="Which fires are run late that came while no scheduler worked: none, the latest "
        "one, or each.",
    )
    window_s: _Seconds = Field(
        default=86_400, description="How old a fire may be that is caught up on."
    )
    overlap: Overlap = Field(
        default=Overlap.ALLOW,
        description="What a fire does while the job of an earlier one has not finished: run beside it, "
        "be skipped, or cancel it.",
    )
    start_deadline_s: _Seconds | None = Field(
        default=None,
        description="A fire whose container has not started so long after its time is skipped.",
    )

    @field_validator("name")
    @classmethod
    def _name_is_one(cls, name: str) -> str:
        return forms.checked_schedule_name(name)

    @property
    def rules(self) -> Rules:
        """What is wanted of its fires."""
        return Rules(self.catch_up, self.window_s, self.overlap, self.start_deadline_s)


class ScheduleSpec(ScheduleFields):
    """What a schedule is asked to be."""

    job: JobSpec

    @property
    def line(self) -> CronLine:
        """Its cron line in its zone.

        Raises:
            Invalid: this release can not read it, but another could.
        """
        return CronLine.parse(self.cron, self.zone)

    @property
    def line_if_read(self) -> CronLine | None:
        """Its line; None where this release can not read it: that keeps nobody from changing it."""
        try:
            return self.line
        except Invalid:
            return None


class Schedule(ScheduleSpec):
    """A schedule as it is recorded.

    All fires before `next_fire_at` are decided; None when it never fires again. `rules_version` is that
    of the zone rules by which it was computed. `version` counts the changes. `problem` is why the
    schedule can not be fired. `read_at` is when this was so, by the database's clock.
    """

    id: UUID
    version: int
    paused_at: datetime | None = None
    next_fire_at: datetime | None = None
    rules_version: str
    problem: str | None = None
    created_at: datetime
    updated_at: datetime
    read_at: datetime

    def job_at(self, fire: datetime) -> JobSpec:
        """The job of a fire: its key makes it once only."""
        key = f"schedule:{self.name}:{format_utc(fire)}"
        return self.labelled().model_copy(update={"time": fire, "key": key})

    def labelled(self) -> JobSpec:
        """The job with the label and the start deadline, without a time: it is due now."""
        labels = dict(sorted({**self.job.labels, LABEL: self.name}.items()))
        more = {"labels": labels, "start_deadline_s": self.start_deadline_s}
        return self.job.model_copy(update=more)


class RecordedFire(Frozen):
    """What became of a fire, or of `count` fires from `fire_time` until `until`.

    `job_state` is its job's outcome once that has finished, else its state; None when there is none, or
    it was deleted.
    """

    fire_time: datetime
    outcome: FireOutcome
    reason: FireReason | None = None
    job_id: UUID | None = None
    job_state: str | None = None
    count: int = 1
    until: datetime | None = None
    decided_at: datetime


def parse_schedule(fields: Mapping[str, Any]) -> ScheduleSpec:
    """Check the fields of a schedule.

    Raises:
        Invalid: with each bad field and why.
    """
    given = dict(fields)
    wrong: dict[str, str] = {}
    job = given.pop("job", None)
    spec: JobSpec | None = None
    if not isinstance(job, Mapping):
        wrong["job"] = "write an object with the fields of a job, like {'image': 'nginx'}"
    else:
        try:
            spec = _job(job)
        except Invalid as error:
            wrong |= {f"job.{name}": why for name, why in error.fields.items()}
    parsed: ScheduleFields | None = None
    try:
        parsed = ScheduleFields.model_validate(given)
    except ValidationError as error:
        wrong |= describe(error)
    cron, zone = given.get("cron"), given.get("zone", "UTC")
    if isinstance(cron, str) and isinstance(zone, str) and not {"cron", "zone"} & wrong.keys():
        try:
            line = CronLine.parse(cron, zone)
        except Invalid as error:
            wrong |= error.fields
    if wrong or parsed is None or spec is None:
        raise Invalid(wrong)
    return ScheduleSpec.model_construct(
        **{**dict(parsed), "cron": line.text, "zone": line.zone, "job": spec}
    )


def _job(fields: Mapping[str, Any]) -> JobSpec:
    wrong = {
        name: "is the schedule's own field: give it beside the job"
        if name in ScheduleFields.model_fields
        else "belongs to each fire of a schedule, and can not be given"
        for name in _OF_THE_FIRE
        if fields.get(name) is not None
    }
    labels = fields.get("labels")
    if isinstance(labels, Mapping):
        if LABEL in labels:
            wrong["labels"] = f"{LABEL} is given to the jobs of a schedule by itself"
        elif len(labels) > _LABELS:
            wrong["labels"] = f"has more than {_LABELS} labels; {LABEL} comes with each fire"
    if wrong:
        raise Invalid(wrong)
    spec = parse_spec(dict(fields))
    check_fits(spec)
    return spec


def job_schema() -> dict[str, Any]:
    """The JSON Schema of a schedule's job, without references."""
    schema = JobSpec.model_json_schema()
    schema["properties"]["machine"] = schema.pop("$defs")["Machine"]
    schema["properties"]["labels"]["maxProperties"] = _LABELS
    # It has neither of the two.
    schema.pop("not")
    for name in _OF_THE_FIRE:
        schema["properties"].pop(name, None)
    return schema


def written_job(spec: JobSpec) -> dict[str, Any]:
    """The job's fields as JSON, as they are stored and as they are given: with its secrets' values."""
    return with_values(spec, exclude=_OF_THE_FIRE)


def shown_job(spec: JobSpec) -> dict[str, Any]:
    """The job's fields as JSON for whoever asks: of its secrets the names."""
    return spec.model_dump(mode="json", exclude=set(_OF_THE_FIRE))


def parse_edit(fields: Mapping[str, Any], stored: Any, changes: Mapping[str, Any]) -> ScheduleSpec:
    """Check a schedule as it is to be; `stored` is its job.

    What is not changed may stay as an earlier release took it, though this one would refuse it.

    Raises:
        Invalid: with each bad field and why.
    """
    asked = changes.get("job", {})
    job = merged_job(stored, asked)
    try:
        return parse_schedule({**fields, **changes, "job": job})
    except Invalid as error:
        if not isinstance(asked, Mapping):
            raise
        may_stay = {
            f"job.{name}"
            for name, one in JobSpec.model_fields.items()
            if name not in asked and not one.is_required()
        }
        bad = {".".join(field.split(".")[:2]) for field in error.fields}
        if not bad <= may_stay:
            raise
        try:
            before = read_spec(stored, None)
        except ValidationError:
            raise error from None
        same = {name: getattr(before, name) for name in (one.split(".")[1] for one in bad)}
    others = {name: one for name, one in job.items() if name not in same}
    spec = parse_schedule({**fields, **changes, "job": others})
    edited = spec.job.model_copy(update=same)
    # Each may be right by itself, and not with the others.
    try:
        wrong = "job.secrets"
        secret.check(edited.secrets, edited.env)
        wrong = "job.secret_refs"
        secret_reference.check(edited.secret_refs, edited.env, edited.secrets)
        check_fits(edited)
    except ValueError as error:
        raise Invalid({wrong: str(error)}) from None
    except Invalid as error:
        raise Invalid({f"job.{name}": why for name, why in error.fields.items()}) from None
    return spec.model_copy(update={"job": edited})


def merged_job(stored: Any, asked: Any) -> Any:
    """The fields of a stored job with what is asked to be another; of its machine too.

    A secret that is null keeps the stored value.

    What a newer release stored besides is left out here, and kept by `stored_job`.
    """
    if not isinstance(asked, Mapping):
        return asked
    known = _known(stored)
    machine = asked.get("machine", {})
    if machine == []:
        # PHP writes an empty object as an empty list.
        machine = {}
    if isinstance(machine, Mapping):
        machine = {**known.get("machine", {}), **by_own_names(Machine, machine)}
    merged = {**known, **asked, "machine": machine}
    if isinstance(secrets := asked.get("secrets"), Mapping):
        # What is shown of a secret, sent back: it stays as it is.
        kept = known.get("secrets", {})
        merged["secrets"] = {
            name: kept.get(name) if value is None else value for name, value in secrets.items()
        }
    return merged


def stored_job(stored: Any, wanted: JobSpec) -> Any:
    """What is to be stored in place of `stored`: the fields that are to be others, over the rest."""
    known = _known(stored)
    changed = {name: to for name, to in written_job(wanted).items() if known.get(name) != to}
    if not changed:
        return stored
    before = stored if isinstance(stored, Mapping) else {}
    if "machine" in changed and isinstance(before.get("machine"), Mapping):
        changed["machine"] = {**before["machine"], **changed["machine"]}
    return {**before, **changed}


def _known(stored: Any) -> dict[str, Any]:
    """Of a stored job what this release knows; of one that it can not read, as it is stored."""
    try:
        return written_job(read_spec(stored, None))
    except ValidationError:
        fields = stored if isinstance(stored, Mapping) else {}
    known = {
        name: value
        for name, value in fields.items()
        if name in JobSpec.model_fields and name not in _OF_THE_FIRE
    }
    machine = known.pop("machine", None)
    if isinstance(machine, Mapping):
        machine = by_own_names(Machine, machine)
        known["machine"] = {
            name: machine[name] for name in Machine.model_fields if name in machine
        }
    return known


def shown_in_part(row: Mapping[str, Any], why: str) -> Schedule:
    """A schedule that can not be read, as far as it can be shown: not its job, `why` as its problem."""
    given = {name: row[name] for name in Schedule.model_fields if name in row}
    for name, kind in (("catch_up", CatchUp), ("overlap", Overlap)):
        if given[name] in set(kind):
            given[name] = kind(given[name])
    job = JobSpec.model_construct(image="")
    return Schedule.model_construct(**{**given, "job": job, "problem": why})


def read_schedule(row: Mapping[str, Any]) -> Schedule:
    """Read a schedule's row, whichever release wrote it.

    Raises:
        ValidationError: a value of it means nothing to this release.
    """
    given = {name: row[name] for name in Schedule.model_fields if name in row}
    fields = {name: given.pop(name) for name in ScheduleFields.model_fields}
    checked = ScheduleFields.model_validate(fields)
    return Schedule.model_construct(
        **{**given, **dict(checked), "job": read_spec(row["spec"], None)}
    )
