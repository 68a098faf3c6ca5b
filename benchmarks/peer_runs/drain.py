"""What the runs of all peers share: the request, the count, and the clock."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Request:
    """Where, how many jobs are due and of another day, and for how long the worker may run."""

    url: str
    due: int
    future: int
    limit_s: float

    @property
    def step(self) -> int:
        """Each job whose number is a multiple of this is due: they stand among the others."""
        return (self.future + self.due) // self.due


def request() -> Request:
    """Read the command line."""
    url, due, future, limit_s = sys.argv[1:]
    return Request(url, int(due), int(future), float(limit_s))


class Drain:
    """Counts handlers from the start of a worker until all are done or the time is over."""

    def __init__(self, asked: Request) -> None:
        """Begin to count; the clock starts with `begin`."""
        self._asked = asked
        self._began = self._last = 0.0
        self.handled = 0

    def begin(self) -> None:
        """The worker starts now."""
        self._began = self._last = perf_counter()

    def one(self) -> None:
        """A handler has run."""
        self.handled += 1
        self._last = perf_counter()

    @property
    def over(self) -> bool:
        """Whether all have run, or the time is over."""
        late = perf_counter() - self._began > self._asked.limit_s
        return late or self.handled >= self._asked.due

    def report(self, **remarks: Any) -> None:
        """Print the figures, and leave at once: some workers take long to say goodbye."""
        all_done = self.handled >= self._asked.due
        # What was still at work when the time was over has had all of it.
        seconds = self._last - self._began if all_done else perf_counter() - self._began
        print_figures(self.handled, seconds, self._asked.future, **remarks)


def print_figures(handled: int, seconds: float, future: int, **remarks: Any) -> None:
    """Print what is known as the last line of output, and end the process."""
    figures = {"jobs": handled, "seconds": seconds, "jobs_per_s": handled / seconds}
    print("\n" + json.dumps({**figures, "future_rows": future, **remarks}), flush=True)
    os._exit(0)


def fill(cursor: Any, asked: Request, known: int, insert: str) -> None:
    """Insert the due jobs, among those of another day if there are none yet.

    `insert` selects from `rows(due)`, true for a due one.
    """
    missing = max(0, asked.future - known)
    if missing:
        numbers = f"(SELECT i %% {asked.step} = 0 AS due FROM generate_series(1, %s) AS i) AS rows"
        count = asked.due * asked.step
    else:
        numbers = "(SELECT true AS due FROM generate_series(1, %s) AS i) AS rows"
        count = asked.due
    cursor.execute(insert.format(rows=numbers), (count,))
