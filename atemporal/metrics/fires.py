"""Fires of recurring schedules: the scheduler decides them, the API where one is changed."""

from __future__ import annotations

from atemporal.metrics.family import counter, series
from atemporal.recurrence import Fire, FireOutcome, FireReason

FIRES = counter(
    "atemporal_fires_total",
    "Fires of recurring schedules, by what became of them; a fire that runs is counted when its job is "
    "made, and as skipped as well if that does not start by its start deadline.",
    outcome=(),
    reason=(),
)
_RAN = "none"
series(FIRES, outcome=[FireOutcome.RAN], reason=[_RAN])
for _reason in FireReason:
    series(FIRES, outcome=[_reason.outcome], reason=[_reason])


def count_fire(fire: Fire) -> None:
    """Count a fire that was decided, or several that one entry stands for."""
    FIRES.labels(fire.outcome, fire.reason or _RAN).inc(fire.count)
