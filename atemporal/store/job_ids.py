"""The ids of new jobs: they grow in the order of the submits of one process.

Promise: a UUIDv7 (RFC 9562), so ids sort by the time of their making and keep index pages hot; each one
of a process is greater than the one before, also within a millisecond and when its clock steps back.
Mechanism: section 6.2, method 2: within the last millisecond the random bits count up by a random step,
which leaves ids as hard to guess as their last 32 bits are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from uuid import UUID

_RANDOM_BITS = 74
_STEP_BYTES = 4


class JobIds:
    """Makes ids; safe to share between threads."""

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Take the time of day in nanoseconds, and a source of so many random bytes."""
        self._clock_ns = clock_ns
        self._random = random
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> UUID:
        """Make the next id."""
        with self._lock:
            milliseconds = self._clock_ns() // 1_000_000
            fresh = (milliseconds << _RANDOM_BITS) | (self._number(10) >> (80 - _RANDOM_BITS))
            if fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
                # The carry of an overflow goes into the time, which is then ahead by a millisecond.
                fresh = self._last + 1 + self._number(_STEP_BYTES)
            self._last = fresh
        time_ms, high, low = fresh >> 74, fresh >> 62 & 0xFFF, fresh & (1 << 62) - 1
        return UUID(int=time_ms << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._random(size), "big")
