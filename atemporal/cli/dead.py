"""`atemporal dead`: messages that nobody could use, and what is to become of them.

Promise: a message's body and headers are shown with `--reveal` only: a job's environment may be in them.
`replay` and `drop` change nothing before every letter that was named is found and may be changed so; a
replay that was answered is sent by a scheduler, also if everything dies first.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from atemporal.cli import output
from atemporal.cli.arguments import LONGEST_S, duration_from
from atemporal.cli.masks import MASK, masked_env
from atemporal.cli.output import clean, distance, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.usual import DEAD_REASONS, LETTER_QUEUES, LETTER_STATES
from atemporal.cli.wording import at
from atemporal.client import DeadLetter, DeadLetterDetail
from atemporal.errors import Conflict
from atemporal.plural import counted

F = TypeVar("F", bound=Callable[..., Any])

_STATES = [*LETTER_STATES, "any"]
_PREFIX = "atemporal."
# An id's end that is shorter says too little about what is meant to be changed by it.
_CHANGING_ID = 4
_PAGE = 1000
_FILTERS = ("reason", "queue", "kind", "older_than_s", "newer_than_s")


def _filters(command: F) -> F:
    """Add the options that say which letters."""
    age = duration_from(0, LONGEST_S)
    for option in (
        click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True),
        click.option(
            "--newer-than",
            "newer_than_s",
            callback=age,
            metavar="DURATION",
            help="Kept since then.",
        ),
        click.option(
            "--older-than",
            "older_than_s",
            callback=age,
            metavar="DURATION",
            help="Kept before that.",
        ),
        click.option("--kind", multiple=True, help="Of this type of message, like job.submit."),
        click.option(
            "--queue",
            multiple=True,
            metavar="QUEUE",
            help="From this queue: "
            + ", ".join(one.removeprefix(_PREFIX) for one in LETTER_QUEUES)
            + ".",
        ),
        click.option(
            "--reason",
            multiple=True,
            type=click.Choice(DEAD_REASONS),
            help="Dead of this.",
        ),
    ):
        command = option(command)
    return command


@click.group
def dead() -> None:
    """Dead letters: list, show, send again, drop.

    They are messages that nobody could use. A letter is named by its id or by an unambiguous beginning
    or end of it.
    """


@dead.command("list")
@_filters
@click.option(
    "--state",
    multiple=True,
    type=click.Choice(_STATES),
    help="What was decided.  [default: kept, which is nothing]",
)
@click.option("--after", metavar="ID", help="Go on behind this letter, the last one of a page.")
@output_option
@pass_session
def list_letters(session: Session, /, **given: Any) -> None:
    """List dead letters, the newest first: those about which nothing is decided."""
    if given["after"]:
        given["after"] = session.api.dead_letter(given["after"])["id"]
    found, following = _found(session, given)
    session.repeat_notice()
    if session.as_json:
        output.show_json({"dead_letters": found, "next": following})
        return
    person = output.for_terminal()
    output.table(
        ("id", "state", "reason", "queue", "age", "message", "why"),
        [_line(one, person) for one in found],
        keep=("id", "state", "reason"),
    )
    if not found:
        filtered = any(given[name] for name in (*_FILTERS, "state", "after"))
        note("no dead letter fits" if filtered else "there are no dead letters")
    if following:
        note(f"there are more: {shlex.join(_again(given, following))}")


@dead.command
@click.argument("letter_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the body, and the headers' values.")
@output_option
@pass_session
def show(session: Session, letter_id: str, reveal: bool) -> None:
    """Show a dead letter: why it died, its history, its message."""
    found = session.api.dead_letter(letter_id)
    session.repeat_notice()
    if session.as_json:
        output.show_json(_masked(found, reveal=reveal))
        return
    for line in output.aligned(list(_facts(found).items())):
        click.echo(clean(line))
    for field, why in found["errors"].items():
        click.echo(clean(f"field      {field}: {why}"))
    headers = found["properties"].get("headers", {})
    for name, value in masked_env(headers, reveal=reveal).items():
        click.echo(clean(f"header     {name}={value}"))
    if found["deaths"]:
        click.echo("\nthe broker's history:")
        output.table(
            ("queue", "reason", "count", "time", "exchange", "routing key"),
            [
                (
                    *(one["queue"], one["reason"], str(one["count"]), one["time"] or ""),
                    *(one["exchange"], ",".join(one["routing_keys"])),
                )
                for one in found["deaths"]
            ],
            keep=("queue", "reason", "count"),
        )
    if found["body"] is None:
        return
    if reveal:
        click.echo("\nthe body:")
        for line in found["body"].split("\n"):
            click.echo(clean(line))
    else:
        note("--reveal shows the body, but no secrets")


@dead.command
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filters
@output_option
@pass_session
def replay(session: Session, /, ids: tuple[str, ...], **given: Any) -> None:
    """Send dead letters again, each to the queue its message came from.

    Which ones the ids say, or the filters. A letter is sent once: one that was sent already is no error.
    One that still nobody can use comes back as a new letter, which names the earlier one. A job message
    that has a key or a message id makes one job, however often it comes.
    """
    chosen = _chosen(session, ids, given)
    for one in chosen:
        if one["state"] == "dropped":
            raise Conflict(f"dead letter {one['id']} was dropped: nothing was sent")
        if one["not_replayable"]:
            raise Conflict(f"dead letter {one['id']}: {one['not_replayable']}; nothing was sent")
    _done(session, [session.api.replay_dead_letter(one["id"]) for one in chosen], "sent again")


@dead.command
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filters
@output_option
@pass_session
def drop(session: Session, /, ids: tuple[str, ...], **given: Any) -> None:
    """Give dead letters up: body and headers go, what they were stays.

    Which ones the ids say, or the filters. One that was dropped already is no error, one that was sent
    again is.
    """
    chosen = _chosen(session, ids, given)
    for one in chosen:
        if one["state"] in ("replaying", "replayed"):
            raise Conflict(f"dead letter {one['id']} is {one['state']}: nothing was dropped")
    _done(session, [session.api.drop_dead_letter(one["id"]) for one in chosen], "dropped")


def _chosen(session: Session, ids: tuple[str, ...], given: Mapping[str, Any]) -> list[DeadLetter]:
    """The letters that are meant, each once: by their ids, or by the filters."""
    filtered = any(given[name] for name in _FILTERS)
    if bool(ids) == filtered:
        raise click.UsageError("give the ids of dead letters, or filters like --reason invalid")
    for one in ids:
        if len(one.strip()) < _CHANGING_ID:
            raise click.BadParameter(
                f"{one!r} is too short; give {_CHANGING_ID} characters of the id or more"
            )
    if ids:
        found: dict[str, DeadLetter] = {
            one["id"]: one for one in map(session.api.dead_letter, ids)
        }
        return list(found.values())
    fitting, following = _found(session, {**given, "state": (), "after": None})
    if following:
        note(f"there are more than --limit {given['limit']}: the same command takes the next")
    if not fitting:
        note("no dead letter fits")
    return fitting


def _found(session: Session, given: Mapping[str, Any]) -> tuple[list[DeadLetter], str | None]:
    """As many letters as are wanted, by as many pages as that takes, and where to go on."""
    found: list[DeadLetter] = []
    after = given["after"]
    while True:
        page = session.api.dead_letters(
            states=given["state"],
            reasons=given["reason"],
            queues=given["queue"],
            kinds=given["kind"],
            older_than_s=given["older_than_s"],
            newer_than_s=given["newer_than_s"],
            limit=min(given["limit"] - len(found), _PAGE),
            after=after,
        )
        found += page["dead_letters"]
        after = page["next"]
        if after is None or len(found) >= given["limit"]:
            return found, after


def _again(given: Mapping[str, Any], after: str) -> list[str]:
    words = ["atemporal", "dead", "list"]
    for name in ("state", "reason", "queue", "kind"):
        words += [word for one in given[name] for word in (f"--{name}", one)]
    for name in ("older_than", "newer_than"):
        if given[f"{name}_s"] is not None:
            words += [f"--{name.replace('_', '-')}", f"{given[f'{name}_s']}s"]
    return [*words, "--limit", str(given["limit"]), "--after", after]


def _done(session: Session, changed: list[DeadLetterDetail], what: str) -> None:
    session.repeat_notice()
    if session.as_json:
        output.show_json([_masked(one) for one in changed])
        return
    for one in changed:
        when = ", as soon as a scheduler works" if one["state"] == "replaying" else ""
        click.echo(f"{one['id']} {what}{when}")


def _masked(found: DeadLetterDetail, *, reveal: bool = False) -> dict[str, Any]:
    """A letter as the API sends it, without its body and the values of its headers."""
    if reveal:
        return dict(found)
    headers = masked_env(found["properties"].get("headers", {}), reveal=False)
    properties = {**found["properties"], "headers": headers} if found["properties"] else {}
    body = None if found["body"] is None else MASK
    return {**found, "properties": properties, "body": body}


def _line(one: DeadLetter, person: bool) -> tuple[str, ...]:
    age = distance(at(one["received_at"]), at(one["read_at"])) if person else one["received_at"]
    return (
        one["id"][-12:] if person else one["id"],
        one["state"],
        one["reason"],
        one["queue"] or "",
        age,
        one["message_id"] or "",
        one["detail"],
    )


def _facts(found: DeadLetterDetail) -> dict[str, str]:
    now = at(found["read_at"])

    def when(text: str | None) -> str:
        return f"{text} ({distance(at(text), now)})" if text else ""

    state = found["state"]
    if found["decided_by"]:
        state += f", by {found['decided_by']} {when(found['decided_at'])}"
    others = {name: value for name, value in found["properties"].items() if name != "headers"}
    facts = {
        "dead letter": found["id"],
        "state": state,
        "reason": f"{found['reason']}: {found['detail']}",
        "from": found["queue"] or "nobody knows which queue",
        "routing key": found["routing_key"] or "",
        "exchange": found["exchange"] or "",
        "message id": found["message_id"] or "",
        "reply to": found["reply_to"] or "",
        "died": when(found["dead_at"]),
        "kept": when(found["received_at"]),
        "sent again": when(found["replayed_at"]),
        "replay of": found["replay_of"] or "",
        "body": counted(found["body_size"], "byte"),
        "not shown": found["body_not_shown"] or "",
        "properties": ", ".join(f"{name}={value}" for name, value in others.items()),
        "no replay": found["not_replayable"] or "",
    }
    return {name: value for name, value in facts.items() if value}


COMMANDS = {"dead": dead}
