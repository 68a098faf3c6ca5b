"""`atemporal submit`: a job's fields as options.

Promise: every field of a job can be given here. Its option, range and help follow from `JobSpec` and
`Machine`; only what a command line writes in its own way (times, the environment, ports) is spelled out
below. The answer is the job's id, written down for good; the same `--key` gives the same job however
often it is submitted. What is bad is refused here, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from pydantic.fields import FieldInfo

from atemporal.cli import arguments, job_file, output
from atemporal.cli.arguments import (
    duration_from,
    pairs,
    read_environment,
    read_references,
    read_secrets,
)
from atemporal.cli.job_command import JobCommand
from atemporal.cli.masks import masked_job
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.wording import at
from atemporal.client import JobDetail
from atemporal.clock import format_utc
from atemporal.model import JobSpec, Machine, parse_spec

ARGUMENTS = frozenset({"image", "command"})
"""Fields that stand on the command line without an option's name."""
BY_ANOTHER = frozenset({"secret_refs"})
"""Fields that another one's option gives: --secret takes references too."""


def option_of(name: str, field: FieldInfo) -> click.Option:
    """The option of a field whose type says all: a number, a choice, a text, or several of these.

    A field `x_s` is a duration `--x`; one that takes several (`xs`) is a repeated `--x`.

    Raises:
        TypeError: the type has no such option; it belongs into `SPECIAL`.
    """
    kind, bounds = _unwrapped(field.annotation), _bounds(field)
    extra: dict[str, Any] = {"help": _help(name, field)}
    if kind is int and name.endswith("_s"):
        low, high = bounds["ge"], bounds["le"]
        extra |= {"callback": duration_from(low, high), "metavar": "DURATION"}
        flag = name.removesuffix("_s")
    elif kind is int:
        extra["type"] = click.IntRange(bounds.get("ge"), bounds.get("le"))
        flag = name
    elif kind is str:
        extra["callback"] = arguments.text
        flag = name
    elif kind is bool:
        extra |= {"is_flag": True, "default": None}
        flag = name
    elif get_origin(kind) is Literal:
        extra["type"] = click.Choice(get_args(kind))
        flag = name
    elif get_origin(kind) is tuple and _unwrapped(get_args(kind)[0]) is str:
        extra |= {"multiple": True, "metavar": name.removesuffix("s").upper()}
        flag = name.removesuffix("s")
    elif get_origin(kind) is tuple and _unwrapped(get_args(kind)[0]) is int:
        extra |= {"callback": arguments.exit_codes, "metavar": "CODES"}
        flag = name
    else:
        raise TypeError(f"{name}: a command line has no option for {field.annotation}")
    return click.Option([f"--{flag.replace('_', '-')}", name], **extra)


def _unwrapped(kind: Any) -> Any:
    """The type itself, without its bounds and without `| None`."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            (kind,) = (one for one in get_args(kind) if one is not NoneType)
        else:
            return kind


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """The smallest and the largest value allowed, as `ge` and `le`."""
    rules = list(field.metadata)
    for one in get_args(field.annotation):
        for rule in getattr(one, "__metadata__", ()):
            rules += getattr(rule, "metadata", [rule])
    found: dict[str, Any] = {}
    for rule in rules:
        if isinstance(rule, annotated_types.Ge):
            found["ge"] = rule.ge
        elif isinstance(rule, annotated_types.Le):
            found["le"] = rule.le
    return found


def _help(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    text = field.description or ""
    if default in (None, (), {}) or isinstance(default, bool):
        return text
    shown = arguments.duration_text(default) if name.endswith("_s") else default
    return f"{text}  [default: {', '.join(shown) if isinstance(shown, tuple) else shown}]"


def _fields() -> dict[str, FieldInfo]:
    """All fields of a job and of its machine, in their order."""
    of_job = {name: one for name, one in JobSpec.model_fields.items() if name != "machine"}
    return {**of_job, **Machine.model_fields}


SPECIAL: Mapping[str, tuple[click.Option, ...]] = {
    "time": (
        click.Option(
            ["--at", "--time", "time"],
            callback=arguments.instant,
            metavar="TIME",
            help="When to run: ISO 8601, in UTC unless it says another offset.",
        ),
    ),
    "delay_s": (
        click.Option(
            ["--in", "delay_s"],
            callback=duration_from(0, arguments.LONGEST_S),
            metavar="DURATION",
            help="When to run: so long from now, like 10m.",
        ),
    ),
    "lead": (
        click.Option(
            ["--lead", "lead"],
            callback=arguments.lead,
            metavar="DURATION",
            help="How long before its time the launch begins: auto is what recent machines took; like "
            "90s; 0 is none.  [default: auto]",
        ),
    ),
    "entrypoint": (
        click.Option(
            ["--entrypoint", "entrypoint"],
            callback=arguments.text,
            metavar="PROGRAM",
            help="What to run in place of the image's own entrypoint; its command counts no more.",
        ),
    ),
    "gpus": (
        click.Option(
            ["--gpus", "gpus"],
            callback=arguments.gpus,
            metavar="all|NUMBER",
            help="NVIDIA GPUs that the container gets.",
        ),
    ),
    "env": (
        click.Option(
            ["-e", "--env", "env"],
            multiple=True,
            metavar="NAME[=VALUE]",
            help="A variable for the job; NAME alone takes your own value.",
        ),
        click.Option(
            ["--env-file", "env_file"],
            multiple=True,
            type=click.File("rb"),
            help="A file of NAME=VALUE lines; - is standard input.",
        ),
        click.Option(
            ["--env-file-format", "env_file_format"],
            type=click.Choice(["docker", "compose"]),
            help="By whose rules: docker takes values as they are written, compose has quotes, comments "
            "behind values, ${NAME:-default} and export.  [default: docker]",
        ),
    ),
    "secrets": (
        click.Option(
            ["--secret", "secrets"],
            multiple=True,
            metavar="NAME[=@FILE|=ssm:NAME|=secretsmanager:NAME]",
            help="A variable for the job that nobody is shown: your own of that name, a file's text, or "
            "a reference to what the machine gets from AWS (instances need a role for it).",
        ),
    ),
    "labels": (
        click.Option(
            ["--label", "labels"],
            multiple=True,
            metavar="NAME=VALUE",
            help="For `list --label`.",
        ),
    ),
    "ports": (
        click.Option(
            ["--port", "ports"],
            multiple=True,
            metavar="HOST:CONTAINER",
            help="A port to publish, or none.  [default: 80:80]",
        ),
    ),
}
"""Fields that a command line writes in its own way."""

# The first name of the field, which scripts may still write.
_MARKET = click.Option(
    ["--market", "market"],
    type=click.Choice(get_args(_unwrapped(Machine.model_fields["capacity_type"].annotation))),
    hidden=True,
)


def options() -> list[click.Parameter]:
    """The options of all fields, in the model's order."""
    made: list[click.Parameter] = []
    for name, field in _fields().items():
        if name not in ARGUMENTS | BY_ANOTHER:
            made += SPECIAL.get(name) or [option_of(name, field)]
    return [*made, _MARKET]


