"""Metrics: how one is declared, and those that several services count.

Promise: a process shows what it can count itself and nothing else, each series from its start.
Mechanism: a metric is declared in the module that counts it or sets it. What several services count has
a module here, which nobody else imports. So a process shows what it has imported: where all services
are one process, that is everything.
"""

from atemporal.metrics.family import (
    FAMILIES,
    Aggregate,
    Family,
    clear,
    counter,
    exposition,
    gauge,
    histogram,
    series,
)

__all__ = [
    "FAMILIES",
    "Aggregate",
    "Family",
    "clear",
    "counter",
    "exposition",
    "gauge",
    "histogram",
    "series",
]
