"""When a delivery is tried again, and when no more.

Promise: pure; who calls gives the random number, from 0 to 1, that spreads retries. One delivery is
tried thirteen times in about a day, then it is given up. A receiver that fails again and again is asked
ever less often, whatever waits for it, down to once in a quarter of an hour; after three days without a
success the webhook is disabled.
Source of the schedule: the Standard Webhooks specification advises retries over a day or more that
grow, with jitter; a receiver that answers 410 wants no more.
"""

from __future__ import annotations

PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 10_800, 14_400, 14_400, 21_600, 21_600)
"""The pauses after the first failure of one delivery, the second, ...; together 26.8 hours."""

DISABLED_AFTER_S = 3 * 86_400.0
"""So long without a success, and a webhook is disabled."""

IDLE_S = 12 * 3600.0
"""No pause is as long: a failure after it begins the time without a success anew."""

PATIENT = 5
"""So many failures in a row, of whatever deliveries, are still no sign that the receiver is gone."""

_LONGEST_REST_S = 900.0
_FIRST_REST_S = 5.0
_JITTER = 0.2
# What a receiver may ask for by Retry-After.
_LONGEST_ASKED_S = 3600.0


def pause_s(failures: int, chance: float) -> float | None:
    """Seconds until a delivery that failed so often is tried again; None: it is given up."""
    if failures > len(PAUSES_S):
        return None
    return _spread(PAUSES_S[failures - 1], chance)


def rest_s(failures: int, chance: float, *, asked_s: float = 0.0) -> float:
    """Seconds for which a receiver is left alone after so many failures in a row.

    `asked_s` is what it asked for itself.
    """
    grown = _FIRST_REST_S * 2.0 ** min(failures - PATIENT, 20)
    own = min(grown, _LONGEST_REST_S) if failures >= PATIENT else 0.0
    return max(_spread(own, chance), min(asked_s, _LONGEST_ASKED_S))


def _spread(seconds: float, chance: float) -> float:
    return seconds * (1 + _JITTER * (2 * chance - 1))
