"""Fires of recurring schedules: the scheduler decides them, the API where one is changed."""

from __future__ import annotations

from atemporal.metrics.family import counter
from atemporal.recurrence import FireOutcome

FIRES = counter(
    "atemporal_fires_total",
    "Fires of recurring schedules, by what became of them; a fire that runs is counted when its job is "
    "made.",
    outcome=FireOutcome,
)
