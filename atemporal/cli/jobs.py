"""Commands about jobs that are there: list, reschedule, cancel, retry.

Promise: `reschedule`, `cancel` and `retry` are done when they return: the daemons find what follows
from it in Postgres.
"""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

import click

from atemporal.cli import arguments, output
from atemporal.cli.arguments import changing_ids, duration_from, known_ids, pairs
from atemporal.cli.masks import masked_job
from atemporal.cli.output import distance, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.wording import at, ending
from atemporal.client import PAGE, Client, Job, JobPage
from atemporal.clock import format_utc
from atemporal.errors import Conflict
from atemporal.states import JobState, Outcome

_STATES = [state.value for state in (*JobState, *Outcome)]


@click.command("list")
@click.option(
    "--state",
    multiple=True,
    type=click.Choice(_STATES),
    help="Jobs in this state, or with this outcome.",
)
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Jobs that have it.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this job, the last one of a page.")
@click.option("--reverse", is_flag=True, help="The oldest first.")
@output_option
@pass_session
def list_jobs(session: Session, /, **given: Any) -> None:
    """List jobs, the newest first."""
    found, page = _listed(session.api, given)
    following = page["next"]
    if session.as_json:
        jobs = [masked_job(job) for job in found]
        output.show_json({**page, "jobs": jobs})
        return
    person = output.for_terminal()
    output.table(
        ("id", "state", "exit", "image", "due", "attempts", "labels"),
        [_line(job, person) for job in found],
        keep=("id", "state"),
    )
    if not found:
        filtered = bool(given["state"] or given["label"] or given["after"])
        note("no job fits" if filtered else "there are no jobs yet; `atemporal submit` makes one")
    if following:
        again = ["atemporal", "list", *(["--reverse"] if given["reverse"] else [])]
        again += [word for one in given["state"] for word in ("--state", one)]
        again += [word for one in given["label"] for word in ("--label", one)]
        again += ["--limit", str(given["limit"]), "--after", following]
        prefix = "about " if page.get("total_estimated") else ""
        note(f"{prefix}{page['total']} jobs in all; the next: {shlex.join(again)}")


@click.command
@click.argument(
    "ids",
    metavar="ID...",
    shell_complete=known_ids,
    nargs=-1,
    required=True,
    callback=changing_ids,
)
@output_option
@pass_session
def cancel(session: Session, ids: tuple[str, ...]) -> None:
    """Cancel jobs, in whatever phase they are.

    An instance that runs is ended by the reaper's next sweep. A job that is cancelled already is no
    error, one that has finished otherwise is. Nothing is cancelled before all were found, and none
    of them had finished otherwise.
    """
    found = {job["id"]: job for job in map(session.api.job, ids)}
    for job in found.values():
        if job["outcome"] not in (None, "cancelled"):
            raise Conflict(
                f"job {job['id']} has finished already ({job['outcome']}): nothing was cancelled"
            )
    cancelled = []
    for job_id in found:
        cancelled.append(session.api.cancel(job_id))
        if not session.as_json:
            click.echo(f"{job_id} cancelled")
    if session.as_json:
        output.show_json([masked_job(job) for job in cancelled])


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids, callback=changing_ids)
@output_option
@pass_session
def retry(session: Session, job_id: str) -> None:
    """Run a finished job again, now and with fresh budgets."""
    job = session.api.retry(session.api.job(job_id)["id"])
    if session.as_json:
        output.show_json(masked_job(job))
    else:
        click.echo(f"{job['id']} scheduled again")


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids, callback=changing_ids)
@click.option(
    "--at",
    "--time",
    "time",
    callback=arguments.instant,
    metavar="TIME",
    help="When to run instead: ISO 8601, in UTC unless it says another offset.",
)
@click.option(
    "--in",
    "delay_s",
    callback=duration_from(0, arguments.LONGEST_S),
    metavar="DURATION",
    help="When to run instead: so long from now, like 10m.",
)
@output_option
@pass_session
def reschedule(session: Session, job_id: str, time: datetime | None, delay_s: int | None) -> None:
    """Give a job another time, until its container starts.

    A time that has passed means now. A machine that waits for the old time waits for the new one; if
    that is too far away it is ended, which costs the job no attempt.
    """
    if (time is None) == (delay_s is None):
        raise click.UsageError("give --at or --in, one of them")
    found = session.api.job(job_id)["id"]
    instant = None if time is None else format_utc(time)
    job = session.api.reschedule(found, time=instant, delay_s=delay_s)
    if session.as_json:
        output.show_json(masked_job(job))
    else:
        click.echo(f"{job['id']} due {job['due_at']}")


def _listed(api: Client, given: dict[str, Any]) -> tuple[list[Job], JobPage]:
    """As many jobs as are wanted, by as many pages as that takes, and the last of these."""
    labels, left = pairs(given["label"], "--label"), given["limit"]
    after = api.job(given["after"])["id"] if given["after"] else None
    found: list[Job] = []
    while True:
        page = api.jobs(
            states=given["state"],
            labels=labels,
            limit=min(left, PAGE),
            after=after,
            newest_first=not given["reverse"],
        )
        found += page["jobs"]
        left -= len(page["jobs"])
        # A page that leads nowhere new is the last one for now: its jobs can still change places.
        if left <= 0 or page["next"] in (None, after) or not page["jobs"]:
            return found, page
        after = page["next"]


def _line(job: Job, person: bool) -> tuple[str, ...]:
    return (
        # For a person's eyes the end of the id, which is what differs between ids and what they type.
        job["id"][-12:] if person else job["id"],
        ending(job),
        "" if job["exit_code"] is None else str(job["exit_code"]),
        job["image"],
        distance(at(job["due_at"]), at(job["read_at"])) if person else job["due_at"],
        str(len(job["instances"])),
        ",".join(f"{name}={value}" for name, value in job["labels"].items()),
    )


COMMANDS = {
    "list": list_jobs,
    "reschedule": reschedule,
    "cancel": cancel,
    "retry": retry,
}
