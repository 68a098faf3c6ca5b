"""Whether EC2 lets this process in at all.

Promise: after a refusal for want of rights no call is made for a pause, which doubles with each
refusal in a row and has jitter, so that replicas do not knock together; then one call, the probe, is
let through, and its answer closes the circuit or begins the next pause. A probe that brings no
answer (throttled, timed out, its thread gone) makes room for another.
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


class Circuit:
    """Closed while all is well; safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """Begin closed. `random` gives numbers in [0, 1) for the jitter."""
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._refusals = 0
        self._open_until: float | None = None
        self._probe_until: float | None = None
        self.why = ""
        """EC2's word for the last refusal."""

    @property
    def closed(self) -> bool:
        """Whether calls are made as usual."""
        return self._open_until is None

    def ready_in(self) -> float:
        """Seconds until a call may be made: 0 when closed, or when a probe may go."""
        with self._lock:
            return self._ready_in()

    def admit(self) -> bool:
        """Let a call through: any when closed; else the one probe, once the pause is over."""
        with self._lock:
            if self._open_until is None:
                return True
            if self._ready_in() > 0:
                return False
            self._probe_until = self._clock() + PROBE_S
            return True

    def trip(self, why: str) -> bool:
        """EC2 refused this process: pause. True when the circuit was closed before."""
        with self._lock:
            was_closed = self._open_until is None
            self.why = why
            if not was_closed and self._probe_until is None and self._ready_in() > 0:
                return False  # a call that was in flight already says nothing new
            self._refusals += 1
            jitter = 0.5 + self._random() / 2
            self._open_until = self._clock() + pause_s(self._refusals) * jitter
            self._probe_until = None
            return was_closed

    def mend(self) -> bool:
        """EC2 let a call in: close. True when the circuit was open before."""
        with self._lock:
            was_open = self._open_until is not None
            self._open_until = self._probe_until = None
            self._refusals = 0
            return was_open

    def unsure(self) -> None:
        """A call's answer told nothing of our rights: if it was the probe, another may go."""
        with self._lock:
            self._probe_until = None

    def _ready_in(self) -> float:
        if self._open_until is None:
            return 0.0
        return max(0.0, max(self._open_until, self._probe_until or 0.0) - self._clock())
