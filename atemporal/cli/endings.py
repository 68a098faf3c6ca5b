"""`atemporal wait`: wait for the end of jobs.

Promise: `wait` exits as the job did, so that a shell script can treat a job on a machine of its own
like a program of its own; once the jobs were found it outlives an outage of the API.
"""

from __future__ import annotations

import sys
import time

import click

from atemporal.cli import output
from atemporal.cli.arguments import duration, known_ids
from atemporal.cli.masks import masked_job
from atemporal.cli.output import clean, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.wording import ending, reason
from atemporal.client import JobDetail
from atemporal.errors import Unavailable
from atemporal.plural import counted
from atemporal.states import DOCKER_REFUSED

TIMED_OUT = 124
NO_EXIT_CODE = 125
# Nothing announces the end of one job to one reader, so it is looked for: soon at first, because many
# jobs are short, and calmly later.
_LOOK_EVERY_S = (0.2, 2.0)


@click.command
@click.argument("ids", metavar="ID...", shell_complete=known_ids, nargs=-1, required=True)
@click.option(
    "--timeout", callback=duration, metavar="DURATION", help="How long to wait; else for ever."
)
@output_option
@pass_session
def wait(session: Session, ids: tuple[str, ...], timeout: int | None) -> None:
    """Wait for the end of jobs, and exit as they did.

    \b
    Exit codes: the job's own (of several jobs: the first, in the order given, that is not 0), or
        124  the job ran into its time limit, or --timeout passed
        125  it has no exit code: cancelled, lost, or its machine failed
    and those of every command while looking for the jobs.

    \b
        atemporal wait 3f9c01d2 --timeout 1h && echo well
    """
    until = None if timeout is None else time.monotonic() + timeout
    waiting = list(dict.fromkeys(job["id"] for job in map(session.api.job, ids)))
    ended: dict[str, JobDetail] = {}
    progress = Progress()
    pause, away = _LOOK_EVERY_S[0], False
    while True:
        try:
            seen = [session.api.job(one) for one in waiting if one not in ended]
            away = False
        except Unavailable as error:
            if not away:
                note(f"{error}; waiting for it to come back")
            seen, away = [], True
        progress.tell(seen)
        for job in (one for one in seen if one["state"] == "finished"):
            ended[job["id"]] = job
            if not session.as_json:
                click.echo(clean(_sentence(job)))
        left = None if until is None else until - time.monotonic()
        if len(ended) == len(waiting) or (left is not None and left <= 0):
            break
        time.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 1.3, _LOOK_EVERY_S[1])
    codes = [exit_code(ended[one]) if one in ended else TIMED_OUT for one in waiting]
    if session.as_json:
        output.show_json([masked_job(ended[one]) for one in waiting if one in ended])
    if len(ended) < len(waiting):
        left = len(waiting) - len(ended)
        have = "has" if left == 1 else "have"
        note(f"{left} of {counted(len(waiting), 'job')} {have} not finished in time")
    click.get_current_context().exit(next((code for code in codes if code), 0))


def exit_code(job: JobDetail) -> int:
    """What `wait` exits with for a finished job."""
    if job["outcome"] == "succeeded":
        return 0
    if job["outcome"] == "timed_out":
        return TIMED_OUT
    if job["outcome"] == "failed" and job["exit_code"] is not None:
        # Out of memory can be the end of a program that still exits with 0.
        return job["exit_code"] or 1
    return NO_EXIT_CODE


class Progress:
    """What jobs wait for, for a person at a terminal: a line whenever that changes."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def tell(self, jobs: list[JobDetail]) -> None:
        """Say what is new."""
        if not sys.stderr.isatty():
            return
        for job in jobs:
            if job["state"] == "finished" or job["waiting_for"] is None:
                continue
            hindered = f": {job['waiting_on']}" if job["waiting_on"] else ""
            now = f"{job['waiting_for']}{hindered}"
            if self._shown.get(job["id"]) != now:
                self._shown[job["id"]] = now
                note(f"{job['id']} waits for {now}")


def _sentence(job: JobDetail) -> str:
    with_code = "" if job["exit_code"] is None else f", exit code {job['exit_code']}"
    why = f" ({because})" if (because := reason(job)) else ""
    return f"{job['id']} {ending(job)}{why}{with_code}{_first_line(job)}"


def _first_line(job: JobDetail) -> str:
    """What went wrong, when that was not the program: then its exit code does not say it."""
    if job["outcome"] in ("succeeded", "cancelled") or not job["instances"]:
        return ""
    last = job["instances"][-1]
    if last["exit_code"] is not None and job["reason"] not in DOCKER_REFUSED:
        return ""
    return f": {last['cause'] or 'see `atemporal logs ' + job['id'] + '`'}"


COMMANDS = {"wait": wait}
