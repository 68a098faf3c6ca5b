"""The RunInstances calls of one loop, side by side.

Promise: the waiting thread keeps its broker connection alive, and one call's failure stops no other; it
is raised when all have ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from atemporal.broker import Link
from services.launcher.launcher import Begun, Launcher

CALLS_AT_ONCE = 8
_HEARTBEAT_S = 5


class Calls:
    """The calls that one loop has under way; used by that loop's thread alone."""

    def __init__(self, launcher: Launcher) -> None:
        """Take the steps; nothing is called yet."""
        self._launcher = launcher
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="run-instances")
        self._pending: set[Future[None]] = set()

    def make(self, begun: Iterable[Begun], link: Link | None = None) -> None:
        """Launch these attempts, and wait for all of them."""
        self._pending = {
            self._pool.submit(self._launcher.call, attempt, spec) for attempt, spec in begun
        }
        failures = []
        while self._pending:
            done, self._pending = wait(self._pending, timeout=_HEARTBEAT_S)
            failures += [error for error in (one.exception() for one in done) if error]
            if link is not None:
                link.heartbeat()
        if failures:
            raise failures[0]

    def cancel(self) -> None:
        """Leave what is not under way yet to the sweep."""
        for call in self._pending:
            call.cancel()
        self._pending = set()
