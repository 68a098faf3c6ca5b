"""Commands about jobs that are there: list, show, cancel, retry.

Promise: `cancel` and `retry` are done when they return: the daemons find what follows from it in
Postgres. `show` tells of every field of a job that is not at its default.
"""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

import click

from atemporal import waiting
from atemporal.cli import output, records
from atemporal.cli.arguments import changing_ids, known_ids, pairs
from atemporal.cli.causes import cause
from atemporal.cli.output import clean, distance, instant, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.image import familiar
from atemporal.model import Attempt, Event, Job, JobSpec
from atemporal.settings import Settings
from atemporal.states import Fault, JobState, Outcome
from atemporal.store import events, jobs, listing
from atemporal.store.database import server_time
from atemporal.waiting import Phase

# Fields of a job that `show` tells of in lines of their own.
_SHOWN = frozenset(
    {
        *("image", "command", "env", "run_at", "delay_s", "timeout_s", "max_attempts"),
        *("infra_retries", "retry_on", "no_retry_on", "machine", "ports"),
    }
)


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
        page = listing.page(
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
        keep=("id", "state"),
    )
    if not page.jobs:
        filtered = bool(state or label or after)
        note("no job fits" if filtered else "there are no jobs yet; `atemporal submit` makes one")
    if page.next:
        again = ["atemporal", "list", *(["--reverse"] if reverse else [])]
        again += [word for one in state for word in ("--state", one)]
        again += [word for one in label for word in ("--label", one)]
        again += ["--limit", str(limit), "--after", str(page.next)]
        note(f"{page.total} jobs in all; the next: {shlex.join(again)}")


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids)
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
    for line in output.aligned(list(_facts(job, now, session.settings).items())):
        click.echo(clean(line))
    for name, value in records.masked_env(job.spec.env, reveal=reveal).items():
        click.echo(f"env        {name}={clean(value)}")
    if job.attempts:
        click.echo()
        output.table(
            ("attempt", "state", "ended", "exit", "instance", "type", "address"),
            [_tried(attempt) for attempt in job.attempts],
            keep=("attempt", "state", "ended", "instance"),
        )
        for attempt in job.attempts:
            if why := cause(attempt):
                click.echo(clean(f"attempt {attempt.number}: {why}"))
    click.echo()
    output.table(
        ("after", "event", "attempt", "by", "detail"), _timeline(history), keep=("after", "event")
    )


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
    error, one that has finished otherwise is. Either all are cancelled or none.
    """
    with session.database.begin() as tx:
        found = list(dict.fromkeys(jobs.resolve(tx, one) for one in ids))
        for job_id in found:
            jobs.cancel(tx, job_id, actor=session.actor)
        cancelled = [jobs.get(tx, job_id) for job_id in found]
    _tell(session, cancelled, "cancelled")


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids, callback=changing_ids)
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
        # For a person's eyes the end of the id, which is what differs between ids and what they type.
        str(job.id)[-12:] if person else str(job.id),
        ending(job),
        exit_code,
        familiar(job.spec.image),
        distance(job.due_at, now) if person else instant(job.due_at),
        str(len(job.attempts)),
        ",".join(f"{name}={value}" for name, value in job.spec.labels.items()),
    )


def _facts(job: Job, now: datetime, settings: Settings) -> dict[str, str]:
    spec = job.spec
    state = str(job.state)
    if job.outcome:
        because = reason(job)
        state += f" ({job.outcome}: {because})" if because else f" ({job.outcome})"
    facts = {
        "job": str(job.id),
        "state": state if job.exit_code is None else f"{state}, exit code {job.exit_code}",
        "image": spec.image,
        "command": shlex.join(spec.command) if spec.command else "the image's own",
        "time": f"{instant(job.run_at)} ({distance(job.run_at, now)})",
    }
    if job.state is JobState.SCHEDULED and job.due_at != job.run_at:
        facts["due"] = f"{instant(job.due_at)} ({distance(job.due_at, now)})"
    if waited_for := waiting.of_job(job):
        detail = "".join(
            f": {part}" for part in (waited_for.blocked_on, waited_for.detail) if part
        )
        waited = output.span((now - waited_for.since).total_seconds())
        facts["waits for"] = f"{waited_for.what}, since {waited}{detail}"
        if end := waiting.until(waited_for, job, _deadlines(settings)):
            facts["until"] = f"{instant(end)} ({distance(end, now)})"
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
    return facts | wishes(spec)


def _deadlines(settings: Settings) -> dict[Phase, float]:
    return {
        Phase.QUEUED: settings.queue_deadline_s,
        Phase.LAUNCH: settings.launch_deadline_s,
        Phase.BOOT: settings.boot_deadline_s,
        Phase.PULL: settings.pull_deadline_s,
        Phase.STOP: settings.stop_deadline_s,
    }


def wishes(spec: JobSpec) -> dict[str, str]:
    """What else was asked for: each field of the job and its machine that is not at its default."""
    wishes = {"ports": ", ".join(spec.ports) or "none"}
    for model in (spec.machine, spec):
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            default = field.get_default(call_default_factory=True)
            if name not in _SHOWN and value != default:
                wishes[name.removesuffix("_s").replace("_", " ")] = _wish(name, value)
    return wishes


def _wish(name: str, value: Any) -> str:
    if name.endswith("_s") and isinstance(value, int):
        return output.span(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _tried(attempt: Attempt) -> tuple[str, ...]:
    return (
        str(attempt.number),
        str(attempt.state),
        str(attempt.reason or ""),
        "" if attempt.exit_code is None else str(attempt.exit_code),
        attempt.instance_id or "",
        f"{attempt.launch.instance_type} {attempt.launch.capacity_type}",
        attempt.public_dns or attempt.public_ip or "",
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
    "list": list_jobs,
    "show": show,
    "cancel": cancel,
    "retry": retry,
}
