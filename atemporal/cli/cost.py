"""`atemporal cost`: what jobs cost.

Promise: the amounts are the API's own, exact; in the table they are shown to the cent, or to the first
digits of what is less. What is missing of them is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from atemporal.billing import PLACES
from atemporal.cli import output
from atemporal.cli.arguments import when
from atemporal.cli.output import note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.client.costs import CostReport
from atemporal.plural import counted


def _until(context: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any]:
    read = when(context, parameter, text)
    if "until_s" in read:
        raise click.BadParameter(f"{text!r} is a duration; give a day or an instant")
    return read


@click.command
@click.option(
    "--by",
    default="day",
    show_default=True,
    metavar="WHAT",
    help="label=NAME, schedule, job, instance-type, capacity-type or day.",
)
@click.option(
    "--since",
    default="7d",
    show_default=True,
    callback=when,
    metavar="TIME",
    help="From when on: so long ago like 7d, a day or an instant. Hours count whole.",
)
@click.option(
    "--until",
    callback=_until,
    metavar="TIME",
    help="To when: a day or an instant.  [default: now]",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@output_option
@pass_session
def cost(
    session: Session, by: str, since: Mapping[str, Any], until: Mapping[str, Any], limit: int
) -> None:
    """What jobs cost, by label, schedule, job, type or day.

    Sums of the attempts whose instances went in a time.

    \b
        atemporal cost --by label=team --since 30d
        atemporal cost --by schedule --since 2026-01-01 --until 2026-02-01 -o json

    An attempt counts when EC2 has confirmed that its instance is gone, by the prices of its launch. What
    is under way is shown below the table. The price table is the operator's (`atemporal prices`); data
    transfer, taxes and discounts are not in it.
    """
    report = session.api.cost(by, **since, **until, limit=limit)
    session.repeat_notice()
    if not report["priced"]:
        note(
            "the API has no price table: what is launched now counts with nothing. `atemporal prices "
            "make` makes one, ATEMPORAL_PRICES_FILE names it"
        )
    if session.as_json:
        output.show_json(report)
        return
    click.echo(f"{report['since']} to {report['until']}, in {report['currency']}")
    rows = [_row(one["name"] or "(none)", one) for one in report["rows"]]
    if report["others"]["attempts"]:
        rows.append(_row("(others)", report["others"]))
    rows.append(_row("total", report["total"]))
    output.table((by, "attempts", "hours", "cost"), rows, keep=(by, "cost"))
    _notes(report)


def _row(name: str, one: Any) -> tuple[str, ...]:
    return (name, str(one["attempts"]), f"{one['seconds'] / 3600:.2f}", rounded(one["cost"]))


def _notes(report: CostReport) -> None:
    now = report["under_way"]
    if now["attempts"]:
        note(
            f"under way and not in the total: {counted(now['attempts'], 'attempt')}, "
            f"{rounded(now['cost'])} so far, {rounded(now['per_hour'])} an hour"
        )
    if unpriced := report["total"]["unpriced"] + now["unpriced"]:
        note(
            f"{counted(unpriced, 'attempt')} {'counts' if unpriced == 1 else 'count'} with nothing: no "
            "price was known at the launch (ATEMPORAL_PRICES_FILE)"
        )


def rounded(amount: str) -> str:
    """An amount for people, halves up: to the cent, or to four places if it is less than a dollar."""
    whole, _, places = amount.partition(".")
    keep = 2 if whole != "0" else 4
    digits = int(whole + places.ljust(PLACES, "0"))
    unit = 10 ** (PLACES - keep)
    scaled = (2 * digits + unit) // (2 * unit)
    head, tail = divmod(scaled, 10**keep)
    return f"{head}.{tail:0{keep}d}"


COMMANDS = {"cost": cost}
