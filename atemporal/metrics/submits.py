"""Submits, which the API takes over HTTP and the scheduler as messages; each declares its own way."""

from __future__ import annotations

from atemporal.metrics.family import counter

SUBMITS = counter(
    "atemporal_submits_total",
    "Submits of jobs, by their way and result.",
    via=(),
    result=["accepted", "duplicate", "rejected"],
)
