"""An attempt's life as a drawing: its phases against time.

Promise: pure. Each phase that has begun has its place, in hundredths of the drawing's width; attempts of
one job are drawn to one scale, each from its own beginning. A phase that lasts is drawn up to `now`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from atemporal.model import Attempt
from atemporal.waiting import Phase

# A phase that took no time to speak of is still to be seen.
_LEAST: Final = 0.4
_TICKS: Final = 4
_STEPS: Final = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    43200,
    86400,
)


class Spell(NamedTuple):
    """One phase of an attempt; `open` says that it lasts."""

    phase: Phase
    begin: datetime
    seconds: float
    open: bool


class Stretch(NamedTuple):
    """A phase in the drawing: `left` and `width` are hundredths of it."""

    phase: Phase
    begin: datetime
    seconds: float
    open: bool
    left: float
    width: float


class Drawing(NamedTuple):
    """One attempt; `due` is where its job's time lies, if it was launched ahead of that."""

    number: int
    stretches: list[Stretch]
    due: float | None


class Timeline(NamedTuple):
    """All attempts of a job, and the scale: seconds with their places."""

    drawings: list[Drawing]
    ticks: list[tuple[float, float]]


def timeline(attempts: Sequence[Attempt], now: datetime) -> Timeline:
    """Draw the attempts of a job."""
    spans = [(one, phases(one, now)) for one in attempts]
    ends = [
        (found[-1].begin - one.created_at).total_seconds() + found[-1].seconds
        for one, found in spans
    ]
    longest = max(ends, default=0.0)
    scale = max(longest, 1.0)
    return Timeline([_drawing(one, found, scale) for one, found in spans], _ticks(scale))


def phases(attempt: Attempt, now: datetime) -> list[Spell]:
    """The phases that an attempt has begun, in their order; it has begun at least one."""
    starts = [
        (Phase.LAUNCH, attempt.created_at),
        (Phase.BOOT, attempt.launched_at),
        (Phase.PULL, attempt.booted_at),
        (Phase.HOLD, attempt.ready_at),
        (Phase.RUN, attempt.running_at),
        (Phase.STOP, attempt.exited_at),
    ]
    begun = [(phase, at) for phase, at in starts if at is not None]
    ends = [*(at for _, at in begun[1:]), attempt.closed_at]
    # Clocks of two machines may disagree by a moment.
    return [
        Spell(phase, at, max(0.0, ((end or now) - at).total_seconds()), end is None)
        for (phase, at), end in zip(begun, ends, strict=True)
    ]


def _drawing(attempt: Attempt, found: Sequence[Spell], scale: float) -> Drawing:
    def place(at: datetime) -> float:
        return 100 * max(0.0, (at - attempt.created_at).total_seconds()) / scale

    stretches = []
    for spell in found:
        width = max(_LEAST, 100 * spell.seconds / scale)
        left = min(place(spell.begin), 100 - _LEAST)
        stretches.append(Stretch(*spell, left, min(width, 100 - left)))
    due = None if attempt.start_at is None else place(attempt.start_at)
    return Drawing(attempt.number, stretches, due if due is not None and due <= 100 else None)


def _ticks(scale: float) -> list[tuple[float, float]]:
    step = next((one for one in _STEPS if scale / one <= _TICKS), scale / _TICKS)
    return [(step * n, 100 * step * n / scale) for n in range(int(scale / step) + 1)]
