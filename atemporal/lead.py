"""The lead: how long before its time a job's launch begins, so that its container can start on time.

Promise: pure. A lead is what nearly all recent machines of the same kind took from the message that
their job is due to a container that could start: 95 of 100, and a margin. A kind is an image's
repository on an instance type and a capacity type; where too few machines of it are known, a wider one
counts. It is never longer than `LIMIT_S`, whatever happened to the last machines.
Failure: where nothing is known it is `DEFAULT_S`.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from atemporal import image

DEFAULT_S: Final = 120.0
"""Seconds, where nothing is known: a stock image boots in 90 to 230 s from the call to the first
command, a baked one in 45 to 160 s."""
LIMIT_S: Final = 600.0
"""The longest lead, in seconds: a machine that waits is paid for."""
LEAST: Final = 20
"""Of fewer machines of a kind nothing is concluded: the slowest one would be the estimate."""
MOST: Final = 100
"""So many of the latest machines of a kind count."""
DAYS: Final = 14
"""Older ones say nothing."""
QUANTILE: Final = 0.95
MARGIN: Final = 1.05
MARGIN_S: Final = 5.0
"""On top: the claim comes seconds before the time, and tomorrow is no copy of today."""
AGAIN_S: Final = 15.0
"""A lead is decided anew so long before the launch, so that the estimate is one of that time."""

CLAIM_AHEAD_S: Final = 2.0
"""A machine claims so long before its time: enough for a callback that fails at once and is sent again;
one that nobody answers makes the start a second or two late. It is no longer, because from the claim on
a cancel ends a machine that may have started its program."""


class Kind(NamedTuple):
    """What the time to a ready container depends on."""

    repository: str
    instance_type: str
    capacity_type: str

    @classmethod
    def of(cls, reference: str, instance_type: str, capacity_type: str) -> Kind:
        """The kind of a machine for an image in its normal form."""
        return cls(image.repository(reference), instance_type, capacity_type)


class Sample(NamedTuple):
    """A machine that was ready `seconds` after its launch was due, at `at` seconds since the epoch."""

    kind: Kind
    seconds: float
    at: float


class Plan(NamedTuple):
    """How long before its time a launch begins, and in how long that is decided anew; None: never."""

    ahead_s: float
    again_in_s: float | None


class Recent:
    """The latest machines of each kind: one kind's burst does not push the others out."""

    def __init__(self) -> None:
        """Begin without any."""
        self._samples: dict[Kind, deque[Sample]] = {}
        self.until = 0.0
        """When the latest of them was ready, in seconds since the epoch."""

    def add(self, samples: Iterable[Sample]) -> None:
        """Add machines, the oldest first, and forget those that are older than `DAYS` days by now."""
        for sample in samples:
            kept = self._samples.setdefault(sample.kind, deque(maxlen=MOST))
            kept.append(sample)
            self.until = max(self.until, sample.at)
        since = self.until - DAYS * 86_400.0
        for kind, kept in list(self._samples.items()):
            while kept and kept[0].at < since:
                kept.popleft()
            if not kept:
                del self._samples[kind]

    def all(self) -> Iterator[Sample]:
        """Those that count."""
        return (sample for kept in self._samples.values() for sample in kept)


class Estimates:
    """What recent machines took."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        """Sort them by kind, and by each wider one."""
        by_width: dict[tuple[str | None, ...], list[float]] = defaultdict(list)
        for sample in samples:
            for width in _widths(sample.kind):
                by_width[width].append(sample.seconds)
        self._leads = {
            width: min(LIMIT_S, _quantile(seconds) * MARGIN + MARGIN_S)
            for width, seconds in by_width.items()
            if len(seconds) >= LEAST
        }

    def lead_s(self, kind: Kind) -> float:
        """The lead for a machine of this kind, in seconds."""
        known = (self._leads[width] for width in _widths(kind) if width in self._leads)
        return round(next(known, DEFAULT_S), 3)


def plan(*, due_in_s: float, lead_s: float) -> Plan:
    """Decide when to launch a job that is due in so many seconds.

    An early decision is one for now: it is made again shortly before the launch.
    """
    dispatch_in_s = due_in_s - lead_s
    again = dispatch_in_s > 2 * AGAIN_S
    return Plan(lead_s, dispatch_in_s - AGAIN_S if again else None)


def _widths(kind: Kind) -> tuple[tuple[str | None, ...], ...]:
    """The kind itself, then ever wider ones: what differs most between machines is the image."""
    return (kind, (kind.repository,), (None, kind.instance_type, kind.capacity_type), ())


def _quantile(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(QUANTILE * len(seconds)) - 1]
