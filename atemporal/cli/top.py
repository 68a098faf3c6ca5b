"""`atemporal top`: the whole at a glance, drawn anew on a terminal.

Promise: on a pipe it is plain text, once. It is one call of the API each time, which costs the same
however many jobs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import click

from atemporal.cli import columns, output, screen
from atemporal.cli.masks import masked_job
from atemporal.cli.output import clean, span
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.wording import at
from atemporal.client import Job, Overview
from atemporal.plural import counted

_SHOWN = 10
_RUNNING = ("id", "image", "instance", "type", "labels")
_NEXT = ("id", "image", "due", "priority", "labels")
_ENDED = ("id", "state", "exit", "image", "finished", "reason")


@click.command
@screen.option("--every", "How often it is drawn")
@click.option("--once", is_flag=True, help="Once, as plain text; on a pipe it is so anyway.")
@click.option(
    "--rows",
    type=click.IntRange(1, 100),
    default=_SHOWN,
    show_default=True,
    help="So many jobs of each kind.",
)
@output_option
@pass_session
def top(session: Session, every: float | None, once: bool, rows: int) -> None:
    """Show what is under way, what comes next, what ended last; live.

    \b
        atemporal top                    until q or Ctrl-C
        atemporal top --every 10
        atemporal top --once | mail -s status team@example.com
        atemporal top -o json | jq '.waiting[] | select(.oldest_s > 300)'
    """
    if session.as_json:
        found = session.api.overview(limit=rows)
        jobs = {
            kind: [masked_job(job) for job in found[kind]] for kind in ("running", "next", "ended")
        }
        output.show_json({**found, **jobs})
    elif once or not screen.drawable():
        if every is not None:
            raise click.UsageError("--every draws on a terminal; this is once")
        for line in _view(session.api.overview(limit=rows)):
            click.echo(line)
    else:
        draw = partial(session.api.overview, limit=rows)
        screen.refresh(lambda: _view(draw()), every_s=every or screen.EVERY_S)


def _view(found: Overview) -> list[str]:
    many = sum(one["count"] for one in found["waiting"])
    dead = found["dead_letters"]
    letters = f"; {counted(dead, 'dead letter')}" if dead else ""
    lines = [f"{found['read_at']}  {many} under way{letters}"]
    phases = [
        (one["phase"], str(one["count"]), span(one["oldest_s"]), one["waiting_for"])
        for one in found["waiting"]
    ]
    lines += _part("", ("phase", "count", "oldest", "waits for"), phases, ("phase", "count"))
    lines += _jobs("running", found["running"], _RUNNING, _since)
    lines += _jobs("next", found["next"], _NEXT)
    lines += _jobs("ended", found["ended"], _ENDED)
    return lines


def _since(job: Job) -> str:
    """For how long its container runs."""
    begun = job["instances"][-1]["running_at"] if job["instances"] else None
    return span((at(job["read_at"]) - at(begun)).total_seconds()) if begun else ""


def _jobs(
    title: str,
    jobs: Sequence[Job],
    shown: Sequence[str],
    more: Callable[[Job], str] | None = None,
) -> list[str]:
    person = output.for_terminal()
    rows = [columns.row(job, shown, person=person) for job in jobs]
    if more is not None:
        shown = (shown[0], "for", *shown[1:])
        rows = [(row[0], more(job), *row[1:]) for row, job in zip(rows, jobs, strict=True)]
    return _part(title, shown, rows, (*columns.KEPT, "for", "due", "finished"))


def _part(
    title: str,
    names: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    keep: Sequence[str],
) -> list[str]:
    """A table with its title above; nothing where there is nothing."""
    if not rows:
        return []
    return ["", *([clean(title)] if title else []), *output.table_lines(names, rows, keep=keep)]


COMMANDS = {"top": top}
