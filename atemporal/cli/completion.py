"""`atemporal completion`: the script that makes a shell complete commands, options, ids and columns.

Promise: what a shell asks meanwhile costs no more than one call of the API, and says nothing where that
does not answer.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
        eval "$(atemporal completion bash)"          in ~/.bashrc
        eval "$(atemporal completion zsh)"           in ~/.zshrc, behind compinit
        atemporal completion fish | source           in ~/.config/fish/config.fish
    """
    from atemporal.cli import main

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, "atemporal", "_ATEMPORAL_COMPLETE").source())


COMMANDS = {"completion": completion}
