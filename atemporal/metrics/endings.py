"""The endings of attempts, which launcher, reaper and API write down; each declares its own reasons."""

from __future__ import annotations

from atemporal.metrics.family import counter

ENDED = counter(
    "atemporal_attempts_ended_total",
    "Attempts whose end was written down, by its reason.",
    reason=(),
)
