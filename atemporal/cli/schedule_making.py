"""`atemporal schedule create` and `edit`: a schedule's fields, and its job's, as options.

Promise: every field can be given here; the job's options are those of `atemporal submit`. What is bad is
refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import click

from atemporal.cli.arguments import LONGEST_S, duration_from, duration_text, text
from atemporal.cli.job_command import JobCommand
from atemporal.cli.schedule import NAME, done, next_fire
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.submit import options, spec_fields
from atemporal.model.job_spec import JobSpec
from atemporal.model.machine import Machine
from atemporal.model.schedule import ScheduleFields, parse_schedule
from atemporal.recurrence import CatchUp, Overlap

_NOT_TAKEN = ("time", "delay_s", "key", "start_deadline_s", "market")
_SECONDS = duration_from(1, LONGEST_S)


def _deadline(
    context: click.Context, parameter: click.Parameter, given: str | None
) -> int | str | None:
    """An option's callback: a duration in seconds, or `none`."""
    return given if given == "none" else _SECONDS(context, parameter, given)


def _help(name: str) -> str:
    field = ScheduleFields.model_fields[name]
    if field.is_required():
        return field.description or ""
    default = "none" if field.default is None else field.default
    shown = duration_text(default) if type(default) is int else default
    return f"{field.description}  [default: {shown}]"


def _without_default(option: click.Parameter) -> click.Parameter:
    """The same for who changes a schedule: what is not given stays as it is."""
    fields = {*ScheduleFields.model_fields, *JobSpec.model_fields, *Machine.model_fields}
    if isinstance(option, click.Option) and option.name in fields:
        option = copy(option)
        option.help = (option.help or "").partition("  [default: ")[0]
    return option


def _options() -> list[click.Parameter]:
    """The options of a schedule, then those of its job."""
    own: list[click.Parameter] = [
        click.Option(["--cron"], callback=text, metavar="LINE", help=_help("cron")),
        click.Option(["--tz", "zone"], callback=text, metavar="ZONE", help=_help("zone")),
        click.Option(
            ["--catch-up"],
            type=click.Choice([one.value for one in CatchUp]),
            help=_help("catch_up"),
        ),
        click.Option(
            ["--window", "window_s"],
            callback=_SECONDS,
            metavar="DURATION",
            help=_help("window_s"),
        ),
        click.Option(
            ["--overlap"],
            type=click.Choice([one.value for one in Overlap]),
            help=_help("overlap"),
        ),
        click.Option(
            ["--start-deadline", "start_deadline_s"],
            callback=_deadline,
            metavar="DURATION",
            help=_help("start_deadline_s"),
        ),
    ]
    return [*own, *(one for one in options() if one.name not in _NOT_TAKEN)]


def _emptied() -> dict[str, Any]:
    """The fields of a job and of its machine that can be given nothing, as options write them."""
    fields = {**JobSpec.model_fields, **Machine.model_fields}
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in fields.items()
        if name not in _NOT_TAKEN
    }
    return {
        name.replace("_", "-"): value
        for name, value in defaults.items()
        # Of secrets there are two kinds, and one option.
        if value in ({}, (), None) and name != "secret_refs"
    }


_EMPTIED = _emptied()
_IMAGE = click.Argument(["image"], required=False)
_COMMAND = click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)


@click.command(cls=JobCommand, params=[click.Argument(["name"]), _IMAGE, _COMMAND, *_options()])
@output_option
@pass_session
def create(session: Session, /, **given: Any) -> None:
    """Make a schedule; its first job is that of the next fire.

    The job's options are those of `atemporal submit`, before the command or --; what stands behind the
    beginning of the command is the command's:

    \b
        atemporal schedule create nightly --cron '0 2 * * *' --tz America/Sao_Paulo \\
            -e TARGET=s3 --timeout 1h -- backup:7 backup --all
    """
    context = click.get_current_context()
    if given["cron"] is None:
        raise click.UsageError("give --cron, like --cron '0 2 * * *'", context)
    if given["image"] is None:
        raise click.MissingParameter(ctx=context, param=_IMAGE)
    fields = {"name": given["name"], **_fields(given), "job": spec_fields(_whole(given))}
    parse_schedule(fields)
    made = session.api.create_schedule(fields)
    done(session, made, f"{made['name']} fires next {next_fire(made)}")


_CLEAR = click.Option(
    ["--clear"],
    multiple=True,
    type=click.Choice(list(_EMPTIED)),
    help="What the job is to have no more, like --clear env.",
)


@click.command(
    cls=JobCommand, params=[NAME, _IMAGE, _COMMAND, *map(_without_default, _options()), _CLEAR]
)
@output_option
@pass_session
def edit(session: Session, /, **given: Any) -> None:
    """Change what is given; the rest stays.

    Of the environment and the labels all is replaced if one is given; a new command needs its image
    before it. Secrets that are not given stay as they are. --clear takes one of these, or another field,
    away. Jobs that were made ahead for the
    next minutes are made anew if they would be others; what is due already stays as it is.
    """
    job = spec_fields(_whole(given))
    replaced = {
        "env": bool(given["env"] or given["env_file"]),
        "labels": bool(given["labels"]),
        "machine": bool(job["machine"]),
    }
    secrets = {"secrets": job.pop("secrets"), "secret_refs": job.pop("secret_refs", {})}
    job = {name: value for name, value in job.items() if replaced.get(name, True)}
    for option in given["clear"]:
        name = option.replace("-", "_")
        fields = job if name in JobSpec.model_fields else job.setdefault("machine", {})
        if name in fields or (name == "secrets" and given["secrets"]):
            raise click.UsageError(f"--clear {option} takes away what is given as well: do one")
        fields[name] = _EMPTIED[option]
        if name == "secrets":
            fields["secret_refs"] = {}
    changes = _fields(given)
    if given["secrets"]:
        known = session.api.schedule(given["name"])
        job |= _merged_secrets(known["job"], secrets)
        changes["version"] = known["version"]
    if job:
        changes["job"] = job
    if not changes:
        raise click.UsageError("give what is to be changed, like --cron '0 3 * * *'")
    changed = session.api.edit_schedule(given["name"], changes)
    done(session, changed, f"{changed['name']} fires next {next_fire(changed)}")


def _merged_secrets(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Both kinds of secrets: those that are known with what is given, by a value or by reference.

    Nobody who rotates one of them can know the others: null keeps each.
    """
    names = {name for values in given.values() for name in values}
    merged = {}
    for kind, values in given.items():
        before = known.get(kind, {})
        # An API of the release before refuses a kind that it does not know.
        if before or values:
            kept = {name: value for name, value in before.items() if name not in names}
            merged[kind] = {**kept, **values}
    return merged


def _whole(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a submit's options would have given."""
    return {**given, **dict.fromkeys(_NOT_TAKEN)}


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule's own fields that were given."""
    own = ("cron", "zone", "catch_up", "window_s", "overlap", "start_deadline_s")
    fields = {name: given[name] for name in own if given[name] is not None}
    if fields.get("start_deadline_s") == "none":
        fields["start_deadline_s"] = None
    return fields


COMMANDS = {"create": create, "edit": edit}
