"""`atemporal show`: all about one job.

Promise: it tells of every field of a job that is not at its default, of every attempt, and of every
event.
"""

from __future__ import annotations

import shlex
from typing import Any

import click

from atemporal.cli import output, timeline, usual
from atemporal.cli.arguments import known_ids
from atemporal.cli.masks import masked_job, variables_of
from atemporal.cli.output import clean, distance
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.wording import at, reason
from atemporal.client import Event, Instance, Job, JobDetail


@click.command
@click.argument("job_id", metavar="ID", shell_complete=known_ids)
@click.option("--reveal", is_flag=True, help="Show the environment's values.")
@output_option
@pass_session
def show(session: Session, job_id: str, reveal: bool) -> None:
    """Show a job: what it is, its attempts, its history.

    The first lines say what it waits for, and until when. Below its attempts is how long each was in
    which phase; on a terminal also drawn against time.

    \b
        atemporal show 3f9c01d2                        the end of its id will do
        atemporal show 3f9c01d2 --reveal               with the values of its environment
        atemporal show 3f9c01d2 -o json | jq .phases   the phases, for a program
    """
    job = session.api.job(job_id)
    history = session.api.events(job["id"])
    session.repeat_notice()
    if session.as_json:
        phases = timeline.as_json(timeline.spells(job, history))
        shown = masked_job(job, reveal=reveal)
        output.show_json({**shown, "events": history, "phases": phases})
        return
    for line in output.aligned([*_facts(job).items(), *variables_of(job, reveal=reveal)]):
        click.echo(clean(line))
    if job["instances"]:
        click.echo()
        output.table(
            ("attempt", "state", "ended", "exit", "instance", "type", "cost", "address"),
            [_tried(attempt) for attempt in job["instances"]],
            keep=("attempt", "state", "ended", "instance"),
        )
        for attempt in job["instances"]:
            if tags := attempt.get("tags"):
                asked_for = f"tags asked for: {_wish('tags', tags)}"
                click.echo(clean(f"attempt {attempt['number']}: {asked_for}"))
            if start := _start(attempt):
                click.echo(f"attempt {attempt['number']}: {start}")
            if attempt["cause"]:
                click.echo(clean(f"attempt {attempt['number']}: {attempt['cause']}"))
        _phases(job, history)
    click.echo()
    output.table(
        ("after", "event", "attempt", "by", "detail"), _timeline(history), keep=("after", "event")
    )


def _phases(job: JobDetail, history: list[Event]) -> None:
    """How long each attempt was in which phase; on a terminal drawn against time."""
    found, drawn = timeline.spells(job, history), timeline.drawable()
    beginning = at(history[0]["at"] if history else job["created_at"])
    click.echo()
    output.table(
        timeline.COLUMNS if drawn else timeline.COLUMNS[:-1],
        timeline.rows(found, beginning, drawn=drawn),
        keep=timeline.KEPT,
    )


# A scheduler takes a due job within a second or two.
_OVERDUE_S = 10


def _facts(job: JobDetail) -> dict[str, str]:
    state, now = job["state"], at(job["read_at"])

    def when(text: str) -> str:
        return f"{text} ({distance(at(text), now)})"

    if job["outcome"]:
        because = reason(job)
        state += f" ({job['outcome']}: {because})" if because else f" ({job['outcome']})"
    code = "exit code" if job["finished_at"] else "the last attempt's exit code"
    facts = {
        "job": job["id"],
        "state": state if job["exit_code"] is None else f"{state}, {code} {job['exit_code']}",
        "image": job["image"],
        "command": shlex.join(job["command"]) if job["command"] else "the image's own",
        "time": when(job["time"]),
    }
    if job["state"] == "scheduled" and job["due_at"] != job["time"]:
        facts["due"] = when(job["due_at"])
    if job["start_by"]:
        facts["start by"] = when(job["start_by"])
    if job["dispatch_at"]:
        facts["launch"] = f"{when(job['dispatch_at'])}, {_lead(job)}"
    elif job["lead"] != "auto":
        facts["lead"] = "none: launched at its time" if job["lead"] == 0 else _asked(job["lead"])
    if job["waiting_for"] and job["waiting_since"]:
        parts = (job["waiting_on"], job["waiting_detail"])
        detail = "".join(f": {part}" for part in parts if part)
        waited = output.span((now - at(job["waiting_since"])).total_seconds())
        facts["waits for"] = f"{job['waiting_for']}, since {waited}{detail}"
        overdue = (now - at(job["due_at"])).total_seconds() > _OVERDUE_S
        if job["state"] == "scheduled" and overdue and not job["waiting_limit"]:
            facts["overdue"] = (
                "it runs by itself once a scheduler works; does one run, and RabbitMQ?"
            )
    if job["waiting_until"]:
        facts["until"] = when(job["waiting_until"])
    facts["submitted"] = job["created_at"]
    if job["finished_at"]:
        facts["finished"] = when(job["finished_at"])
    facts["limits"] = (
        f"runs for {output.span(job['timeout_s'])} at most; may fail: the program "
        f"{job['max_attempts']} x, the infrastructure {job['infra_retries'] + 1} x"
    )
    if job["retry_on"]:
        facts["limits"] += f"; again only on exit code {', '.join(map(str, job['retry_on']))}"
    if job["no_retry_on"]:
        codes = ", ".join(map(str, job["no_retry_on"]))
        facts["limits"] += f"; never again on exit code {codes}"
    if job["cost"] is not None and job["instances"]:
        so_far = "" if job["finished_at"] else " so far"
        at_most = f", {job['max_cost']} at most" if job["max_cost"] else ""
        facts["cost"] = f"{job['cost']} USD{so_far}{at_most}"
    elif job["max_cost"]:
        facts["cost"] = f"{job['max_cost']} USD at most"
    return facts | wishes(job)


