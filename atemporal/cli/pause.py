"""`atemporal pause`, `resume` and `drain`: the whole installation stands still, and goes on.

Promise: `pause` and `resume` are done when they return. `drain` returns with success only when nothing
is under way; however else it ends, the installation stays paused.
"""

from __future__ import annotations

import sys
import time

import click

from atemporal.cli import output
from atemporal.cli.arguments import duration
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.client import Pause
from atemporal.errors import Conflict, Unavailable
from atemporal.plural import counted

TIMED_OUT = 124
_LOOK_EVERY_S = (0.2, 5.0)

_reason = click.option(
    "--reason", default="", metavar="TEXT", help="For whoever asks why nothing happens."
)


@click.command
@_reason
@output_option
@pass_session
def pause(session: Session, reason: str) -> None:
    """Pause the installation: nothing new starts.

    What runs goes on. Jobs and recurring schedules are taken as ever; what becomes due waits, and says
    so. What was dispatched and has no machine yet is scheduled again. Start deadlines go on. `atemporal
    resume` ends the pause; it wants the scope `admin`, as this does.

    \b
        atemporal pause --reason 'Postgres is moved'
    """
    begun = session.api.begin_pause(reason)
    if session.as_json:
        output.show_json(begun)
        return
    many = begun["put_back"]
    again = "waits" if many == 1 else "wait"
    back = f", {counted(many, 'job', more='dispatched')} {again} again" if many else ""
    click.echo(f"paused; {_under_way(begun)} and {_go(begun, 'goes', 'go')} on{back}")


@click.command
@output_option
@pass_session
def resume(session: Session) -> None:
    """End the pause: what is due is dispatched at once."""
    ended = session.api.end_pause()
    if session.as_json:
        output.show_json(ended)
    else:
        click.echo("resumed")


@click.command
@_reason
@click.option(
    "--timeout", callback=duration, metavar="DURATION", help="How long to wait; else for ever."
)
@output_option
@pass_session
def drain(session: Session, reason: str, timeout: int | None) -> None:
    """Pause it, and wait until nothing is under way.

    A pause that is on already is kept. Nothing that runs is ended: it takes as long as the longest job.
    The installation stays paused; `atemporal resume` ends that. What is waited for is told: how many
    attempts in which states, and when the first of them goes on or is ended at the latest.

    \b
    Exit codes: 0 when the last instance is gone, 124 when --timeout passed.
    """
    until = None if timeout is None else time.monotonic() + timeout
    state = session.api.pause()
    if not state["paused"]:
        try:
            state = session.api.begin_pause(reason)
        except Conflict:
            # Somebody else was quicker, and theirs is kept.
            state = session.api.pause()
    note("paused; Ctrl-C ends the waiting, not the pause")
    rest, away, shown = _LOOK_EVERY_S[0], False, ""
    while state["under_way"] > 0:
        waits_for = _waits_for(state)
        # A log needs no line for each change.
        if waits_for != shown and (sys.stderr.isatty() or not shown):
            shown = waits_for
            note(shown)
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            break
        time.sleep(rest if left is None else min(rest, left))
        rest = min(rest * 1.3, _LOOK_EVERY_S[1])
        try:
            state, away = session.api.pause(), False
        except Unavailable as error:
            if not away:
                note(f"{error}; waiting for it to come back")
            away = True
    _drained(session, state)


def _under_way(state: Pause) -> str:
    """How many attempts are under way, and in which states."""
    states = ", ".join(f"{many} {name}" for name, many in state["by_state"].items())
    shown = f"{counted(state['under_way'], 'attempt')} {_go(state, 'is', 'are')} under way"
    return f"{shown} ({states})" if states else shown


def _waits_for(state: Pause) -> str:
    deadline = state["next_deadline"]
    return _under_way(state) + (f", the next deadline is at {deadline}" if deadline else "")


def _go(state: Pause, one: str, several: str) -> str:
    return one if state["under_way"] == 1 else several


def _drained(session: Session, state: Pause) -> None:
    if session.as_json:
        output.show_json(state)
    if state["under_way"]:
        note(f"{_waits_for(state)}; it stays paused")
    elif not state["paused"]:
        note("somebody has resumed it meanwhile")
    elif not session.as_json:
        click.echo("drained: nothing is under way")
    if state["under_way"] or not state["paused"]:
        click.get_current_context().exit(TIMED_OUT if state["under_way"] else 1)


COMMANDS = {"pause": pause, "resume": resume, "drain": drain}
