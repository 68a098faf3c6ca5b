"""`atemporal schedule`: jobs that recur by a cron line.

Promise: a schedule's job takes the options of `atemporal submit`, but for its time and its key, which
each fire gives it. What is bad is refused here, before anything is sent. A change is done when the
command returns.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from copy import copy
from typing import Any

import click
from click.shell_completion import CompletionItem

from atemporal.cli import output
from atemporal.cli.arguments import LONGEST_S, duration_from, duration_text, text
from atemporal.cli.masks import masked_env, masked_job
from atemporal.cli.output import clean, distance, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.submit import options, spec_fields
from atemporal.cli.wording import at
from atemporal.client import PAGE, Schedule, ScheduleDetail
from atemporal.errors import AtemporalError
from atemporal.model.job_spec import JobSpec, Machine
from atemporal.model.schedule import (
    FIRES_SHOWN,
    MOST_FIRES,
    MOST_NEXT,
    NEXT_SHOWN,
    ScheduleFields,
    parse_schedule,
)
from atemporal.recurrence import CatchUp, Overlap

# What a submit has besides: each fire has a time and a key of its own, and a new command no old names.
_NOT_TAKEN = ("time", "delay_s", "key", "market")
_SECONDS = duration_from(1, LONGEST_S)


def _known(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a name; with none when the API does not answer."""
    try:
        known = context.ensure_object(Session).api.schedules()["schedules"]
    except AtemporalError:
        return []
    return [
        CompletionItem(one["name"], help=f"{one['cron']} {one['zone']}")
        for one in known
        if one["name"].startswith(incomplete)
    ]


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


_NAME = click.Argument(["name"], shell_complete=_known)
_IMAGE = click.Argument(["image"], required=False)
_COMMAND = click.Argument(["command"], nargs=-1, type=click.UNPROCESSED)


@click.group
def schedule() -> None:
    """Recurring schedules: make, look, pause, change, delete.

    Each time its cron line comes a schedule makes a job, ahead of that time, so that its container can
    start on time. The jobs have the label atemporal/schedule=NAME.
    """


@schedule.command(params=[click.Argument(["name"]), _IMAGE, _COMMAND, *_options()])
@output_option
@pass_session
def create(session: Session, /, **given: Any) -> None:
    """Make a schedule; its first job is that of the next fire.

    The job's options are those of `atemporal submit`, before --; what stands behind the image is the
    command:

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
    _done(session, made, f"{made['name']} fires next {_next(made)}")


@schedule.command("list")
@output_option
@pass_session
def list_schedules(session: Session) -> None:
    """List the schedules by name."""
    found: list[Schedule] = []
    after: str | None = ""
    while after is not None:
        page = session.api.schedules(limit=PAGE, after=after)
        found += page["schedules"]
        after = page["next"]
    session.repeat_notice()
    if session.as_json:
        output.show_json([_masked(one) for one in found])
        return
    person = output.for_terminal()
    output.table(
        ("name", "state", "next", "cron", "zone", "image"),
        [_line(one, person) for one in found],
        keep=("name", "state", "next"),
    )
    if not found:
        note("there are no schedules yet; `atemporal schedule create` makes one")


@schedule.command(params=[_NAME])
@click.option(
    "--next", "following", type=click.IntRange(0, MOST_NEXT), default=NEXT_SHOWN, show_default=True
)
@click.option(
    "--fires", type=click.IntRange(0, MOST_FIRES), default=FIRES_SHOWN, show_default=True
)
@click.option("--reveal", is_flag=True, help="Show the environment's values.")
@output_option
@pass_session
def show(session: Session, name: str, following: int, fires: int, reveal: bool) -> None:
    """Show a schedule: what it is, its next fires, what became of the latest."""
    found = session.api.schedule(name, next_fires=following, fires=fires)
    session.repeat_notice()
    if session.as_json:
        output.show_json(_masked(found, reveal=reveal))
        return
    for line in output.aligned(list(_facts(found).items())):
        click.echo(clean(line))
    for variable, value in masked_env(found["job"]["env"], reveal=reveal).items():
        click.echo(f"env        {variable}={clean(value)}")
    now = at(found["read_at"])
    for title, columns, rows in (
        (
            "the next fires",
            ("local", "utc", "when", "job"),
            [
                (one["local"], one["time"], distance(at(one["time"]), now), one["job_id"] or "")
                for one in found["next_fires"]
            ],
        ),
        (
            "the latest fires",
            ("local", "utc", "fire", "why", "count", "ended", "job"),
            [
                (
                    *(one["local"], one["time"], one["outcome"], one["reason"] or ""),
                    *(str(one["count"]), one["job_state"] or "", one["job_id"] or ""),
                )
                for one in found["fires"]
            ],
        ),
    ):
        if rows:
            click.echo(f"\n{title}:")
            output.table(columns, rows, keep=columns[:3])


@schedule.command(params=[_NAME])
@output_option
@pass_session
def pause(session: Session, name: str) -> None:
    """Fire no more until `resume`; jobs of its fires that have not begun are cancelled."""
    _done(session, session.api.pause_schedule(name), f"{name} paused")


@schedule.command(params=[_NAME])
@output_option
@pass_session
def resume(session: Session, name: str) -> None:
    """Fire again, from now on; the fires of the pause are skipped."""
    resumed = session.api.resume_schedule(name)
    _done(session, resumed, f"{name} fires next {_next(resumed)}")


@schedule.command("run-now", params=[_NAME])
@click.option(
    "--key", callback=text, help="Your name for this call: the same key is the same job."
)
@output_option
@pass_session
def run_now(session: Session, name: str, key: str | None) -> None:
    """Run the schedule's job now, beside its fires; print the job's id."""
    job, created = session.api.run_schedule(name, key=key)
    if not created:
        note(f"the key {job['key']!r} has this job already: nothing new was made")
    session.repeat_notice()
    if session.as_json:
        output.show_json(masked_job(job))
    else:
        click.echo(job["id"])


@schedule.command(params=[_NAME, _IMAGE, _COMMAND, *map(_without_default, _options())])
@output_option
@pass_session
def edit(session: Session, /, **given: Any) -> None:
    """Change what is given; the rest stays.

    Of the environment and the labels all is replaced if one is given; a new command needs its image
    before it. Jobs that were made ahead for the next minutes are made anew if they would be others; what
    is due already stays as it is.
    """
    job = spec_fields(_whole(given))
    replaced = {
        "env": bool(given["env"] or given["env_file"]),
        "labels": bool(given["labels"]),
        "machine": bool(job["machine"]),
    }
    job = {name: value for name, value in job.items() if replaced.get(name, True)}
    changes = {**_fields(given), **({"job": job} if job else {})}
    if not changes:
        raise click.UsageError("give what is to be changed, like --cron '0 3 * * *'")
    changed = session.api.edit_schedule(given["name"], changes)
    _done(session, changed, f"{changed['name']} fires next {_next(changed)}")


@schedule.command(params=[_NAME])
@output_option
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a schedule with the record of its fires; jobs that have not begun are cancelled."""
    deleted = session.api.delete_schedule(name)
    if session.as_json:
        output.show_json(_masked(deleted))
    else:
        click.echo(f"{name} deleted")


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


