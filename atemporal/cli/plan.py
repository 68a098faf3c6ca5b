"""`atemporal plan`: what will fire in the next hours, how much at once, and what it will cost.

Promise: what is only an upper bound, or not known, is said. It changes nothing.
"""

from __future__ import annotations

import click

from atemporal.cli import output
from atemporal.cli.cost import rounded
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.wording import at
from atemporal.client.plan import Plan, PlanHour
from atemporal.plural import counted


@click.command
@click.option(
    "--hours",
    type=click.IntRange(1, 168),
    default=24,
    show_default=True,
    help="How far to look ahead.",
)
@click.option(
    "--by",
    type=click.Choice(["hour", "schedule"]),
    default="hour",
    show_default=True,
    help="What a line of the table is.",
)
@output_option
@pass_session
def plan(session: Session, hours: int, by: str) -> None:
    """What will fire in the next hours, and what it will cost.

    \b
        atemporal plan --hours 48
        atemporal plan --by schedule
        atemporal plan -o json

    Jobs with a time, fires of recurring schedules, and what is under way. A run takes as long as the
    median of its schedule's last ten; where there is none, at most its timeout. It is shown as if no
    limit held anything back: where more is wanted than a limit allows, some will wait. Times are in UTC.
    """
    found = session.api.plan(hours)
    session.repeat_notice()
    if session.as_json:
        output.show_json(found)
        return
    click.echo(output.clean(_first_line(found)))
    if by == "hour":
        _hours(found)
    else:
        _schedules(found)
    _collisions(found)
    _notes(found)


def _first_line(found: Plan) -> str:
    peak = found["peak"]
    parts = [f"{counted(found['runs'], 'run')} until {found['until']}"]
    if found["under_way"]:
        parts.append(f"{found['under_way']} under way")
    if peak["instances"]:
        parts.append(f"peak {counted(peak['instances'], 'instance')} at {peak['at']}")
    if found["cost"] is None:
        parts.append(f"cost unknown: no price for {', '.join(found['unpriced'])}")
    else:
        bound = "at most " if found["at_most"] else ""
        parts.append(f"cost {bound}{rounded(found['cost'])} {found['currency']}")
    return ", ".join(parts)


def _hours(found: Plan) -> None:
    """A line for an hour; hours in which nothing changes and nothing starts are one line."""
    folded: list[PlanHour] = []
    for hour in found["hours"]:
        last = folded[-1] if folded else None
        if last and not (
            hour["starts"] or hour["instances"] or last["starts"] or last["instances"]
        ):
            folded[-1] = {**last, "until": hour["until"]}
        else:
            folded.append(hour)
    rows = [
        (
            f"{at(one['since']):%Y-%m-%d %H:%M} to {at(one['until']):%d %H:%M}",
            str(one["starts"]),
            str(one["instances"]),
            "?" if one["vcpus"] is None else str(one["vcpus"]),
            _amount(one["cost"]),
        )
        for one in folded
    ]
    output.table(
        ("hour", "starts", "at once", "vcpus", "cost"), rows, keep=("hour", "starts", "at once")
    )


def _schedules(found: Plan) -> None:
    rows = [
        (
            one["name"] or "(none)",
            str(one["runs"]),
            one["first_at"],
            f"{'at most ' if one['at_most'] else ''}{output.span(one['longest_s'])}",
            str(one["skipped"]),
            _amount(one["cost"]),
        )
        for one in found["schedules"]
    ]
    columns = ("schedule", "runs", "first", "longest", "skipped", "cost")
    output.table(columns, rows, keep=("schedule", "runs", "first"))


def _collisions(found: Plan) -> None:
    for one in found["collisions"]:
        click.echo(
            output.clean(
                f"limit {one['name']}: {one['wanted']} wanted, {one['most']} allowed, "
                f"{one['too_many']} too many from {one['since']} to {one['until']}"
            )
        )
    if found["more_collisions"]:
        click.echo(f"and {found['more_collisions']} more")
    if found["collisions"]:
        note(
            "what is too many waits: raise the limit (`atemporal limit set`), or give jobs other "
            "times (`atemporal reschedule`, `atemporal schedule edit`)"
        )


def _notes(found: Plan) -> None:
    if found["paused"]:
        note("the installation is paused: nothing of this is dispatched before `atemporal resume`")
    for one in found["stuck"]:
        note(f"the schedule {one['name']} can not be fired: {one['problem']}")
    if found["paused_schedules"]:
        names = found["paused_schedules"]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        note(f"paused schedules fire nothing: {', '.join(names[:10])}{more}")
    if found["at_most"]:
        note(
            f"of {counted(found['at_most'], 'run')} no earlier run says how long it takes: the timeout "
            "counts"
        )
    if found["skipped"]:
        note(
            f"{counted(found['skipped'], 'fire')} will be skipped: the run before is not over by then"
        )
    if found["unknown_vcpus"]:
        note(f"the vCPUs of {', '.join(found['unknown_vcpus'])} are not known: they count as none")
    if found["cut"]:
        note(
            f"more is planned than is looked at: this is what comes first, until {found['until']}"
        )


def _amount(cost: str | None) -> str:
    return "unknown" if cost is None else rounded(cost)


COMMANDS = {"plan": plan}
