"""`atemporal`: the command line.

Promise: the commands about jobs speak to the API and need nothing but its address, and a token where
it wants one. An operator's need the settings that the daemons have: they speak to Postgres, to EC2 for
`instances` and `audit`, to RabbitMQ for `broker declare`. Whatever goes wrong is told in a
sentence on standard error, with an exit code that says what kind of thing it was.
Mechanism: the table below is all that `--help` and completion need; a command's module is imported
when the command is called.
"""

from __future__ import annotations

import difflib
import importlib
import json
import signal
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from atemporal import __version__
from atemporal.cli import shells
from atemporal.cli.output import clean, output_is_gone
from atemporal.cli.session import Session, output_option
from atemporal.errors import AtemporalError, Conflict, Invalid, NotFound, Retry, Unknown

shells.register()

COMMANDS = {
    "submit": ("submit", "Submit a job: an image, an environment, a time."),
    "list": ("listing", "List jobs, the newest first."),
    "show": ("show", "Show a job: what it is, its attempts, its history."),
    "top": ("top", "Show what is under way, what comes next, what ended last; live."),
    "wait": ("endings", "Wait for the end of jobs, and exit as they did."),
    "logs": ("logs", "Print what a job's container writes."),
    "events": ("events", "Show what happens to jobs, the oldest first, and follow it."),
    "open": ("browser", "Open the page, or a job's, in a browser; prints its address."),
    "reschedule": ("jobs", "Give a job another time, until its container starts."),
    "cancel": ("jobs", "Cancel jobs, in whatever phase they are."),
    "retry": ("jobs", "Run a finished job again, now and with fresh budgets."),
    "schedule": ("schedule", "Recurring schedules: make, look, pause, change, delete."),
    "dead": ("dead", "Dead letters: list, show, send again, drop."),
    "webhook": ("webhook", "Webhooks: events of jobs, sent to a URL as they happen."),
    "limit": ("limit", "Concurrency limits: set, list, remove, who changed them."),
    "cost": ("cost", "What jobs cost, by label, schedule, job, type or day."),
    "plan": ("plan", "What will fire in the next hours, and what it will cost."),
    "prices": ("prices", "The price table: make it from AWS' price list, check it."),
    "pause": ("pause", "Pause the installation: nothing new starts."),
    "resume": ("pause", "End the pause: what is due is dispatched at once."),
    "drain": ("pause", "Pause it, and wait until nothing is under way."),
    "instances": ("machines", "List the instances that EC2 has, and whose they are."),
    "audit": ("audit", "Compare every instance with every attempt."),
    "doctor": ("doctor", "Check the whole installation, and say what to do."),
    "user-data": ("machines", "Print the user-data of an attempt's machine."),
    "bundle": ("bundle", "Write a job's whole story into one file, for a bug report."),
    "prune": ("prune", "Delete what finished long ago, before retention does."),
    "token": ("admin", "API tokens: make, list, revoke."),
    "db": ("admin", "The database: bring it to this release."),
    "broker": ("admin", "RabbitMQ: make the exchanges and the queues."),
    "config": ("admin", "Show the effective settings and where each comes from."),
    "completion": ("completion", "Print the completion script of a shell."),
    "up": ("local", "Run everything on this machine until Ctrl-C."),
    "down": ("local", "End what an `up` that has stopped left on this machine."),
    "demo": ("local", "Run three jobs on this machine and show what happens."),
    "twin": ("twin", "The twin, a local EC2: serve it, inject faults."),
}

EXIT_CODES = """\b
Exit codes:
    0  done
    1  refused, or it failed
    2  wrong usage, or bad input
    3  the API, Postgres, RabbitMQ or EC2 does not answer now
    4  no such job, attempt, schedule, dead letter, token
    5  conflict: what is there contradicts the request
  130  interrupted
`atemporal wait` has codes of its own, see its --help."""


class Front(click.Group):
    """The commands by the table, imported when called; errors by their class."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of an unknown one say which was meant, perhaps."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near and "Did you mean" not in error.format_message():
                why = f"No such command {args[0]!r}. Did you mean {near[0]!r}?"
                raise click.UsageError(why, ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing any."""
        names = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def main(self, *given: Any, **how: Any) -> Any:
        """Be the program; a reader of its output that has enough, as `head`, is no error."""
        try:
            return super().main(*given, **how)
        except SystemExit as error:
            if error.code == 1 and output_is_gone():
                sys.exit(0)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn the project's errors into exit codes."""
        session = ctx.ensure_object(Session)
        try:
            return super().invoke(ctx)
        except AtemporalError as error:
            tell(error, as_json=session.as_json, hint=session.hint(error))
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        finally:
            session.close()


def exit_code(error: AtemporalError) -> int:
    """The exit code that says what kind of error it was."""
    if isinstance(error, Invalid):
        return 2
    if isinstance(error, NotFound):
        return 4
    if isinstance(error, Conflict):
        return 5
    return 3 if isinstance(error, Retry | Unknown) else 1


def tell(error: AtemporalError, *, as_json: bool, hint: str | None = None) -> None:
    """Print an error: one sentence, or one line for each bad field; then what may help."""
    fields = error.fields if isinstance(error, Invalid) else {}
    if as_json:
        record = {"error": str(error), **({"fields": fields} if fields else {})}
        record |= {"hint": hint} if hint else {}
        click.echo(json.dumps(record), err=True)
    elif len(fields) > 1:
        click.echo("atemporal: bad input", err=True)
        for name, why in fields.items():
            click.echo(f"  {name}: {clean(why)}", err=True)
    else:
        click.echo(f"atemporal: {clean(str(error))}", err=True)
    if hint and not as_json:
        click.echo(f"atemporal: {hint}", err=True)


@click.command(
    cls=Front, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES
)
@click.version_option(__version__, prog_name="atemporal")
@output_option
def main() -> None:
    """Run a container at a given time, each on a brand-new EC2 instance of its own.

    The commands about jobs speak to the API at ATEMPORAL_API_URL, with ATEMPORAL_API_TOKEN where
    it wants a token. The commands for operators (from `instances` to `config`) read the ATEMPORAL_*
    variables of the daemons; `atemporal config` lists them. A job is named by its id or by an
    unambiguous beginning or end of it.
    """
