"""The command audit: what EC2 shows against what the books say.

Promise: it changes nothing, and its exit code is its verdict: 0 when everything balances, 1 when
anything does not, so that a monitor can ask it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from atemporal.audit import SHOWN_FOR_S, Audit, Row, Settled, Standing
from atemporal.audit import audit as compare
from atemporal.cli import output
from atemporal.cli.output import instant, span
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cloud import Cloud
from atemporal.store import installation, ledger
from atemporal.store.database import server_time
from atemporal.store.invariants import Violation, violations


@click.command
@click.option("--all", "everything", is_flag=True, help="Also the rows that balance.")
@output_option
@pass_session
def audit(session: Session, everything: bool) -> None:
    """Compare every instance with every attempt.

    The tables are asked as well whether they keep every promise about jobs and attempts.

    \b
    How a row stands:
        matched      an instance and its attempt
        forgotten    closed, and EC2 does not show it any more
        young        too young to be missing; no fault
        unaccounted  an instance that no attempt accounts for
        doubled      a second instance of an attempt
        missing      EC2 should show this attempt's instance and does not
        overstayed   the instance outlived its attempt or its deadline
        foreign      another installation with this deployment's name launched it
    EC2 shows an instance for about an hour after its end; what was closed before that balances by
    the books alone. Exits with 1 when anything does not balance.
    """
    settings = session.settings
    # A thing is as old as it was when the cloud did not show it.
    with session.database.begin() as tx:
        now = server_time(tx)
    # The cloud before the books: what is in its answer was in them before.
    with Cloud(settings) as cloud:
        listed = cloud.all()
    with session.database.begin() as tx:
        books = ledger.page(
            tx,
            instance_ids=[one.id for one in listed],
            refs={one.ref for one in listed if one.ref},
            within_s=SHOWN_FOR_S,
        )
        broken = violations(tx)
        ours = installation.identity(tx)
    found = compare(
        listed,
        books.attempts,
        installation=ours,
        now=now,
        grace_s=settings.cloud_grace_s,
        overstay_s=settings.stop_deadline_s,
        settled=Settled(books.settled, books.settled_s),
    )
    balances = found.balances and not broken
    if session.as_json:
        output.show_json(_record(found, broken, settings.deployment, balances))
    else:
        _tell(found, broken, everything, balances)
    if not balances:
        click.get_current_context().exit(1)


def _tell(found: Audit, broken: Sequence[Violation], everything: bool, balances: bool) -> None:
    quiet = () if everything else (Standing.MATCHED, Standing.FORGOTTEN)
    rows = [row for row in found.rows if row.standing not in quiet]
    person = output.for_terminal()
    output.table(
        ("stands", "instance", "state", "job", "attempt", "books", "ec2 s", "books s", "why"),
        [_line(row, person) for row in rows],
    )
    for one in broken:
        click.echo(f"broken: {output.clean(str(one))}")
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count)
    click.echo(f"rows: {counts or 'none'}")
    click.echo(
        f"instance-seconds: {found.ec2_s:.0f} by EC2, {found.books_s:.0f} by the books; "
        f"longest stay beyond an end: {span(found.worst_overstay_s)}"
    )
    click.echo(
        f"by the books alone: {found.settled.attempts} attempts, {found.settled.seconds:.0f} "
        f"instance-seconds, closed more than {span(SHOWN_FOR_S)} ago"
    )
    click.echo(f"broken promises of the tables: {len(broken)}")
    click.echo("it balances" if balances else "it does NOT balance")


def _line(row: Row, person: bool) -> tuple[str, ...]:
    record = _row(row)
    job = record["job"] or ""
    return (
        row.standing,
        record["instance"] or "",
        record["state"] or "",
        job[-12:] if person else job,
        str(record["attempt"] or ""),
        record["books"] or "",
        f"{row.ec2_s:.0f}",
        f"{row.books_s:.0f}",
        row.why,
    )


def _record(
    found: Audit, broken: Sequence[Violation], deployment: str, balances: bool
) -> dict[str, Any]:
    return {
        "deployment": deployment,
        "at": instant(found.at),
        "balances": balances,
        "counts": {str(standing): count for standing, count in found.counts.items()},
        "instance_seconds": {"ec2": round(found.ec2_s, 3), "books": round(found.books_s, 3)},
        "worst_overstay_s": round(found.worst_overstay_s, 3),
        "books_alone": {
            "attempts": found.settled.attempts,
            "instance_seconds": round(found.settled.seconds, 3),
            "closed_before_s": SHOWN_FOR_S,
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
        "standing": row.standing,
        "fault": row.standing.fault,
        "why": row.why or None,
        "instance": instance.id if instance else attempt.instance_id if attempt else None,
        "state": instance.state if instance else None,
        "job": str(ref.job_id) if ref else None,
        "attempt": ref.number if ref else None,
        "books": str(attempt.state) if attempt else None,
        "ec2_s": round(row.ec2_s, 3),
        "books_s": round(row.books_s, 3),
        "overstay_s": round(row.overstay_s, 3),
    }


COMMANDS = {"audit": audit}
