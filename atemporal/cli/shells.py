"""What click's completion needs besides, for bash and for fish.

Promise: `--option=val` is completed in bash, which splits words at `=`; in fish a value or a help with a
comma is whole.
"""

from __future__ import annotations

from click.shell_completion import BashComplete, FishComplete, add_completion_class


class Bash(BashComplete):
    """Takes `--option`, `=`, `val`, as bash splits them, for an option and its value."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and what there is of that."""
        words, incomplete = super().get_completion_args()
        pairs = list(zip(["", *words], [*words, incomplete], strict=True))
        kept = [word for before, word in pairs if word != "=" or not before.startswith("--")]
        return (kept[:-1], incomplete) if incomplete != "=" else (kept, "")


class Fish(FishComplete):
    """Splits an answer at its first comma: values and helps have some too."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )


def register() -> None:
    """Have click use them."""
    add_completion_class(Bash, "bash")
    add_completion_class(Fish, "fish")
