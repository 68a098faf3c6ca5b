"""What all parts of a simulated world share: random numbers, clock, faults, and the memory of it.

Promise: everything random comes from `rng`, and every fault is counted. A calm world has no faults,
no crashes and no pauses.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from atemporal.errors import Unavailable
from atemporal.model import AttemptRef
from tests.sim.tasks import Crash, current

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)

# How likely each fault is where it can happen, before the schedule's weather.
CHANCES = {
    "pause": 0.12,
    "crash": 0.012,
    "commit refused": 0.01,
    "commit unanswered": 0.01,
    "broker away": 0.01,
    "publish unconfirmed": 0.01,
    "publish unconfirmed, done": 0.02,
    "message lost": 0.03,
    "message doubled": 0.05,
    "messages shuffled": 0.2,
    "ec2 throttled": 0.04,
    "ec2 server fault": 0.03,
    "ec2 server fault, done": 0.04,
    "ec2 no answer": 0.03,
    "ec2 no answer, done": 0.05,
    "ec2 unauthorized": 0.01,
    "ec2 no capacity": 0.06,
    "ec2 no room after all": 0.04,
    "ec2 quota": 0.03,
    "ec2 launches some": 0.2,
    "ec2 too many": 0.05,
    "ec2 refused": 0.01,
    "ec2 has no console": 0.03,
    "machine forges its id": 0.08,
    "callback lost": 0.08,
    "callback answer lost": 0.12,
    "callback doubled": 0.1,
}

DENIED = "denied"
"""A label that the account's policies take for no tag."""


@dataclass
class World:
    """One schedule's world."""

    seed: int
    rng: random.Random
    now: datetime = BEGINNING
    calm: bool = False
    where: str = ""
    # Some schedules are quiet but for their interleaving, some are a hurricane.
    weather: float = 1.0
    counts: Counter[str] = field(default_factory=Counter)
    story: list[tuple[datetime, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int) -> World:
        """A new world; the same seed gives the same one."""
        rng = random.Random(seed)
        return cls(seed, rng, weather=rng.choice([0.3, 1.0, 1.0, 2.5]))

    def note(self, text: str) -> None:
        """Remember what happened, for the reader of a failure."""
        self.story.append((self.now, text))

    def breaks(self, promise: str) -> None:
        """A promise is broken: the schedule fails."""
        self.broken.append(promise)
        self.note(f"BROKEN: {promise}")

    def after(self, seconds: float) -> datetime:
        """The instant so many seconds from now."""
        return self.now + timedelta(seconds=seconds)

    def happens(self, fault: str, subject: str = "") -> bool:
        """Draw a fault; counted and noted when it happens."""
        if self.calm or self.rng.random() >= CHANCES[fault] * self.weather:
            return False
        self.counts[fault] += 1
        if fault != "pause":
            self.note(f"fault: {fault} {subject}")
        return True

    def point(self, where: str) -> None:
        """A place where a process may be stopped for a while, or die.

        Raises:
            Crash: it dies.
        """
        task = current()
        if task is None or self.calm or task.killed:
            return
        if self.happens("crash", where):
            raise Crash(where)
        # An open transaction's locks stop others: seldom, and only for short.
        if self.happens("pause", where) and (
            not task.open_transactions or self.rng.random() < 0.3
        ):
            self.where = where
            task.pause()

    @contextmanager
    def effect(self, what: str) -> Iterator[None]:
        """Surround something that others will see; it can be stopped before and after."""
        self.point(f"before {what}")
        yield
        self.point(f"after {what}")

    def uuid7(self) -> UUID:
        """An id as the store makes them, from this world's random numbers."""
        milliseconds = int(self.now.timestamp() * 1000)
        number = (milliseconds << 80) | (7 << 76) | (self.rng.getrandbits(12) << 64)
        return UUID(int=number | (2 << 62) | self.rng.getrandbits(62))


NOBODY = AttemptRef(UUID(int=0), 0)
"""In place of the attempt of an instance that is none's, or not yet."""


def label(ref: AttemptRef | None) -> str:
    """Name an attempt in a note, so that its job's timeline shows it."""
    if ref == NOBODY:
        return "no attempt"
    return f"job {ref.job_id} attempt {ref.number}" if ref else "no attempt"


def unavailable(what: str) -> Unavailable:
    """The error of a server that is away."""
    return Unavailable(f"simulated: {what}")
