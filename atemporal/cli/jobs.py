"""Commands about jobs: submit, list, show, cancel, retry.

Promise: the answer of `submit` is the job's id, written down for good; the same `--key` gives the
same job however often it is submitted. `cancel` and `retry` are done when they return: the daemons
find what follows from it in Postgres.
"""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any, TextIO

import click

from atemporal import waiting
from atemporal.cli import arguments, output, records
from atemporal.cli.arguments import changing_ids, duration_from, pairs, read_environment
from atemporal.cli.output import clean, distance, instant, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.image import familiar
from atemporal.model import Attempt, Event, Job, parse_spec
from atemporal.states import Fault, JobState, Outcome
from atemporal.store import events, jobs
from atemporal.store.database import server_time


class Submit(click.Command):
    """Tells the job's options from its own with a hint, when there is no -- between them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words; a job's option taken for ours is told so."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" not in given and not given[0].startswith("-"):
                raise click.UsageError(
                    f"No such option: {error.option_name}. If it belongs to the job's command, put "
                    "-- before the command: atemporal submit IMAGE -- sh -c '...'",
                    ctx,
                ) from None
            raise


@click.command(cls=Submit)
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--at",
    callback=arguments.instant,
    metavar="TIME",
    help="When to run: ISO 8601, in UTC unless it says another offset.",
)
@click.option(
    "--in",
    "delay",
    callback=duration_from("0s"),
    metavar="DURATION",
    help="When to run: so long from now, like 10m.",
)
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable for the job; NAME alone takes your own value.",
)
@click.option(
    "--env-file",
    multiple=True,
    type=click.File(encoding="utf-8"),
    help="A file of NAME=VALUE lines; - is standard input.",
)
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="For `list --label`.")
@click.option(
    "--timeout",
    callback=duration_from("1s"),
    metavar="DURATION",
    help="How long the container may run.  [default: 1d]",
)
@click.option(
    "--instance-type", multiple=True, metavar="TYPE", help="The kind of machine, like t3.small."
)
@click.option(
    "--capacity-type",
    "--market",
    "capacity_type",
    type=click.Choice(["on-demand", "spot", "spot-then-on-demand"]),
    help="How to pay for the machine.  [default: on-demand]",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, 100),
    help="How often the program may fail.  [default: 1]",
)
@click.option(
    "--retry-on",
    callback=arguments.exit_codes,
    metavar="CODES",
    help="The only exit codes that lead to another attempt, like 75,137.",
)
@click.option(
    "--no-retry-on",
    callback=arguments.exit_codes,
    metavar="CODES",
    help="Exit codes that never do, like 2.",
)
@click.option(
    "--key",
    callback=arguments.text,
    help="Your name for this submit: the same key is the same job.",
)
@click.option(
    "--port",
    multiple=True,
    metavar="HOST:CONTAINER",
    help="A port to publish, or none.  [default: 80:80]",
)
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    help="Among jobs due together the higher goes first.",
)
@output_option
@pass_session
def submit(
    session: Session,
    image: str,
    command: tuple[str, ...],
    at: datetime | None,
    delay: int | None,
    env: tuple[str, ...],
    env_file: tuple[TextIO, ...],
    label: tuple[str, ...],
    timeout: int | None,
    instance_type: tuple[str, ...],
    capacity_type: str | None,
    max_attempts: int | None,
    retry_on: tuple[int, ...] | None,
    no_retry_on: tuple[int, ...] | None,
    key: str | None,
    port: tuple[str, ...],
    priority: int | None,
) -> None:
    """Submit a job: an image, an environment, a time.

    Prints the job's id. Without --at or --in it is due now; a time that has passed means now too.
    What stands behind -- is the command to run in place of the image's own:

    \b
        atemporal submit alpine --in 10m -e NAME=bond -- sh -c 'echo "$NAME"'
    """
    if at is not None and delay is not None:
        raise click.UsageError("give --at or --in, not both")
    fields: dict[str, Any] = {
        "image": image,
        "command": command or None,
        "env": read_environment(env_file, env),
        "run_at": at,
        "delay_s": delay,
        "labels": pairs(label, "--label"),
        "key": key,
        "timeout_s": timeout,
        "max_attempts": max_attempts,
        "retry_on": retry_on,
        "no_retry_on": no_retry_on,
        "priority": priority,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    machine = {"instance_types": instance_type or None, "capacity_type": capacity_type}
    fields["machine"] = {name: value for name, value in machine.items() if value is not None}
    if port:
        fields["ports"] = () if port == ("none",) else port
    spec = parse_spec(fields)
    with session.database.begin() as tx:
        submission = jobs.submit_one(tx, spec, actor=session.actor)
        job = jobs.get(tx, submission.job_id)
    if not submission.created:
        note(f"the key {key!r} has this job already: nothing new was made")
    if session.as_json:
        output.show_json(records.of_job(job))
    else:
        click.echo(str(job.id))


@click.command("list")
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([state.value for state in (*JobState, *Outcome)]),
    help="Jobs in this state, or with this outcome.",
)
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Jobs that have it.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this job, the last one of a page.")
@click.option("--reverse", is_flag=True, help="The oldest first.")
@output_option
@pass_session
def list_jobs(
    session: Session,
    *,
    state: tuple[str, ...],
    label: tuple[str, ...],
    limit: int,
    after: str | None,
    reverse: bool,
) -> None:
    """List jobs, the newest first."""
    with session.database.begin() as tx:
        page = jobs.listing(
            tx,
            states=[one for one in JobState if one in state],
            outcomes=[one for one in Outcome if one in state],
            labels=pairs(label, "--label"),
            limit=limit,
            after=jobs.resolve(tx, after) if after else None,
            newest_first=not reverse,
        )
        now = server_time(tx)
    if session.as_json:
        following = str(page.next) if page.next else None
        found = [records.of_job(job) for job in page.jobs]
        output.show_json({"total": page.total, "jobs": found, "next": following})
        return
    person = output.for_terminal()
    output.table(
        ("id", "state", "exit", "image", "due", "attempts", "labels"),
        [_listed(job, now, person) for job in page.jobs],
    )
    if page.next:
        again = ["atemporal", "list", *(["--reverse"] if reverse else [])]
        again += [word for one in state for word in ("--state", one)]
        again += [word for one in label for word in ("--label", one)]
        again += ["--limit", str(limit), "--after", str(page.next)]
        note(f"{page.total} jobs in all; the next: {shlex.join(again)}")


@click.command
@click.argument("job_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the environment's values.")
@output_option
@pass_session
def show(session: Session, job_id: str, reveal: bool) -> None:
    """Show a job: what it is, its attempts, its history."""
    with session.database.begin() as tx:
        job = jobs.get(tx, jobs.resolve(tx, job_id))
        history = events.of_job(tx, job.id)
        now = server_time(tx)
    if session.as_json:
        listed = [records.of_event(event) for event in history]
        output.show_json({**records.of_job(job, reveal=reveal), "events": listed})
        return
    for line in output.aligned(list(_facts(job, now).items())):
        click.echo(clean(line))
    for name, value in records.masked_env(job.spec.env, reveal=reveal).items():
        click.echo(f"env        {name}={clean(value)}")
    if job.attempts:
        click.echo()
        output.table(
            ("attempt", "state", "ended", "exit", "instance", "type", "address", "detail"),
            [_tried(attempt) for attempt in job.attempts],
        )
    click.echo()
    output.table(("after", "event", "attempt", "by", "detail"), _timeline(history))


@click.command
@click.argument("ids", metavar="ID...", nargs=-1, required=True, callback=changing_ids)
@output_option
@pass_session
def cancel(session: Session, ids: tuple[str, ...]) -> None:
    """Cancel jobs, in whatever phase they are.

    An instance that runs is ended by the reaper's next sweep. A job that is cancelled already is no
    error, one that has finished otherwise is. Either all are cancelled or none.
    """
    with session.database.begin() as tx:
        found = list(dict.fromkeys(jobs.resolve(tx, one) for one in ids))
        for job_id in found:
            jobs.cancel(tx, job_id, actor=session.actor)
        cancelled = [jobs.get(tx, job_id) for job_id in found]
    _tell(session, cancelled, "cancelled")


@click.command
@click.argument("job_id", metavar="ID", callback=changing_ids)
@output_option
@pass_session
def retry(session: Session, job_id: str) -> None:
    """Run a finished job again, now and with fresh budgets."""
    with session.database.begin() as tx:
        found = jobs.resolve(tx, job_id)
        jobs.retry(tx, found, actor=session.actor)
        job = jobs.get(tx, found)
    if session.as_json:
        output.show_json(records.of_job(job))
    else:
        click.echo(f"{job.id} scheduled again")


def _tell(session: Session, changed: list[Job], what: str) -> None:
    if session.as_json:
        output.show_json([records.of_job(job) for job in changed])
        return
    for job in changed:
        click.echo(f"{job.id} {what}")


def ending(job: Job) -> str:
    """How a job stands, in one or two words: its outcome when it has finished."""
    return str(job.outcome) if job.outcome else str(job.state)


def reason(job: Job) -> str:
    """Why it ended so, where its outcome does not say it, and whose fault that was."""
    if job.reason is None or job.outcome is Outcome.SUCCEEDED:
        return ""
    why = "" if str(job.reason) == ending(job) else str(job.reason)
    whose = "not the program's fault" if job.reason.fault is Fault.INFRASTRUCTURE else ""
    return ", ".join(filter(None, (why, whose)))


def _listed(job: Job, now: datetime, person: bool) -> tuple[str, ...]:
    exit_code = "" if job.exit_code is None else str(job.exit_code)
    return (
        # For a person's eyes the end of the id, which is what tells ids apart and what they type.
        str(job.id)[-12:] if person else str(job.id),
        ending(job),
        exit_code,
        familiar(job.spec.image),
        distance(job.due_at, now) if person else instant(job.due_at),
        str(len(job.attempts)),
        ",".join(f"{name}={value}" for name, value in job.spec.labels.items()),
    )


def _facts(job: Job, now: datetime) -> dict[str, str]:
    spec = job.spec
    state = str(job.state)
    if job.outcome:
        because = reason(job)
        state += f" ({job.outcome}: {because})" if because else f" ({job.outcome})"
    facts = {
        "job": str(job.id),
        "state": state if job.exit_code is None else f"{state}, exit code {job.exit_code}",
        "image": spec.image,
        "command": " ".join(spec.command) if spec.command else "the image's own",
        "time": f"{instant(job.run_at)} ({distance(job.run_at, now)})",
    }
    if job.state is JobState.SCHEDULED and job.due_at != job.run_at:
        facts["due"] = f"{instant(job.due_at)} ({distance(job.due_at, now)})"
    if waits := waiting.of_job(job):
        detail = "".join(f": {part}" for part in (waits.blocked_on, waits.detail) if part)
        waited = output.span((now - waits.since).total_seconds())
        facts["waits for"] = f"{waits.what}, since {waited}{detail}"
    facts["submitted"] = instant(job.created_at)
    if job.finished_at:
        facts["finished"] = f"{instant(job.finished_at)} ({distance(job.finished_at, now)})"
    facts["limits"] = (
        f"runs for {output.span(spec.timeout_s)} at most; may fail: the program "
        f"{spec.max_attempts} x, the infrastructure {spec.infra_retries + 1} x"
    )
    if spec.retry_on:
        facts["limits"] += f"; again only on exit code {', '.join(map(str, spec.retry_on))}"
    if spec.no_retry_on:
        facts["limits"] += f"; never again on exit code {', '.join(map(str, spec.no_retry_on))}"
    facts["ports"] = ", ".join(spec.ports) or "none"
    if spec.machine.instance_types or spec.machine.capacity_type != "on-demand":
        facts["machine"] = ", ".join((*spec.machine.instance_types, spec.machine.capacity_type))
    if spec.priority:
        facts["priority"] = str(spec.priority)
    if spec.key:
        facts["key"] = spec.key
    if spec.labels:
        facts["labels"] = ", ".join(f"{name}={value}" for name, value in spec.labels.items())
    return facts


def _tried(attempt: Attempt) -> tuple[str, ...]:
    return (
        str(attempt.number),
        str(attempt.state),
        str(attempt.reason or ""),
        "" if attempt.exit_code is None else str(attempt.exit_code),
        attempt.instance_id or "",
        f"{attempt.launch.instance_type} {attempt.launch.capacity_type}",
        attempt.public_dns or attempt.public_ip or "",
        attempt.detail or "",
    )


def _timeline(history: list[Event]) -> list[tuple[str, ...]]:
    return [
        (
            f"+{(event.at - history[0].at).total_seconds():.3f}s",
            event.type,
            str(event.attempt or ""),
            event.actor,
            " ".join(f"{name}={value}" for name, value in event.detail.items()),
        )
        for event in history
    ]


COMMANDS = {
    "submit": submit,
    "list": list_jobs,
    "show": show,
    "cancel": cancel,
    "retry": retry,
}