def _done(session: Session, changed: ScheduleDetail, sentence: str) -> None:
    session.repeat_notice()
    if session.as_json:
        output.show_json(_masked(changed))
    else:
        click.echo(sentence)


def _masked(shown: Schedule | ScheduleDetail, *, reveal: bool = False) -> dict[str, Any]:
    """A schedule as the API sends it, without the values of its job's environment."""
    job = shown["job"]
    return {**shown, "job": {**job, "env": masked_env(job["env"], reveal=reveal)}}


def _next(shown: Schedule | ScheduleDetail) -> str:
    if shown["paused_at"]:
        return "when it is resumed: it is paused"
    if shown["next_fire_at"] is None:
        problem = shown["problem"]
        return f"when this is mended: {problem}" if problem else "never again"
    return f"{shown['next_fire_local']} ({shown['next_fire_at']})"


def _state(shown: Schedule | ScheduleDetail) -> str:
    if shown["problem"]:
        return "stuck"
    return "paused" if shown["paused_at"] else "active"


def _line(one: Schedule, person: bool) -> tuple[str, ...]:
    following = one["next_fire_at"] or ""
    if person and following:
        following = distance(at(following), at(one["read_at"]))
    return (*(one["name"], _state(one), following, one["cron"], one["zone"], one["job"]["image"]),)


def _facts(found: ScheduleDetail) -> dict[str, str]:
    job, deadline = found["job"], found["start_deadline_s"]
    state = _state(found)
    if found["problem"]:
        state += f": {found['problem']}"
    elif found["paused_at"]:
        state += f" since {found['paused_at']}"
    facts = {
        "schedule": found["name"],
        "state": state,
        "cron": found["cron"],
        "zone": f"{found['zone']} (rules {found['rules_version']})",
        "catch-up": f"{found['catch_up']}, within {output.span(found['window_s'])}",
        "overlap": found["overlap"],
        "image": job["image"],
        "command": shlex.join(job["command"]) if job["command"] else "the image's own",
        "labels": ",".join(f"{name}={value}" for name, value in job["labels"].items()),
        "changed": f"{found['updated_at']}, version {found['version']}",
    }
    if deadline is not None:
        facts["start by"] = f"{output.span(deadline)} after its time"
    return {name: value for name, value in facts.items() if value}


COMMANDS = {"schedule": schedule}
