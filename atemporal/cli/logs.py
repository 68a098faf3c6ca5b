"""`atemporal logs`: what a job's containers write, and have written.

Promise: standard output gets the very bytes, each once; a terminal gets them as text that keeps its
colours and lines and steers it no further. What is missing between them is told on standard error, with
how much it is, also after an outage of the API. When there is nothing, it says why.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from atemporal.cli import output
from atemporal.cli.arguments import attempt_of, known_ids
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.client import InstanceDetail, JobDetail, LogOutput
from atemporal.errors import Unavailable
from atemporal.plural import counted
from atemporal.visible import VisibleOutput


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids)
@click.option("--attempt", type=int, help="Which attempt, if not the last.")
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended, and with the next.")
@output_option
@pass_session
def logs(session: Session, job_id: str, attempt: int | None, follow: bool) -> None:
    """Print what a job's container writes.

    Of one that runs that is the latest output, a few seconds late; of one that has ended the last 32
    KiB as well. Exits with 1 when there is none, but for a container that has ended and printed
    nothing. With -f it prints what comes until the attempt has ended, and goes on with the next one
    until the job has finished. What is missing is told on standard error. With -f -o json each piece
    is a line.

    \b
        atemporal logs 3f9c01d2 | grep error
        atemporal logs -f 3f9c01d2
        atemporal logs 3f9c01d2 --attempt 1
    """
    job = session.api.job(job_id)
    if follow:
        _follow(session, job, attempt)
        return
    tries = {one["number"]: one for one in job["instances"]}
    tried = attempt_of(tries, attempt, f"job {job['id']} is {job['state']}")
    pieces = list(session.api.logs(job["id"], attempt=tried["number"]))
    why = None if pieces else _why_nothing(job, tried)
    if session.as_json:
        text = _Text()
        output.show_json(
            {
                "id": job["id"],
                "attempt": tried["number"],
                "log_tail": tried["log_tail"],
                "why": why,
                "output": [text.shown(piece) for piece in pieces],
            }
        )
    else:
        with _printing() as print_:
            for piece in pieces:
                print_(piece)
    if why:
        note(why)
        click.get_current_context().exit(0 if _over(tried) and not _cut_off(tried) else 1)


def _follow(session: Session, job: JobDetail, attempt: int | None) -> None:
    if attempt is not None:
        attempt_of(
            {one["number"]: one for one in job["instances"]},
            attempt,
            f"job {job['id']} is {job['state']}",
        )
    elif not job["instances"] and job["state"] != "finished":
        note(f"job {job['id']} is {job['state']}: waiting for its first attempt")
    text = _Text()
    followed = session.api.logs(job["id"], attempt=attempt, follow=True, on_outage=_tell_outage)
    with _printing() as print_:
        for piece in followed:
            if session.as_json:
                if piece.data:
                    output.show_json(text.shown(piece), one_line=True)
            elif piece.data:
                print_(piece)
            elif piece.attempt > 1:
                note(f"attempt {piece.attempt} begins")
            sys.stdout.flush()


@contextmanager
def _printing() -> Iterator[Callable[[LogOutput], None]]:
    """Print pieces: to a terminal as what it may show, elsewhere as they are."""
    shown = VisibleOutput() if output.for_terminal() else None

    def print_(piece: LogOutput) -> None:
        mark = _mark(piece)
        if mark and shown:
            click.echo(shown.end(), nl=False)
        if mark:
            note(mark)
        click.echo(shown.shown(piece.data) if shown else piece.data, nl=False)

    try:
        yield print_
    finally:
        if shown:
            click.echo(shown.end(), nl=False)


def _mark(piece: LogOutput) -> str:
    """What is to be said before a piece."""
    if piece.missing is None:
        return "the end of the output follows: some before it may be missing, or come again"
    if not piece.missing:
        return ""
    if piece.missing == piece.start:
        are = "byte is" if piece.missing == 1 else f"{piece.missing} bytes are"
        return f"the first {are} not kept"
    are = "is" if piece.missing == 1 else "are"
    return f"{counted(piece.missing, 'byte')} {are} missing here"


def _tell_outage(error: Unavailable) -> None:
    note(f"{error}; waiting for it to come back")


class _Text:
    """Pieces as JSON: a character that lies in two of them is shown once, in the second one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._attempt = 0

    def shown(self, piece: LogOutput) -> dict[str, object]:
        """Show a piece."""
        if piece.missing != 0 or piece.attempt != self._attempt:
            self._decoder.reset()
        self._attempt = piece.attempt
        return {
            "attempt": piece.attempt,
            "start": piece.start,
            "missing": piece.missing,
            "text": self._decoder.decode(piece.data),
        }


def _over(attempt: InstanceDetail) -> bool:
    return attempt["state"] in ("exited", "closed")


def _cut_off(attempt: InstanceDetail) -> bool:
    ran = attempt["running_at"] is not None
    return attempt["reason"] == "cancelled" and ran and not attempt["log_tail"]


def _why_nothing(job: JobDetail, attempt: InstanceDetail) -> str:
    number = attempt["number"]
    if not _over(attempt):
        return (
            f"attempt {number} is {attempt['state']} and has sent no output yet; "
            f"`atemporal logs -f {job['id']}` waits for it"
        )
    if _cut_off(attempt) and attempt["state"] == "exited":
        return "its machine is being stopped and may still report the end of its output"
    if _cut_off(attempt):
        return "its output was not kept: its machine was gone before it had reported"
    if attempt["exit_code"] is not None:
        return f"attempt {number} printed nothing"
    because = f": {attempt['detail']}" if attempt["detail"] else ""
    return f"attempt {number} left no output ({attempt['reason']}{because})"


COMMANDS = {"logs": logs}
