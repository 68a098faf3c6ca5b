"""One call of the CLI: the API, an operator's settings and database, and how it answers.

Promise: nothing is read or connected before a command needs it, so `--help` and a mistyped option
never fail for a wrong setting; what was opened is closed when the command ends.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atemporal.errors import AtemporalError, Denied, Invalid, Service, Unavailable

if TYPE_CHECKING:
    from atemporal.client import Client
    from atemporal.settings import Settings
    from atemporal.store.database import Database

API_URL, API_TOKEN = "ATEMPORAL_API_URL", "ATEMPORAL_API_TOKEN"

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """What the commands of one call share; `as_json` is whether the answer is for a program."""

    def __init__(self) -> None:
        self.as_json = False

    @cached_property
    def api(self) -> Client:
        """The API that the commands about jobs speak to.

        Raises:
            Invalid: its address or the token can not be one.
        """
        from atemporal.client import DEFAULT_URL, Client

        url = os.environ.get(API_URL) or DEFAULT_URL
        try:
            return Client(url, os.environ.get(API_TOKEN) or None)
        except Invalid as error:
            names = {"url": API_URL, "token": API_TOKEN}
            raise Invalid({names[name]: why for name, why in error.fields.items()}) from None

    def repeat_notice(self) -> None:
        """Say what the API has to say to everybody."""
        from atemporal.cli.output import note

        if self.api.notice:
            note(self.api.notice)

    @cached_property
    def settings(self) -> Settings:
        """The settings, the same that the daemons read.

        Raises:
            Invalid: a variable's value is wrong.
        """
        from atemporal.cli.output import note
        from atemporal.settings import load
        from atemporal.unknown_settings import unknown_variables

        settings = load()
        for sentence in unknown_variables(os.environ):
            note(sentence)
        return settings

    @cached_property
    def database(self) -> Database:
        """The database; it is connected by the first transaction.

        Raises:
            Invalid: its URL can not be read.
        """
        from atemporal.cli.output import note
        from atemporal.store.database import Database

        url = self.settings.database_url.get_secret_value()
        return Database(
            url,
            application="atemporal cli",
            pool_size=1,
            on_unreadable=lambda error: note(f"left out: {error}"),
        )

    def hint(self, error: AtemporalError) -> str | None:
        """What may help against an error: a server that does not answer and that nobody named."""
        if "api" in self.__dict__:
            return self._hint_of_api(error)
        if not isinstance(error, Unavailable) or "settings" not in self.__dict__:
            return None
        named = self.settings.model_fields_set
        if error.service is Service.POSTGRES and "database_url" not in named:
            return f"ATEMPORAL_DATABASE_URL is not set; for `atemporal up`: {_read_env()}"
        if error.service is Service.RABBITMQ and "broker_url" not in named:
            return (
                "ATEMPORAL_BROKER_URL is not set; the broker of `atemporal up` is inside its "
                "process: for messages run RabbitMQ and set ATEMPORAL_BROKER_URL before `up`"
            )
        return None

    def _hint_of_api(self, error: AtemporalError) -> str | None:
        if isinstance(error, Unavailable) and not os.environ.get(API_URL):
            from atemporal.unknown_settings import unknown_variables

            mistyped = [one for one in unknown_variables(os.environ) if API_URL in one]
            return (
                mistyped[0]
                if mistyped
                else f"{API_URL} is not set; for `atemporal up`: {_read_env()}"
            )
        if isinstance(error, Denied) and not os.environ.get(API_TOKEN):
            return (
                f"{API_TOKEN} is not set; an operator makes a token with `atemporal token create "
                "NAME --scope read --scope submit --scope cancel`"
            )
        return None

    def close(self) -> None:
        """Give the connections back."""
        if "database" in self.__dict__:
            self.database.dispose()


def _read_env() -> str:
    from atemporal.local.home import default_directory

    return f". {shlex.quote(str(default_directory() / 'env'))}"


pass_session = click.make_pass_decorator(Session)


def output_option(command: F) -> F:
    """Add `-o`; it may stand before or behind the command's name."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        expose_value=False,
        callback=_choose_output,
        help="Answer for people (a table on a terminal) or as JSON.",
    )(command)


def _choose_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).as_json = value == "json"
