"""`atemporal events`: what happens to jobs, as it happens.

Promise: with `-f` no event that fits is missed and none comes twice, those of a job in their order, also
over an outage of the API. A listener that has died goes on where it was by `--after`.
Mechanism: a page from the API, and the next one after its end; with nothing new a question a second.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from atemporal.cli import output
from atemporal.cli.arguments import known_ids, pairs
from atemporal.cli.output import clean, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.client import Client, EventPage, LifecycleEvent
from atemporal.clock import format_utc, parse_duration, parse_utc
from atemporal.errors import Unavailable

# While nothing happens; and while the API is away, doubled each time.
_PAUSE_S = 1.0
_AWAY_S = (0.5, 5.0)
_SHOWN = 20


def _since(
    _context: click.Context, _parameter: click.Parameter, given: str | None
) -> datetime | None:
    """An option's callback: an instant, or how long ago."""
    if given is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(given))
    except (ValueError, OverflowError):
        try:
            return parse_utc(given)
        except ValueError:
            raise click.BadParameter(
                f"{given!r} is neither a duration like 10m nor a time like 2030-04-25T05:27:27Z"
            ) from None


@click.command
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--job", metavar="ID", shell_complete=known_ids, help="Of this job.")
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Of jobs that have it.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Of this type, or of all that begin so: job.finished.",
)
@click.option(
    "--since",
    callback=_since,
    metavar="TIME",
    help="All that happened since then: an instant, or how long ago, like 10m.",
)
@click.option(
    "--after", type=click.IntRange(0, 2**63 - 1), metavar="EVENT", help="All behind this event_id."
)
@click.option(
    "-n",
    "last",
    type=click.IntRange(0, 1000),
    help=f"The last so many, if neither --since nor --after says more.  [default: {_SHOWN}]",
)
@output_option
@pass_session
def events(session: Session, /, **given: Any) -> None:
    """Show what happens to jobs, the oldest first, and follow it.

    With -o json each event is one line, with the body that webhooks and AMQP listeners get. Who
    keeps the last event_id goes on there by --after and misses nothing.
    """
    since, after, last = given["since"], given["after"], given["last"]
    if last is not None and (since is not None or after is not None):
        raise click.UsageError("-n goes with neither --since nor --after")
    wanted = {
        "job_id": session.api.job(given["job"])["id"] if given["job"] else None,
        "labels": pairs(given["label"], "--label"),
        "types": given["types"],
        "since": None if since is None else format_utc(since),
    }
    first = {"after": after} if since or after is not None else {"last": _SHOWN}
    if last is not None:
        first = {"last": last}
    page = session.api.event_page(**wanted, **first)
    session.repeat_notice()
    shown = _show(session, page)
    while page["more"] or given["follow"]:
        if not page["more"]:
            time.sleep(_PAUSE_S)
            if output.output_is_gone():
                sys.exit(0)
        page = _next(session.api, wanted, page["next"], follow=given["follow"])
        shown += _show(session, page)
    if not shown:
        note("no event fits")


def _next(api: Client, wanted: dict[str, Any], after: int, *, follow: bool) -> EventPage:
    """The page behind; who follows waits for an API that is away."""
    pause, away = _AWAY_S[0], False
    while True:
        try:
            return api.event_page(**wanted, after=after)
        except Unavailable as error:
            if not follow:
                raise
            if not away:
                note(f"{error}; waiting for it to come back")
            away = True
        time.sleep(pause)
        pause = min(2 * pause, _AWAY_S[1])


def _show(session: Session, page: EventPage) -> int:
    for event in page["events"]:
        if session.as_json:
            output.show_json(event, one_line=True)
        else:
            click.echo(clean(_line(event)))
    sys.stdout.flush()
    return len(page["events"])


def _line(event: LifecycleEvent) -> str:
    details = {
        "key": event.get("key"),
        "reason": event.get("reason"),
        "exit_code": event.get("exit_code"),
        "instance": event.get("instance_id"),
        **event["detail"],
        **event["labels"],
    }
    words = " ".join(f"{name}={value}" for name, value in details.items() if value is not None)
    which = f"{event['job_id']}.{event['attempt']}" if event["attempt"] else event["job_id"]
    at = format_utc(parse_utc(event["at"]))
    return f"{event['event_id']}  {at}  {which}  {event['type']}  {words}".rstrip()


COMMANDS = {"events": events}