def _lead(job: JobDetail) -> str:
    """How far ahead of its time it is launched, and why; and what that means for its start."""
    ahead_s = (at(job["due_at"]) - at(job["dispatch_at"] or job["due_at"])).total_seconds()
    how = "auto" if job["lead"] == "auto" else _asked(job["lead"])
    line = f"{output.span(ahead_s)} ahead of its time ({how})"
    late_s = (job["lead_s"] or 0.0) - ahead_s
    if late_s >= 1:
        line += (
            f"; machines take {output.span(job['lead_s'] or 0)}: about {output.span(late_s)} late"
        )
    return line


def _asked(lead: int | str) -> str:
    return f"{output.span(int(lead))} was asked for"


def _start(attempt: Instance) -> str:
    """When its container started beside its time, what was predicted, and what the lead cost."""
    if attempt["start_at"] is None:
        return ""
    parts = []
    if attempt["start_skew_s"] is not None:
        parts.append(f"started {attempt['start_skew_s']:+.3f} s from its time")
    if attempt["predicted_skew_s"] is not None:
        parts.append(f"predicted {attempt['predicted_skew_s']:+.0f} s")
    if attempt["ahead_s"] is not None:
        parts.append(f"the lead cost {attempt['ahead_s']:.0f} s of its instance")
    offset_ms = attempt["clock_offset_ms"]
    if offset_ms and abs(offset_ms) > usual.CLOCKS_AGREE_MS:
        parts.append(f"its clock was {offset_ms / 1000:+.1f} s off: the database's counted")
    return ", ".join(parts)


def wishes(job: Job | JobDetail) -> dict[str, str]:
    """What else was asked for: each field of the job and its machine that is not at its default."""
    wishes = {"ports": ", ".join(job["ports"]) or "none"}
    given: dict[str, Any] = {**job}
    for defaults, fields in ((usual.MACHINE, job["machine"]), (usual.JOB, given)):
        for name, default in defaults.items():
            if name in fields and fields[name] != default:
                wishes[name.removesuffix("_s").replace("_", " ")] = _wish(name, fields[name])
    return wishes


def _wish(name: str, value: Any) -> str:
    if name.endswith("_s") and isinstance(value, int):
        return output.span(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tried(attempt: Instance) -> tuple[str, ...]:
    return (
        str(attempt["number"]),
        attempt["state"],
        attempt["reason"] or "",
        "" if attempt["exit_code"] is None else str(attempt["exit_code"]),
        attempt["instance_id"] or "",
        f"{attempt['instance_type']} {attempt['capacity_type']}",
        attempt["cost"] or "",
        attempt["public_dns"] or attempt["public_ip"] or "",
    )


def _timeline(history: list[Event]) -> list[tuple[str, ...]]:
    return [
        (
            f"+{(at(event['at']) - at(history[0]['at'])).total_seconds():.3f}s",
            event["type"],
            str(event["attempt"] or ""),
            event["actor"],
            " ".join(f"{name}={value}" for name, value in event["detail"].items()),
        )
        for event in history
    ]


COMMANDS = {"show": show}
