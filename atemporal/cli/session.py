"""One call of the CLI: its settings, its database, and how it answers.

Promise: nothing is read or connected before a command needs it, so `--help` and a mistyped option
never fail for a wrong setting; what was opened is closed when the command ends.
"""

from __future__ import annotations

import getpass
import os
import shlex
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atemporal.errors import AtemporalError, Service, Unavailable

if TYPE_CHECKING:
    from atemporal.settings import Settings
    from atemporal.store.database import Database

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """What the commands of one call share; `as_json` is whether the answer is for a program."""

    def __init__(self) -> None:
        self.as_json = False

    @cached_property
    def settings(self) -> Settings:
        """The settings, the same that the daemons read.

        Raises:
            Invalid: a variable's value is wrong.
        """
        from atemporal.cli.output import note
        from atemporal.settings import load, unknown_variables

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
        if not isinstance(error, Unavailable) or "settings" not in self.__dict__:
            return None
        named = self.settings.model_fields_set
        if error.service is Service.POSTGRES and "database_url" not in named:
            from atemporal.local.home import default_directory

            return (
                "ATEMPORAL_DATABASE_URL is not set; for `atemporal up`: "
                f". {shlex.quote(str(default_directory() / 'env'))}"
            )
        if error.service is Service.RABBITMQ and "broker_url" not in named:
            return (
                "ATEMPORAL_BROKER_URL is not set; the broker of `atemporal up` is inside its "
                "process: for messages run RabbitMQ and set ATEMPORAL_BROKER_URL before `up`"
            )
        return None

    @property
    def actor(self) -> str:
        """Who is written into the history."""
        try:
            return f"cli:{getpass.getuser()}"
        except (KeyError, OSError):  # no name for this user id, as in a container
            return f"cli:{os.getuid()}"

    def close(self) -> None:
        """Give the connections back."""
        if "database" in self.__dict__:
            self.database.dispose()


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
