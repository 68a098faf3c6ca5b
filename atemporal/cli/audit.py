"""The command audit: what EC2 shows against what is recorded.

Promise: it changes nothing, and its exit code is its verdict: 0 when both are in sync, 1 when there
is any drift, so that a monitor can ask it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from atemporal.cli import output
from atemporal.cli.output import instant, span
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.plural import counted

if TYPE_CHECKING:
    from atemporal.fleet.reconciliation import Reconciliation, Row
    from atemporal.store.invariants import Violation


@click.command
@click.option("--all", "everything", is_flag=True, help="Also the rows that are in sync.")
@click.option("--history", is_flag=True, help="Check every job there is, not the latest only.")
@output_option
@pass_session
def audit(session: Session, everything: bool, history: bool) -> None:
    """Compare every instance with every attempt.

    The tables are asked as well whether they keep every promise about jobs and attempts: for the jobs
    of the latest 1,000 events and those that are under way, with --history for all. That takes a minute
    for about a million jobs.

    \b
    The status of a row:
        matched    an instance and its attempt
        forgotten  closed, and EC2 does not show it any more
        young      too young to be missing; no drift
        orphaned   an instance that no attempt accounts for
        duplicate  a second instance of an attempt
        missing    EC2 should show this attempt's instance and does not
        leaked     the instance outlived its attempt or its deadline
        foreign    another installation with this deployment's name launched it
    EC2 shows an instance for about an hour after its end; what was closed before that is in sync by
    the records alone. Exits with 1 when there is any drift, or a broken promise.
    """
    from atemporal.cloud import Cloud
    from atemporal.fleet.reader import FleetReader
    from atemporal.fleet.reconciliation import reconcile
    from atemporal.store.invariants import moved, violations

    settings = session.settings
    with Cloud(settings) as cloud:
        snapshot = FleetReader(session.database, cloud).snapshot_with_history(whole=history)
    with session.database.begin() as tx:
        broken = violations(tx, None if history else moved(tx).jobs)
    found = reconcile(snapshot, grace_s=settings.cloud_grace_s, stop_s=settings.stop_deadline_s)
    if session.as_json:
        output.show_json(_record(found, broken, settings.deployment, history))
    else:
        _show(found, broken, everything, history)
    if not _in_sync(found, broken):
        click.get_current_context().exit(1)


def _in_sync(found: Reconciliation, broken: Sequence[Violation]) -> bool:
    return found.in_sync and not broken


def _show(
    found: Reconciliation, broken: Sequence[Violation], everything: bool, history: bool
) -> None:
    from atemporal.fleet.reader import DAY_S
    from atemporal.fleet.reconciliation import SHOWN_FOR_S, Status

    quiet = () if everything else (Status.MATCHED, Status.FORGOTTEN)
    rows = [row for row in found.rows if row.status not in quiet]
    person = output.for_terminal()
    within = "" if history else f" and within {span(DAY_S)}"
    output.table(
        (
            "status",
            "instance",
            "state",
            "job",
            "attempt",
            "recorded",
            "ec2 s",
            "recorded s",
            "why",
        ),
        [_line(row, person) for row in rows],
    )
    for one in broken:
        click.echo(f"broken: {output.clean(str(one))}")
    click.echo(f"rows: {_counted(found, drift_only=False) or 'none'}")
    click.echo(
        f"instance-seconds: {found.ec2_s:.0f} by EC2, {found.recorded_s:.0f} by the records; "
        f"longest life beyond an end: {span(found.worst_leak_s)}"
    )
    click.echo(
        f"by the records alone: {counted(found.settled.attempts, 'attempt')}, "
        f"{found.settled.seconds:.0f} instance-seconds, closed more than {span(SHOWN_FOR_S)} ago{within}"
    )
    click.echo(f"broken promises of the tables: {len(broken)}")
    if _in_sync(found, broken):
        click.echo("in sync")
        return
    promises = counted(len(broken), "promise", more="broken") if broken else ""
    drift = _counted(found, drift_only=True)
    click.echo(f"drift: {', '.join(filter(None, (drift, promises)))}")


def _counted(found: Reconciliation, *, drift_only: bool) -> str:
    return ", ".join(
        f"{count} {status}"
        for status, count in found.counts.items()
        if count and (status.is_drift or not drift_only)
    )


def _line(row: Row, person: bool) -> tuple[str, ...]:
    record = _row(row)
    job = record["job"] or ""
    return (
        row.status,
        record["instance"] or "",
        record["state"] or "",
        job[-12:] if person else job,
        str(record["attempt"] or ""),
        record["recorded"] or "",
        f"{row.ec2_s:.0f}",
        f"{row.recorded_s:.0f}",
        row.why,
    )


def _record(
    found: Reconciliation, broken: Sequence[Violation], deployment: str, history: bool
) -> dict[str, Any]:
    from atemporal.fleet.reader import DAY_S
    from atemporal.fleet.reconciliation import SHOWN_FOR_S

    return {
        "deployment": deployment,
        "at": instant(found.at),
        "in_sync": _in_sync(found, broken),
        "counts": {str(status): count for status, count in found.counts.items()},
        "instance_seconds": {
            "ec2": round(found.ec2_s, 3),
            "recorded": round(found.recorded_s, 3),
        },
        "worst_leak_s": round(found.worst_leak_s, 3),
        "settled": {
            "attempts": found.settled.attempts,
            "instance_seconds": round(found.settled.seconds, 3),
            "closed_before_s": SHOWN_FOR_S,
            "closed_within_s": None if history else DAY_S,
        },
        "rows": [_row(row) for row in found.rows],
        "violations": [
            {
                "promise": one.invariant.name,
                "sentence": one.invariant.sentence,
                "job": str(one.job_id),
                "attempt": one.attempt,
                "what": one.what,
            }
            for one in broken
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    instance, attempt = row.instance, row.attempt
    ref = attempt.ref if attempt else instance.ref if instance else None
    return {
        "status": row.status,
        "drift": row.status.is_drift,
        "why": row.why or None,
        "instance": instance.id if instance else attempt.instance_id if attempt else None,
        "state": instance.state if instance else None,
        "job": str(ref.job_id) if ref else None,
        "attempt": ref.number if ref else None,
        "recorded": str(attempt.state) if attempt else None,
        "ec2_s": round(row.ec2_s, 3),
        "recorded_s": round(row.recorded_s, 3),
        "leak_s": round(row.leak_s, 3),
    }


COMMANDS = {"audit": audit}
