"""How the page writes what is no text: instants, durations, states, output.

Promise: pure. Whatever somebody else wrote stays text: what a reader can not see (control characters,
marks of direction) is shown as an escape.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from atemporal.visible import visible as without_steering

_SPANS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_LAYOUT: Final = "\n\t"

MARKS: Final = {
    "scheduled": "◷",
    "queued": "⋯",
    "warming": "△",
    "launching": "△",
    "ready": "◉",
    "running": "▶",
    "exited": "◌",
    "closed": "○",
    "finished": "■",
    "succeeded": "✓",
    "failed": "✗",
    "timed_out": "✗",
    "lost": "✗",
    "missed": "✗",
    "cancelled": "⊘",
    "skipped": "⊘",
    "dropped": "⊘",
    "paused": "Ⅱ",
    "kept": "!",
    "attention": "!",
    "well": "✓",
    "ran": "✓",
    "replaying": "↻",
    "replayed": "↻",
}
"""A sign for each state beside its name and its colour."""


def mark(state: str) -> str:
    """The sign of a state."""
    return MARKS.get(state, "•")


def instant(at: datetime) -> str:
    """An instant for a reader: `2026-04-25 05:27:27 UTC`."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine_instant(at: datetime) -> str:
    """An instant for a program, as the attribute `datetime` has it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def distance(at: datetime, now: datetime) -> str:
    """How far away an instant is: `in 5m00s`, `2h03m ago`."""
    seconds = (at - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(abs(seconds))} ago"


def span(seconds: float) -> str:
    """A duration in its two largest units: `0.42s`, `48s`, `5m07s`, `3d04h`."""
    if seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = int(seconds)
    for (unit, size), (smaller, part) in pairwise(_SPANS):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{smaller}"
    return f"{whole}s"


def visible(text: str) -> str:
    """A text without anything that steers: what can not be printed is shown as an escape."""
    return without_steering(text, _LAYOUT)


def output(data: bytes) -> str:
    """What a container wrote, as text: not UTF-8 is a replacement character, CR LF a line's end."""
    return visible(data.decode(errors="replace").replace("\r\n", "\n"))
