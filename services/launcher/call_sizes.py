"""For how many instances one call may be, by what EC2 last answered to calls for many.

Promise: a call that is too large for a quota or for EC2's bucket of instances, or whose parameters are
wrong, costs its tokens once, and not again for every size and every group. What fits is found again by
doubling from one.
Failure: the memory is this process's; another one learns it for a call of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

from services.launcher.offerings import Offering

FORGET_S = 600.0
"""So long after the last news of an offering its calls may be of any size again."""


class CallSizes:
    """The largest call for each offering that was refused for many; safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        """Begin without any; `clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._largest: dict[Offering, tuple[int, float]] = {}

    def largest(self, offering: Offering, most: int) -> int:
        """For how many instances, `most` at most, one call may be."""
        with self._lock:
            size, until = self._largest.get(offering, (1, -inf))
            return min(size, most) if self._clock() < until else most

    def refused(self, offering: Offering) -> None:
        """Note that EC2 refused a call for more than one, for a reason that may be their number."""
        with self._lock:
            self._largest[offering] = (1, self._clock() + FORGET_S)

    def launched(self, offering: Offering, size: int) -> None:
        """Note that EC2 took a call for so many: twice as many may fit too.

        A smaller call than before is no news: one job now and then must not keep the memory alive.
        """
        with self._lock:
            known, until = self._largest.get(offering, (1, -inf))
            if self._clock() >= until:
                self._largest.pop(offering, None)
            elif 2 * size > known:
                self._largest[offering] = (2 * size, self._clock() + FORGET_S)
