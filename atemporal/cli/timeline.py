"""A job's way as phases: how long each attempt was in which, from the instants that the API gives.

Promise: pure. The phases of an attempt follow each other without a gap, by the words of
`atemporal.waiting`; the last one of an attempt that lasts is open, and reaches to the moment of reading.
Mechanism: `due` and `queued` lie before the attempt, between its launch's time, the event that a
scheduler took the job, and the attempt's beginning.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from atemporal.cli.output import for_terminal, span
from atemporal.cli.wording import at
from atemporal.client import Event, Instance, JobDetail
from atemporal.clock import format_utc

_BAR: Final = 32
# A drawing that is cut would say something else.
_ROOM: Final = 80
COLUMNS: Final = ("attempt", "phase", "after", "took", "")
KEPT: Final = ("attempt", "phase", "took")
_QUEUED: Final = "job.queued"
_OF_ATTEMPT: Final = (
    ("launch", "created_at"),
    ("boot", "launched_at"),
    ("pull", "booted_at"),
    ("hold", "ready_at"),
    ("run", "running_at"),
    ("stop", "exited_at"),
)


class Spell(NamedTuple):
    """One phase of an attempt; `open` says that it lasts."""

    attempt: int
    phase: str
    began: datetime
    seconds: float
    open: bool


def spells(job: JobDetail, history: Sequence[Event]) -> list[Spell]:
    """The phases that the job's attempts have begun, in their order."""
    now = at(job["read_at"])
    queued = {one["attempt"]: at(one["at"]) for one in history if one["type"] == _QUEUED}
    return [
        spell
        for attempt in job["instances"]
        for spell in _of_attempt(attempt, queued.get(attempt["number"]), now)
    ]


def _of_attempt(attempt: Instance, queued: datetime | None, now: datetime) -> Iterator[Spell]:
    times = {**attempt}
    begun = [(phase, at(str(times[name]))) for phase, name in _OF_ATTEMPT if times[name]]
    if queued is not None:
        begun.insert(0, ("queued", queued))
        if attempt["dispatch_at"] and at(attempt["dispatch_at"]) < queued:
            begun.insert(0, ("due", at(attempt["dispatch_at"])))
    closed = at(attempt["closed_at"]) if attempt["closed_at"] else None
    ends = [*(when for _, when in begun[1:]), closed]
    for (phase, when), end in zip(begun, ends, strict=True):
        # Clocks of two machines may disagree by a moment.
        seconds = max(0.0, ((end or now) - when).total_seconds())
        yield Spell(attempt["number"], phase, when, seconds, end is None)


def drawable() -> bool:
    """Whether a person reads it, with room enough for the drawing."""
    return for_terminal() and shutil.get_terminal_size().columns >= _ROOM


def rows(found: Sequence[Spell], beginning: datetime, *, drawn: bool) -> list[tuple[str, ...]]:
    """The phases as lines for a table: times after the `beginning`, and drawn against time if asked.

    All attempts are drawn to one scale, each from its own first phase.
    """
    first = {one.attempt: one.began for one in reversed(found)}
    ends = [(one.began - first[one.attempt]).total_seconds() + one.seconds for one in found]
    scale = max(ends, default=0.0) or 1.0
    return [
        (
            str(one.attempt),
            one.phase,
            f"{(one.began - beginning).total_seconds():+.3f}s",
            took(one.seconds) + (" so far" if one.open else ""),
            _bar(end - one.seconds, one.seconds, scale) if drawn else "",
        )[: len(COLUMNS) if drawn else -1]
        for one, end in zip(found, ends, strict=True)
    ]


def took(seconds: float) -> str:
    """A duration as one reads it: with tenths below a minute."""
    return f"{seconds:.1f}s" if seconds < 60 else span(seconds)


def as_json(found: Sequence[Spell]) -> list[dict[str, object]]:
    """The phases for a program."""
    return [
        {
            "attempt": one.attempt,
            "phase": one.phase,
            "began_at": format_utc(one.began),
            "seconds": round(one.seconds, 3),
            "open": one.open,
        }
        for one in found
    ]


def _bar(after: float, seconds: float, scale: float) -> str:
    left = min(int(_BAR * max(after, 0.0) / scale), _BAR - 1)
    width = max(1, round(_BAR * seconds / scale))
    return " " * left + "█" * min(width, _BAR - left)
