"""Commands that change jobs: reschedule, cancel, retry.

Promise: each is done when it returns: the daemons find what follows
from it in Postgres.
"""

from __future__ import annotations

from datetime import datetime

import click

from atemporal.cli import arguments, output
from atemporal.cli.arguments import changing_ids, duration_from, known_ids
from atemporal.cli.masks import masked_job
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.clock import format_utc
from atemporal.errors import Conflict


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


COMMANDS = {
    "reschedule": reschedule,
    "cancel": cancel,
    "retry": retry,
}
