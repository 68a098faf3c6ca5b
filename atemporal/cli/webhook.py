"""`atemporal webhook`: where events are sent to.

Promise: a change is done when the command returns. A secret is printed when it is made, and never again.
`test` says what came of the test.
"""

from __future__ import annotations

import time

import click
from click.shell_completion import CompletionItem

from atemporal.cli import output
from atemporal.cli.arguments import pairs
from atemporal.cli.output import clean, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.client import FailedDelivery, Webhook
from atemporal.errors import AtemporalError, Refused
from atemporal.plural import counted

# How long a scheduler may take to send a test, and how often that is looked for.
_TEST_S, _LOOK_EVERY_S = 30.0, 0.3


def _known(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a name; with none when the API does not answer."""
    try:
        known = context.ensure_object(Session).api.webhooks()["webhooks"]
    except AtemporalError:
        return []
    return [
        CompletionItem(one["name"], help=one["url"])
        for one in known
        if one["name"].startswith(incomplete)
    ]


_name = click.argument("name", shell_complete=_known)


@click.group
def webhook() -> None:
    """Webhooks: events of jobs, sent to a URL as they happen.

    Each request is signed as the Standard Webhooks specification says. What is not accepted is tried
    again for about a day; the events of a job come in their order, at least once.
    """


@webhook.command
@click.argument("name")
@click.option("--url", required=True, help="Where events are sent to: https://...")
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Of jobs that have it alone.")
@click.option(
    "--event",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Of this type alone, or of all that begin so: job.finished.",
)
@output_option
@pass_session
def create(
    session: Session, name: str, url: str, label: tuple[str, ...], types: tuple[str, ...]
) -> None:
    """Make a webhook; print the secret by which its receiver knows us."""
    fields = {"name": name, "url": url, "labels": pairs(label, "--label"), "types": list(types)}
    _secret(session, session.api.create_webhook(fields))


@webhook.command("list")
@output_option
@pass_session
def list_webhooks(session: Session) -> None:
    """List the webhooks by name."""
    found: list[Webhook] = []
    after: str | None = ""
    while after is not None:
        page = session.api.webhooks(after=after)
        found += page["webhooks"]
        after = page["next"]
    session.repeat_notice()
    if session.as_json:
        output.show_json(found)
        return
    output.table(
        ("name", "state", "pending", "failed", "events", "labels", "url"),
        [
            (
                *(one["name"], one["state"], str(one["pending"]), str(one["failed"])),
                *(",".join(one["types"]) or "all", _labels(one), one["url"]),
            )
            for one in found
        ],
        keep=("name", "state"),
    )
    if not found:
        note("there are no webhooks yet; `atemporal webhook create` makes one")


@webhook.command
@_name
@output_option
@pass_session
def show(session: Session, name: str) -> None:
    """Show a webhook, and how it fares."""
    found = session.api.webhook(name)
    session.repeat_notice()
    if session.as_json:
        output.show_json(found)
        return
    tested = found["tested"]
    facts = {
        "webhook": found["name"],
        "state": _state(found),
        "url": found["url"],
        "events": ", ".join(found["types"]) or "all",
        "labels": _labels(found),
        "pending": str(found["pending"]),
        "oldest": found["oldest_pending_at"],
        "given up": str(found["failed"]),
        "accepted": found["accepted_at"],
        "last error": found["last_error"] and f"{found['last_error_at']}: {found['last_error']}",
        "next try": found["try_at"] if found["state"] == "failing" else None,
        "tested": tested and (tested["result"] or "not sent yet"),
        "made": found["created_at"],
    }
    rows = [(title, fact) for title, fact in facts.items() if fact]
    for line in output.aligned(rows):
        click.echo(clean(line))


@webhook.command
@_name
@output_option
@pass_session
def test(session: Session, name: str) -> None:
    """Send a test event, and say what came of it; exits with 1 when it was not accepted."""
    asked = session.api.test_webhook(name)
    until = time.monotonic() + _TEST_S
    while True:
        found = session.api.webhook(name)
        tested = found["tested"]
        if not (tested and asked["tested"] and tested["id"] == asked["tested"]["id"]):
            raise Refused(f"somebody else has tested {name} meanwhile: look at `webhook show`")
        if tested["accepted"] is not None or time.monotonic() > until:
            break
        time.sleep(_LOOK_EVERY_S)
    if session.as_json:
        output.show_json(tested)
    if tested["accepted"] is None:
        raise Refused(f"no scheduler has sent the test within {_TEST_S:.0f} s; does one run?")
    if not tested["accepted"]:
        raise Refused(f"{name}: {tested['result']}")
    if not session.as_json:
        click.echo(f"{name} accepted the test")


@webhook.command
@_name
@output_option
@pass_session
def pause(session: Session, name: str) -> None:
    """Send nothing until `resume`; what happens meanwhile is sent then."""
    _done(session, session.api.pause_webhook(name), f"{name} paused")


@webhook.command
@_name
@click.option("--skip", is_flag=True, help="Forget what has happened meanwhile.")
@output_option
@pass_session
def resume(session: Session, name: str, skip: bool) -> None:
    """Send again: to one that was paused or disabled, or that fails, at once."""
    resumed = session.api.resume_webhook(name, skip=skip)
    _done(session, resumed, f"{name} resumed; pending: {counted(resumed['pending'], 'event')}")


@webhook.command("rotate-secret")
@_name
@output_option
@pass_session
def rotate_secret(session: Session, name: str) -> None:
    """Print another secret; the one before signs as well for a day."""
    _secret(session, session.api.rotate_webhook_secret(name))


@webhook.command
@_name
@output_option
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a webhook, with all that it has not delivered."""
    gone = session.api.delete_webhook(name)
    lost = counted(gone["pending"] + gone["failed"], "event", more="undelivered")
    _done(session, gone, f"{name} deleted, with {lost}")


@webhook.command
@_name
@output_option
@pass_session
def failed(session: Session, name: str) -> None:
    """List the events that were given up."""
    found: list[FailedDelivery] = []
    after: int | None = 0
    while after is not None:
        page = session.api.failed_deliveries(name, after=after)
        found += page["deliveries"]
        after = page["next"]
    if session.as_json:
        output.show_json(found)
        return
    output.table(
        ("event", "given up", "type", "job", "tries", "error"),
        [
            (
                *(str(one["event_id"]), one["dead_at"], one["type"], one["job_id"]),
                *(str(one["failures"]), one["last_error"] or ""),
            )
            for one in found
        ],
        keep=("event", "given up", "type"),
    )
    if not found:
        note("nothing was given up")


@webhook.command
@_name
@click.option("--event", "events", multiple=True, type=int, help="This event; else all.")
@output_option
@pass_session
def retry(session: Session, name: str, events: tuple[int, ...]) -> None:
    """Send again what was given up."""
    many = session.api.retry_deliveries(name, events or None)
    if session.as_json:
        output.show_json({"retried": many})
    else:
        click.echo(f"{counted(many, 'event')} {'is' if many == 1 else 'are'} sent again")


def _secret(session: Session, made: Webhook) -> None:
    session.repeat_notice()
    if session.as_json:
        output.show_json(made)
    else:
        click.echo(made["secret"])
        note("keep it: it is not shown again")


def _done(session: Session, shown: Webhook, sentence: str) -> None:
    session.repeat_notice()
    if session.as_json:
        output.show_json(shown)
    else:
        click.echo(sentence)


def _labels(one: Webhook) -> str:
    return ",".join(f"{name}={value}" for name, value in one["labels"].items())


def _state(found: Webhook) -> str:
    if found["state"] == "disabled":
        return f"disabled since {found['disabled_at']}: {found['disabled_why']}"
    if found["state"] == "paused":
        return f"paused since {found['paused_at']}"
    if found["state"] == "failing":
        return f"failing since {found['failing_since']}, {found['failures']} times in a row"
    return found["state"]


COMMANDS = {"webhook": webhook}
