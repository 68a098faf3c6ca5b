"""`atemporal schedule`: jobs that recur by a cron line.

Promise: a schedule's job takes the options of `atemporal submit`, but for its time and its key, which
each fire gives it. What is bad is refused here, before anything is sent. A change is done when the
command returns.
"""

from __future__ import annotations

import shlex
from typing import Any

import click

from atemporal.cli import output
from atemporal.cli.arguments import known_schedules, text
from atemporal.cli.masks import masked_env, masked_job, variables_of
from atemporal.cli.output import clean, distance, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.usual import FIRES_SHOWN, MOST_FIRES, MOST_NEXT, NEXT_SHOWN
from atemporal.cli.wording import at
from atemporal.client import PAGE, Schedule, ScheduleDetail

# What a submit has besides: each fire has a time, a key and a start deadline of its own, and a new
# command no old names.
NAME = click.Argument(["name"], shell_complete=known_schedules)
# The commands whose options are a job's fields; the model takes longer to import than the others do.
_MAKING = ("create", "edit")


class _Schedule(click.Group):
    """The group; what takes a job's fields is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, with those that are not imported yet."""
        return sorted({*super().list_commands(ctx), *_MAKING})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _MAKING:
            return super().get_command(ctx, cmd_name)
        from atemporal.cli import schedule_making

        return schedule_making.COMMANDS[cmd_name]


@click.group(cls=_Schedule)
def schedule() -> None:
    """Recurring schedules: make, look, pause, change, delete.

    Each time its cron line comes a schedule makes a job, ahead of that time, so that its container can
    start on time. The jobs have the label atemporal/schedule=NAME.

    \b
        atemporal schedule create nightly --cron '0 2 * * *' --tz America/Sao_Paulo -- backup:7
        atemporal schedule show nightly --next 10
        atemporal schedule run-now nightly
        atemporal list --schedule nightly
    """


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


@schedule.command(params=[NAME])
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
    variables = variables_of(found["job"], reveal=reveal)
    for line in output.aligned([*_facts(found).items(), *variables]):
        click.echo(clean(line))
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


@schedule.command(params=[NAME])
@output_option
@pass_session
def pause(session: Session, name: str) -> None:
    """Fire no more until `resume`; jobs of its fires that have not begun are cancelled."""
    done(session, session.api.pause_schedule(name), f"{name} paused")


@schedule.command(params=[NAME])
@output_option
@pass_session
def resume(session: Session, name: str) -> None:
    """Fire again, from now on; the fires of the pause are skipped."""
    resumed = session.api.resume_schedule(name)
    done(session, resumed, f"{name} fires next {next_fire(resumed)}")


@schedule.command("run-now", params=[NAME])
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


@schedule.command(params=[NAME])
@output_option
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a schedule with the record of its fires; jobs that have not begun are cancelled."""
    deleted = session.api.delete_schedule(name)
    if session.as_json:
        output.show_json(_masked(deleted))
    else:
        click.echo(f"{name} deleted")


def done(session: Session, changed: ScheduleDetail, sentence: str) -> None:
    """Answer with what a schedule has become."""
    session.repeat_notice()
    if session.as_json:
        output.show_json(_masked(changed))
    else:
        click.echo(sentence)


def _masked(shown: Schedule | ScheduleDetail, *, reveal: bool = False) -> dict[str, Any]:
    """A schedule as the API sends it, without the values of its job's environment."""
    job = shown["job"]
    return {**shown, "job": {**job, "env": masked_env(job["env"], reveal=reveal)}}


def next_fire(shown: Schedule | ScheduleDetail) -> str:
    """When it fires next, or why it does not."""
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