@click.command(
    cls=JobCommand,
    params=[
        click.Argument(["image"], required=False),
        click.Argument(["command"], nargs=-1, type=click.UNPROCESSED),
        *options(),
        *job_file.OPTIONS,
    ],
)
@output_option
@pass_session
def submit(session: Session, /, **given: Any) -> None:
    """Submit a job: an image, an environment, a time.

    Prints the job's id, and on standard error when it is due. Without --at or --in it is due now; a
    time that has passed means now too.
    The words behind the image's options are the command to run in place of the image's own; whatever
    stands behind the first of them is the command's, as with docker. A command that begins with a dash
    needs -- before it:

    \b
        atemporal submit alpine --in 10m -e NAME=bond sh -c 'echo "$NAME"'
        atemporal submit report:7 --at 2030-04-25T05:00:00+02:00 --key report-25 --timeout 1h
        atemporal wait $(atemporal submit nightly:3 --capacity-type spot --infra-retries 5)

    With --from-file there is no IMAGE: each line of the file is a job as a JSON object, with the fields
    of the API, {"image": "alpine", "command": ["true"], "delay_s": 600}. All of the file is checked
    before anything is submitted. A line without a key gets one, so the same command may be repeated: it
    makes nothing twice. Prints the ids in the order of the lines.
    """
    if given["from_file"] is not None:
        job_file.submit(session, given)
        return
    if given["skip_errors"]:
        raise click.UsageError("--skip-errors is for the lines of --from-file")
    if given["image"] is None:
        context = click.get_current_context()
        raise click.MissingParameter(ctx=context, param=context.command.params[0])
    fields = spec_fields(given)
    parse_spec(fields)
    job, created = session.api.submit(fields)
    if created:
        note(f"due {job['due_at']}, {_how_far(job)}")
        if job["waiting_detail"]:
            note(f"it waits for {job['waiting_for']}: {job['waiting_detail']}")
    else:
        note(f"the key {job['key']!r} has this job already: nothing new was made")
    session.repeat_notice()
    if session.as_json:
        output.show_json(masked_job(job))
    else:
        click.echo(job["id"])


def _how_far(job: JobDetail) -> str:
    """How far away a new job's time is, by the clock that decides it: the database's."""
    seconds = (at(job["due_at"]) - at(job["created_at"])).total_seconds()
    return f"in {output.span(seconds)}" if seconds > 0 else "which is now"


def spec_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """From what the options gave to a specification's fields; what was not given is left out."""
    if given["time"] is not None and given["delay_s"] is not None:
        raise click.UsageError("give --at or --in, not both")
    if given["env_file_format"] and not given["env_file"]:
        raise click.UsageError("--env-file-format says how to read an --env-file: give one")
    if given["market"] and given["capacity_type"]:
        raise click.UsageError("--market is the old name of --capacity-type: give one of them")
    values = dict(given)
    values["env"] = read_environment(given["env_file"], given["env"], given["env_file_format"])
    values["secrets"] = read_secrets(given["secrets"])
    # An API of the release before knows of none, and refuses the field.
    values["secret_refs"] = read_references(given["secrets"]) or None
    values["labels"] = pairs(given["labels"], "--label")
    values["capacity_type"] = given["capacity_type"] or given["market"]
    fields = {name: values[name] for name in _fields() if values[name] not in (None, ())}
    if given["time"] is not None:
        fields["time"] = format_utc(given["time"])
    if given["entrypoint"] is not None:
        fields["entrypoint"] = (given["entrypoint"],)
    if given["ports"] == ("none",):
        fields["ports"] = ()
    machine = {name: fields.pop(name) for name in Machine.model_fields if name in fields}
    return {**fields, "machine": machine}


COMMANDS = {"submit": submit}
