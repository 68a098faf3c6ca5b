"""Many schedules, one after the other, and what is said about them.

Promise: a schedule that fails is run again from its seed and told as a story; the counts say how
much was done and how many faults of each kind came, so that a run which proved nothing shows it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import monotonic
from typing import Any

from tests.sim import stage
from tests.sim.database import Ground
from tests.sim.schedule import Schedule
from tests.sim.world import CHANCES, World

# Between the first seeds of processes side by side: more than one of them will ever run.
STRIDE = 10**6


@dataclass
class Report:
    """What a run did."""

    seed: int
    schedules: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[World] = field(default_factory=list)

    def __str__(self) -> str:
        """The counts, then the failures with their stories."""
        rate = self.schedules / max(self.seconds, 0.001) * 60
        faults = sum(self.counts[name] for name in CHANCES if name != "pause")
        lines = [
            f"simulation seed={self.seed} schedules={self.schedules} in {self.seconds:.1f} s, "
            f"{rate:.0f} a minute",
            *(f"  {count:8d} {name}" for name, count in sorted(self.counts.items())),
            f"  {faults:8d} faults in all",
        ]
        lines += [tell(world) for world in self.failed]
        return "\n".join([*lines, "VALID" if not self.failed else "BROKEN"])


def tell(world: World) -> str:
    """A failed schedule's story and how to see it again."""
    story = [f"  {at:%d %H:%M:%S} {text}" for at, text in world.story]
    head = f"schedule {world.seed} is broken; again: make sim SEED={world.seed} RUNS=1"
    return "\n".join([head, *story, *(f"  -> {promise}" for promise in world.broken)])


class Simulation:
    """Runs schedules on one database; only one at a time in a process."""

    def __init__(self, ground: Ground) -> None:
        """Take the ground."""
        self.ground = ground
        self.api: Any = None
        self.schedule: Any = None

    def one(self, seed: int) -> World:
        """Run one schedule."""
        # Processes are built in the constructor already, and reach for the stage's schedule.
        self.schedule = Schedule.__new__(Schedule)
        self.schedule.__init__(seed, self.ground, self.api)
        world: World = self.schedule.run()
        return world

    def many(
        self,
        seed: int,
        *,
        runs: int | None = None,
        seconds: float | None = None,
        failures: int = 1,
    ) -> Report:
        """Run schedules `seed`, `seed + 1`, ... until so many ran, or failed, or the time is over."""
        report = Report(seed)
        begun = monotonic()
        while (runs is None or report.schedules < runs) and len(report.failed) < failures:
            if seconds is not None and monotonic() - begun > seconds:
                break
            world = self.one(seed + report.schedules)
            report.schedules += 1
            report.counts += world.counts
            if world.broken:
                report.failed.append(world)
        report.seconds = monotonic() - begun
        return report


def side_by_side(
    urls: Sequence[str], seed: int, *, runs: int | None = None, seconds: float | None = None
) -> Report:
    """Run schedules in a process for each database; each begins with a seed of its own."""
    share = None if runs is None else -(-runs // len(urls))
    begun = monotonic()
    report = Report(seed)
    with ProcessPoolExecutor(len(urls), mp_context=get_context("spawn")) as pool:
        parts = [
            pool.submit(_part, url, seed + number * STRIDE, share, seconds)
            for number, url in enumerate(urls)
        ]
        for part in (one.result() for one in parts):
            report.schedules += part.schedules
            report.counts += part.counts
            report.failed += part.failed
    report.seconds = monotonic() - begun
    return report


def _part(url: str, seed: int, runs: int | None, seconds: float | None) -> Report:
    with simulation(url) as made:
        return made.many(seed, runs=runs, seconds=seconds)


@contextmanager
def simulation(database_url: str) -> Iterator[Simulation]:
    """A simulation on an empty database."""
    ground = Ground(database_url)
    made = Simulation(ground)
    with stage.installed(made):
        made.api = stage.Api()
        yield made
    ground.close()


def fresh_seed() -> int:
    """A seed that nobody chose."""
    return random.SystemRandom().randrange(10**9)
