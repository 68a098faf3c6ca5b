"""How answers look: tables for a terminal, aligned columns for a pipe, JSON for a program.

Promise: what other people have put into a job (labels, commands, details) can not steer the
terminal: control characters are shown, not sent.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from atemporal.clock import format_utc
from atemporal.visible import visible

if TYPE_CHECKING:
    from rich.table import Table

# What is left of a column that gives its room away, before it is left out.
_LEAST = 8
# What JSON does not escape by itself, and some terminals obey: C1 controls, and marks of direction.
_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SPANS = (("d", 86_400), ("h", 3_600), ("m", 60))


def show_json(value: Any, *, one_line: bool = False) -> None:
    """Print one JSON document."""
    text = json.dumps(value, indent=None if one_line else 2, ensure_ascii=False)
    click.echo(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def note(text: str) -> None:
    """Tell the reader something that is not the answer: on standard error."""
    click.echo(f"atemporal: {clean(text)}", err=True)


def output_is_gone() -> bool:
    """Tell whether the reader of standard output has left, as `head` does."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def for_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[str] = ()
) -> None:
    """Print rows of text under their columns' names; no rows, no names.

    On a terminal that is too narrow the columns that are not in `keep` are cut, the last ones first,
    and then left out.
    """
    for line in table_lines(columns, rows, keep=keep):
        click.echo(line)


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[str] = ()
) -> list[str]:
    """The lines that `table` prints."""
    if not rows:
        return []
    texts = [[clean(text) or "-" for text in row] for row in rows]
    if not for_terminal():
        return aligned([[name.upper() for name in columns], *texts])
    lines = []
    widths = _fitting(columns, texts, keep, shutil.get_terminal_size().columns)
    for number, row in enumerate([list(columns), *texts]):
        shown = [
            _styled(_cut(text, width).ljust(width), text, header=number == 0)
            for text, width in zip(row, widths, strict=True)
            if width
        ]
        lines.append("  ".join(shown).rstrip())
    return lines


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], keep: Sequence[str], room: int
) -> list[int]:
    """How wide each column is printed; 0 for one that is left out."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    flexible = [n for n in reversed(range(len(widths))) if columns[n] not in keep]
    for number in flexible:
        least = min(widths[number], max(len(columns[number]), _LEAST))
        given = min(max(excess, 0), widths[number] - least)
        widths[number] -= given
        excess -= given
    for number in flexible:
        if excess > 0:
            excess -= widths[number] + 2
            widths[number] = 0
    return widths


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _styled(padded: str, text: str, *, header: bool) -> str:
    colour = _STYLES.get(text)
    if os.environ.get("NO_COLOR") or not (header or colour):
        return padded
    return click.style(padded, fg=colour, bold=header or None)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay texts out in columns with two spaces between; an empty text is a dash."""
    filled = [[text or "-" for text in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*filled, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in filled
    ]


def clean(text: str) -> str:
    """Show control characters as escapes, so that the text stays one harmless line."""
    return visible(text)


def instant(at: datetime | None) -> str:
    """Write an instant, or nothing."""
    return format_utc(at) if at else ""


def distance(at: datetime | None, now: datetime) -> str:
    """Write how far away an instant is: `in 5m`, `2h03m ago`."""
    if at is None:
        return ""
    seconds = (at - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def span(seconds: float) -> str:
    """Write a duration in its two largest units: `48s`, `5m07s`, `3d04h`."""
    whole = int(seconds)
    for (unit, size), (smaller, part) in zip(_SPANS, [*_SPANS[1:], ("s", 1)], strict=True):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}{rest:02d}{smaller}"
    return f"{whole}s"


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay clean texts out for a terminal; a state has its colour."""
    from rich.table import Table
    from rich.text import Text

    plain = bool(os.environ.get("NO_COLOR"))
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="none" if plain else "bold")
    for name in columns:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in row))
    return grid


_STYLES = {
    "running": "cyan",
    "warming": "yellow",
    "queued": "yellow",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "unknown": "red",
    "absent": "red",
}
