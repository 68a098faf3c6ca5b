"""A command of ours that ends with the words of a job's command, as docker's does.

Promise: options may stand before and after what is named (the image; a schedule, then the image). Behind
the beginning of the job's command, or behind `--`, every word is taken as it is written.
"""

from __future__ import annotations

from collections import Counter

import click


class JobCommand(click.Command):
    """Reads options up to the beginning of the job's command, which is its last argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the options first: what comes after them is then taken as it is written."""
        ours: list[str] = []
        given: list[click.Option] = []
        named: list[str] = []
        rest = list(args)
        for left in reversed(range(len(self._arguments()))):
            try:
                before, rest, order = self._split(ctx, rest)
            except click.NoSuchOption as error:
                if not named:
                    raise
                example = " ".join((ctx.command_path, *self._arguments()[:-1]))
                raise click.UsageError(
                    f"No such option: {error.option_name}. If it belongs to the job's command, put "
                    f"-- before the command: {example} -- sh -c '...'",
                    ctx,
                ) from None
            given += order
            as_written = before[-1:] == ["--"]
            ours += before[:-1] if as_written else before
            if as_written or not rest or not left:
                break
            named.append(rest.pop(0))
        for option, times in Counter(given).items():
            if times > 1 and not option.multiple:
                raise click.BadParameter("it is given twice", ctx, option)
        words = [*named, *rest]
        return super().parse_args(ctx, [*ours, *(["--"] if words else []), *words])

    def _arguments(self) -> list[str]:
        """How the arguments are called in a usage."""
        return [one.human_readable_name for one in self.params if isinstance(one, click.Argument)]

    def _split(
        self, ctx: click.Context, words: list[str]
    ) -> tuple[list[str], list[str], list[click.Option]]:
        """The options' words, up to `--` or the first argument; the rest; the options."""
        ours: list[click.Parameter] = [one for one in self.params if isinstance(one, click.Option)]
        parser = click.Command(self.name, params=ours).make_parser(ctx)
        parser.allow_interspersed_args = False
        _, rest, order = parser.parse_args(list(words))
        options = [one for one in order if isinstance(one, click.Option)]
        return words[: len(words) - len(rest)], rest, options
