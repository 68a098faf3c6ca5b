"""The command doctor: is this installation sound, and if not, what to do.

Promise: it changes nothing. A line for each check, and an exit code that is the verdict: 0 when nothing
is wrong, 1 when something is, 3 when neither Postgres nor RabbitMQ nor EC2 answers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from atemporal import __version__
from atemporal.cli import output
from atemporal.cli.session import Session, output_option, pass_session

if TYPE_CHECKING:
    from atemporal.doctor import Check, Result, Status

_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red", "unchecked": "cyan"}
_SERVERS = ("database.reachable", "broker.reachable", "ec2.reachable")


@click.command
@click.option(
    "--for",
    "daemons",
    multiple=True,
    type=click.Choice(["launcher", "reaper"]),
    help="Only the EC2 rights of this daemon, whose credentials you have; may be repeated.",
)
@click.option(
    "--health",
    multiple=True,
    metavar="URL",
    help="A daemon's own port, http://host:port; may be repeated.",
)
@click.option(
    "--management",
    metavar="URL",
    help="RabbitMQ's management API, like http://host:15672, for bindings and policies; asked as "
    "the user of ATEMPORAL_BROKER_URL, or as the one it names.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only what is not ok.")
@output_option
@pass_session
def doctor(
    session: Session,
    daemons: tuple[str, ...],
    health: tuple[str, ...],
    management: str | None,
    quiet: bool,
) -> None:
    """Check the whole installation, and say what to do.

    It reads the ATEMPORAL_* variables of the daemons, so run it where a daemon runs, as its user and
    with its AWS credentials. Nothing is changed: EC2 is asked by dry runs. Each check is bounded in
    time, and none keeps the others from being made.

    \b
        ok         as it should be
        warning    it works, and somebody should know
        wrong      it does not work, or will not
        unchecked  it could not be seen: an earlier check failed, or a right to look is missing

    Exits with 0 when nothing is wrong, with 1 when something is, with 3 when neither Postgres nor
    RabbitMQ nor EC2 answers.

    \b
        atemporal doctor -q
        atemporal doctor --for launcher -o json
        atemporal doctor --health http://127.0.0.1:9101 --health http://127.0.0.1:9102
    """
    from atemporal.doctor import CHECKS, Instruments, examine

    wanted = [
        one for one in CHECKS if not daemons or not one.daemons or {*daemons} & {*one.daemons}
    ]
    at = datetime.now(UTC)
    made: list[tuple[Check, Result]] = []
    with Instruments(os.environ, management=management, health=health) as instruments:
        for check, result in examine(wanted, instruments):
            made.append((check, result))
            if not session.as_json and not (quiet and result.status == "ok"):
                _show(check, result, max(len(one.name) for one in wanted))
    counts = Counter(str(result.status) for _, result in made)
    if session.as_json:
        output.show_json(_record(made, counts, at))
    else:
        click.echo(_verdict(counts))
    code = _exit_code(made, counts)
    if code:
        click.get_current_context().exit(code)


def _show(check: Check, result: Result, width: int) -> None:
    do = f" -> {result.do}" if result.do else ""
    line = output.clean(f"{check.name.ljust(width)}  {result.detail}{do}")
    click.echo(f"{_styled(result.status)}  {line}")


def _styled(status: Status) -> str:
    padded = str(status).ljust(max(map(len, _COLOURS)))
    if os.environ.get("NO_COLOR") or not output.for_terminal():
        return padded
    return click.style(padded, fg=_COLOURS[status], bold=status == "wrong")


def _verdict(counts: Counter[str]) -> str:
    few = ", ".join(f"{counts[name]} {name}" for name in reversed(_COLOURS) if counts[name])
    return few if counts["wrong"] else f"nothing is wrong: {few}"


def _exit_code(made: Sequence[tuple[Check, Result]], counts: Counter[str]) -> int:
    if not counts["wrong"]:
        return 0
    by_name = {check.name: result for check, result in made}
    return 3 if all(by_name[name].no_answer for name in _SERVERS) else 1


def _record(
    made: Sequence[tuple[Check, Result]], counts: Counter[str], at: datetime
) -> dict[str, Any]:
    return {
        "version": __version__,
        "at": output.instant(at),
        "ok": not counts["wrong"],
        "counts": {name: counts[name] for name in _COLOURS},
        "checks": [
            {
                "name": check.name,
                "status": str(result.status),
                "detail": result.detail,
                "do": result.do or None,
                "needs": list(check.needs),
            }
            for check, result in made
        ],
    }


COMMANDS = {"doctor": doctor}
