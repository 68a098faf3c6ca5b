"""Whether EC2 takes calls of this process at all.

Promise: after a refusal for want of rights no call is made for a pause, which doubles with each
refusal in a row and has jitter, so that replicas do not ask together. Then the breaker is half-open:
one call, the half-open probe, is let through, and its answer closes the breaker or begins the next
pause. A probe that brings no answer (throttled, timed out, its thread gone) makes room for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
PROBE_S = 60.0
"""After so long a probe has died on its way."""


def pause_s(refusals: int) -> float:
    """Seconds without a call after so many refusals in a row."""
    return min(FIRST_PAUSE_S * 2.0 ** min(refusals - 1, 20), LONGEST_PAUSE_S)


class CircuitBreaker:
    """Closed while all is well; safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float], rng: Callable[[], float]) -> None:
        """Begin closed. `rng` gives numbers in [0, 1) for the jitter."""
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        self._refusals = 0
        self._open_until: float | None = None
        self._probe_until: float | None = None
        self._detail = ""

    @property
    def is_open(self) -> bool:
        """Whether EC2 refuses this process: no call but a probe is made."""
        with self._lock:
            return self._open_until is not None

    @property
    def detail(self) -> str:
        """EC2's part of the last refusal."""
        with self._lock:
            return self._detail

    def ready_in(self) -> float:
        """Seconds until a call may be made: 0 when closed, or when a probe may go."""
        with self._lock:
            return self._ready_in()

    def allow(self) -> bool:
        """Let a call through: any when closed; else the one probe, once the pause is over."""
        with self._lock:
            if self._open_until is None:
                return True
            if self._ready_in() > 0:
                return False
            self._probe_until = self._clock() + PROBE_S
            return True

    def open(self, detail: str) -> bool:
        """EC2 refused this process: pause. True when the breaker was closed before."""
        with self._lock:
            was_closed = self._open_until is None
            self._detail = detail
            if not was_closed and self._probe_until is None and self._ready_in() > 0:
                return False  # a call that was in flight already says nothing new
            self._refusals += 1
            jitter = 0.5 + self._rng() / 2
            self._open_until = self._clock() + pause_s(self._refusals) * jitter
            self._probe_until = None
            return was_closed

    def close(self) -> bool:
        """EC2 took a call: all is well. True when the breaker was open before."""
        with self._lock:
            was_open = self._open_until is not None
            self._open_until = self._probe_until = None
            self._refusals = 0
            return was_open

    def inconclusive(self) -> None:
        """A call's answer said nothing of our rights: if it was the probe, another may go."""
        with self._lock:
            self._probe_until = None

    def _ready_in(self) -> float:
        if self._open_until is None:
            return 0.0
        return max(0.0, max(self._open_until, self._probe_until or 0.0) - self._clock())
