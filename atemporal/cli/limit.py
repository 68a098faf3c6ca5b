"""`atemporal limit`: how much may be under way at once.

Promise: a change is done when the command returns, for every job that is dispatched afterwards. What is
no limit is refused here, before anything is sent.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from atemporal.cli import output
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.usual import MOST_OF_LIMIT
from atemporal.client import Limit
from atemporal.errors import AtemporalError


def _known(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a limit's name; with none when the API does not answer."""
    try:
        known = context.ensure_object(Session).api.limits()
    except AtemporalError:
        return []
    return [
        CompletionItem(one["name"], help=str(one["most"]))
        for one in known
        if one["name"].startswith(incomplete)
    ]


_name = click.argument("name", metavar="LIMIT", shell_complete=_known)


@click.group
def limit() -> None:
    """Concurrency limits: set, list, remove, who changed them.

    A LIMIT is one of

    \b
        jobs         so many jobs at once
        instances    so many instances, until EC2 confirms their end
        vcpus        so many vCPUs of all instances together
        team=mi6     so many jobs with this label
        'team=*'     so many jobs of each value of this label, each by itself

    A job that is due and may not start waits, and holds up nobody else. To change a limit wants a token
    with the scope `admin`, where the API wants tokens.
    """


@limit.command("set")
@_name
@click.argument("most", type=click.IntRange(0, MOST_OF_LIMIT))
@output_option
@pass_session
def set_limit(session: Session, name: str, most: int) -> None:
    """Let so many (MOST) be under way at once; with 0 nothing new starts.

    What runs goes on, also where it is more than that.
    """
    made = session.api.set_limit(_checked(name), most)
    _done(session, made, f"{made['name']}: {most} at once")


@limit.command("list")
@output_option
@pass_session
def list_limits(session: Session) -> None:
    """List the limits, what is in use of each and how many jobs wait for it."""
    found = session.api.limits()
    session.repeat_notice()
    if session.as_json:
        output.show_json(found)
        return
    output.table(
        ("limit", "most", "in use", "waiting", "changed", "by"),
        [row for one in found for row in _rows(one)],
        keep=("limit", "most", "in use"),
    )
    if not found:
        note("there is no limit; `atemporal limit set` makes one")


@limit.command("rm")
@_name
@output_option
@pass_session
def remove(session: Session, name: str) -> None:
    """Remove a limit; whoever waits for it may start at once."""
    removed = session.api.remove_limit(_checked(name))
    _done(session, removed, f"{name} removed; it was {removed['most']}")


@limit.command
@click.argument("name", metavar="[LIMIT]", default="", shell_complete=_known)
@click.option("--limit", "many", type=click.IntRange(1, 1000), default=100, show_default=True)
@output_option
@pass_session
def history(session: Session, name: str, many: int) -> None:
    """Show who changed the limits, the latest first."""
    found = session.api.limit_changes(_checked(name) if name else "", limit=many)
    if session.as_json:
        output.show_json(found)
        return
    output.table(
        ("at", "limit", "before", "after", "by"),
        [
            (one["at"], one["name"], _number(one["before"]), _number(one["after"]), one["actor"])
            for one in found
        ],
        keep=("at", "limit", "before", "after"),
    )


def _rows(one: Limit) -> list[tuple[str, ...]]:
    """A limit's line; under one of each value of a label a line for each that is in use."""
    each, changed = one["name"].endswith("=*"), (one["changed_at"], one["changed_by"])
    counted = [(str(use["used"]), str(use["waiting"])) for use in one["uses"]]
    used, waiting = ("", "") if each else (*counted, ("0", "0"))[0]
    head = (one["name"], str(one["most"]), used, waiting, *changed)
    if not each:
        return [head]
    return [
        head,
        *(
            (f"  {use['name']}", "", *numbers, "", "")
            for use, numbers in zip(one["uses"], counted, strict=True)
        ),
    ]


def _number(number: int | None) -> str:
    return "none" if number is None else str(number)


def _done(session: Session, record: Limit, sentence: str) -> None:
    if session.as_json:
        output.show_json(record)
    else:
        click.echo(sentence)


def _checked(given: str) -> str:
    """The name of a limit.

    Raises:
        Invalid: it can be none.
    """
    from atemporal.concurrency import check_name

    return check_name(given)


COMMANDS = {"limit": limit}
