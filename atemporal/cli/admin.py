"""Commands of an operator: token, db, broker, config.

Promise: each does one thing that may be repeated; a token's secret is shown once, when it is made,
and other secrets never.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from atemporal.cli import output
from atemporal.cli.masks import MASK, masked_url
from atemporal.cli.output import instant, note
from atemporal.cli.session import Session, output_option, pass_session
from atemporal.cli.usual import SCOPES

if TYPE_CHECKING:
    from atemporal.settings import Settings

_KEY = re.compile(r"(?P<before>[^,:]+:)[^,]*")


@click.group
def token() -> None:
    """API tokens: make, list, revoke.

    Whoever calls the HTTP API from beyond loopback shows one: `Authorization: Bearer TOKEN`.
    """


@token.command
@click.argument("name")
@click.option("--scope", multiple=True, required=True, type=click.Choice(SCOPES))
@output_option
@pass_session
def create(session: Session, name: str, scope: tuple[str, ...]) -> None:
    """Make a token and print it; it can not be shown again."""
    from atemporal.store import api_tokens

    with session.database.begin() as tx:
        secret = api_tokens.create(tx, name, scope)
    if session.as_json:
        output.show_json({"name": name, "scopes": list(scope), "token": secret})
    else:
        click.echo(secret)
        note("keep it: only its hash is stored")


@token.command("list")
@output_option
@pass_session
def list_tokens(session: Session) -> None:
    """List the tokens, without their secrets."""
    from atemporal.store import api_tokens

    with session.database.begin() as tx:
        known = api_tokens.listing(tx)
    if session.as_json:
        output.show_json(
            [
                {"name": one.name, "scopes": one.scopes, "created_at": instant(one.created_at)}
                for one in known
            ]
        )
        return
    rows = [(one.name, ",".join(one.scopes), instant(one.created_at)) for one in known]
    output.table(("name", "scopes", "created"), rows)


@token.command
@click.argument("name")
@output_option
@pass_session
def revoke(session: Session, name: str) -> None:
    """Make a token worthless at once."""
    from atemporal.store import api_tokens

    with session.database.begin() as tx:
        api_tokens.revoke(tx, name)
    _done(session, {"revoked": name}, f"{name} revoked")


@click.group
def db() -> None:
    """The database: bring it to this release."""


@db.command
@output_option
@pass_session
def upgrade(session: Session) -> None:
    """Make the tables, or bring them to this release; what is there already is passed over.

    Prints the steps that were made.
    """
    from atemporal.migrations import upgrade as apply

    session.database.ping()
    url = session.settings.database_url.get_secret_value()
    applied = apply(url)
    done = "\n".join(applied) or "nothing to do"
    sentence = f"{done}\n{masked_url(url)} is at this release"
    _done(session, {"database": masked_url(url), "applied": applied}, sentence)


@click.group
def broker() -> None:
    """RabbitMQ: make the exchanges and the queues."""


@broker.command
@output_option
@pass_session
def declare(session: Session) -> None:
    """Make the exchanges and the queues, with a user that may configure."""
    from atemporal.broker import declare as make

    queues = make(session.settings.broker_url.get_secret_value())
    _done(session, {"queues": queues}, "\n".join(queues))


@click.command
@output_option
@pass_session
def config(session: Session) -> None:
    """Show the effective settings and where each comes from.

    Secrets are masked. The last row is no setting: it is the version of the zone rules.
    """
    rows = effective(session.settings)
    if session.as_json:
        output.show_json(rows)
        return
    output.table(("name", "value", "source", "description"), [_row(row) for row in rows])


def effective(settings: Settings) -> list[dict[str, Any]]:
    """The settings by name, with secrets masked, where each comes from and what it is."""
    from atemporal.calendar import rules_version
    from atemporal.settings import PREFIX, fields

    rows: list[dict[str, Any]] = [
        {
            "name": f"{PREFIX}{name.upper()}",
            "value": masked_setting(getattr(settings, name)),
            "source": "environment" if name in settings.model_fields_set else "default",
            "description": field.description,
        }
        for name, field in fields()
    ]
    rows.append(
        {
            "name": "tzdata",
            "value": rules_version(),
            "source": "package",
            "description": "The zone rules that cron lines follow: the version of the package tzdata.",
        }
    )
    return rows


def masked_setting(value: Any) -> Any:
    """A setting's value without the secrets in it: of keys `id:secret` the ids are shown."""
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        if "://" in text:
            return masked_url(text)
        return _KEY.sub(rf"\g<before>{MASK}", text) if ":" in text else text and MASK
    if isinstance(value, str):
        return masked_url(value)
    return list(value) if isinstance(value, tuple) else value


def _done(session: Session, record: dict[str, Any], sentence: str) -> None:
    if session.as_json:
        output.show_json(record)
    else:
        click.echo(sentence)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    value = row["value"]
    if value is None:
        text = ""
    elif isinstance(value, list):
        text = ",".join(value)
    elif isinstance(value, dict):
        text = ",".join(f"{key}={one}" for key, one in value.items())
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return (row["name"], text, row["source"], row["description"] or "")


COMMANDS = {
    "token": token,
    "db": db,
    "broker": broker,
    "config": config,
}
