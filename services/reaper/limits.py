"""Concurrency limits as gauges: how much each allows, how much of it is in use, and who waits.

Promise: a series for each limit that is set, and for each value of a label under `KEY=*` that is in use
or waited for; no more than `MOST` in all, the fullest first. What is not set any more has no series.
"""

from __future__ import annotations

from collections.abc import Sequence

from atemporal.metrics import Aggregate, gauge
from atemporal.store.limit_waits import Use

MOST = 100
"""So many limits have series."""

ALLOWED = gauge(
    "atemporal_slots",
    "How many slots a concurrency limit has: of jobs, instances or vCPUs.",
    aggregate=Aggregate.ONE,
    limit=(),
)
USED = gauge(
    "atemporal_slots_used",
    "How many of a limit's slots are held.",
    aggregate=Aggregate.ONE,
    limit=(),
)
WAITING = gauge(
    "atemporal_slots_waited_for",
    "Jobs that were put aside for a limit, counted up to 1000. Nobody is put aside for `jobs` and "
    "`instances`: who waits for these is in `atemporal_waiting` alone.",
    aggregate=Aggregate.ONE,
    limit=(),
)

_shown: set[str] = set()


def report(uses: Sequence[Use]) -> None:
    """Show what there is now, and nothing else."""
    fullest = sorted(uses, key=lambda use: (use.most - use.used, -use.waiting, use.name))[:MOST]
    for gone in _shown - {use.name for use in fullest}:
        for metric in (ALLOWED, USED, WAITING):
            metric.remove(gone)
        _shown.remove(gone)
    for use in fullest:
        for metric, value in ((ALLOWED, use.most), (USED, use.used), (WAITING, use.waiting)):
            metric.labels(use.name).set(value)
        _shown.add(use.name)
