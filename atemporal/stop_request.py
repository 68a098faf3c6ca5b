"""That somebody asked this process to stop, as a signal handler can say it.

Promise: `set` may be called at any moment, by a handler that interrupts `wait` too. `threading.Event`
may not: its handler runs in the thread that waits, between two of its steps, and there the event's own
lock is taken, for ever.
Mechanism: a flag, and a pipe that can be read from then on; no lock.
"""

from __future__ import annotations

import os
import select
import weakref


class StopRequest:
    """An event without a lock; once set it stays so."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._is_set = False
        self._reader, self._writer = os.pipe()
        weakref.finalize(self, _close, self._reader, self._writer)

    def set(self) -> None:
        """Ask; again changes nothing."""
        if not self._is_set:
            self._is_set = True
            os.write(self._writer, b"\0")

    def is_set(self) -> bool:
        """Whether somebody has asked."""
        return self._is_set

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody asks, or so long; return whether somebody has."""
        if not self._is_set:
            # What makes it readable is never read, so each who waits learns of it.
            select.select([self._reader], [], [], timeout_s)
        return self._is_set


def _close(*descriptors: int) -> None:
    for one in descriptors:
        os.close(one)
