"""`atemporal prune`: what retention deletes by itself, deleted by hand and now.

Promise: nothing is deleted that retention would not delete at that age, and nothing before somebody has
said yes: on a terminal, or by `--yes`. Each batch is a transaction of its own, so an interrupted command
leaves whole jobs, and can be repeated. `--dry-run` counts and deletes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from atemporal.cli import output
from atemporal.cli.arguments import duration_from, duration_text
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session

if TYPE_CHECKING:
    from rich.status import Status

    from atemporal.store.expired import Kind

BATCH = 500
_LEAST_S, _LONGEST_S = 3600, 36_500 * 86_400
_AGE = duration_from(_LEAST_S, _LONGEST_S)


@click.command
@click.option(
    "--older-than",
    "keep_s",
    callback=_AGE,
    metavar="DURATION",
    help="Jobs that finished so long ago, like 30d, and all else that is so old.",
)
@click.option(
    "--logs-older-than",
    "logs_keep_s",
    callback=_AGE,
    metavar="DURATION",
    help="Log chunks that are so old, also those of jobs that stay.",
)
@click.option("--dry-run", is_flag=True, help="Count what would go; delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@pass_session
def prune(
    session: Session, keep_s: int | None, logs_keep_s: int | None, dry_run: bool, yes: bool
) -> None:
    """Delete what finished long ago, before retention does.

    \b
        atemporal prune --older-than 30d --dry-run
        atemporal prune --older-than 30d --logs-older-than 2d --yes

    What somebody still waits for stays, whatever its age: a job with an instance that may be there, an
    event that a webhook or a listener has yet to see. A job's key is free again once it is gone.
    """
    from atemporal.store.expired import KINDS, LOG_CHUNKS

    wanted: list[tuple[Kind, int]] = []
    if logs_keep_s is not None:
        wanted.append((LOG_CHUNKS, logs_keep_s))
    if keep_s is not None:
        wanted += [(kind, keep_s) for kind in KINDS]
    if not wanted:
        raise click.UsageError("say how old: --older-than 30d, --logs-older-than 2d, or both")
    if not (dry_run or yes or a_person_is_here()):
        raise click.UsageError(
            "nobody is here to be asked: add --yes to delete, or --dry-run to count"
        )
    found: dict[str, tuple[int, int]] = {}
    if dry_run or not yes:
        found = _count(session, wanted)
    if not (dry_run or yes):
        _ask(wanted, found)
    if not dry_run:
        gone = _delete(session, wanted)
        left = _count(session, wanted)
        found = {name: (count + left[name][0], count) for name, count in gone.items()}
    _tell(session, wanted, found, dry_run=dry_run, ages=(keep_s, logs_keep_s))


def a_person_is_here() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _count(session: Session, wanted: list[tuple[Kind, int]]) -> dict[str, tuple[int, int]]:
    """Of each kind how many are old enough, and how many of these may go."""
    found: dict[str, tuple[int, int]] = {}
    with _progress() as show:
        for kind, keep_s in wanted:
            old = going = 0
            for walk in kind.walks:
                after: tuple[Any, ...] | None = None
                while True:
                    with session.database.begin() as tx:
                        page = walk.page(tx, keep_s=keep_s, after=after)
                    old, going, after = old + page.old, going + page.going, page.next
                    show(f"counting {kind.called}: {going}")
                    if after is None:
                        break
            found[kind.name] = (old, going)
    return found


def _delete(session: Session, wanted: list[tuple[Kind, int]]) -> dict[str, int]:
    """Delete kind by kind; returns how many of each went."""
    gone: dict[str, int] = {}
    try:
        with _progress() as show:
            for kind, keep_s in wanted:
                gone[kind.name] = 0
                while True:
                    with session.database.begin() as tx:
                        deleted = kind.delete(tx, keep_s=keep_s, limit=BATCH)
                    gone[kind.name] += deleted
                    show(f"deleting {kind.called}: {gone[kind.name]}")
                    if deleted < BATCH:
                        break
    except BaseException:
        done = ", ".join(f"{count} {name}" for name, count in gone.items())
        note(f"stopped; deleted so far: {done or 'nothing'}. The same command goes on")
        raise
    return gone


def _ask(wanted: list[tuple[Kind, int]], found: dict[str, tuple[int, int]]) -> None:
    for kind, keep_s in wanted:
        going = found[kind.name][1]
        if going:
            click.echo(f"{going} {kind.called}, older than {duration_text(keep_s)}", err=True)
    if any(going for _, going in found.values()):
        click.confirm("Delete them for good?", abort=True, err=True)


def _tell(
    session: Session,
    wanted: list[tuple[Kind, int]],
    found: dict[str, tuple[int, int]],
    *,
    dry_run: bool,
    ages: tuple[int | None, int | None],
) -> None:
    if session.as_json:
        output.show_json(
            {
                "dry_run": dry_run,
                "older_than_s": ages[0],
                "logs_older_than_s": ages[1],
                "deleted": {kind.name: found[kind.name][1] for kind, _ in wanted},
                "stays": {
                    kind.name: found[kind.name][0] - found[kind.name][1] for kind, _ in wanted
                },
            }
        )
        return
    columns = ("kind", "would go" if dry_run else "deleted", "stays", "what")
    rows = [
        (kind.name, str(going), str(old - going), kind.called)
        for kind, _ in wanted
        for old, going in (found[kind.name],)
    ]
    output.table(columns, rows, keep=columns[:3])
    if any(old > going for old, going in found.values()):
        note("what stays is old enough, and somebody still waits for it, or has it locked")


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield what shows how far it is, where a person can see that."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    status: Status
    with Console(stderr=True).status("...") as status:
        yield status.update


COMMANDS = {"prune": prune}
