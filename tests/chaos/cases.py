"""The cases of the crash matrix, and the sample of them that an ordinary run tries.

Promise: a sample is about a fifth of all cases; every scenario has deaths on both sides.
A case belongs to one of `PARTS` parts by its own name alone, so that it stays there whatever else was
counted; the seed chooses the part, and `PARTS` seeds in a row try every case. The day is the seed
unless one is given: the same commit has the same sample all day.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zlib import crc32

from tests.chaos.dying import Point

PARTS = 5
SIDES = ("before", "after")
FULL = "ATEMPORAL_TEST_CRASHES_FULL"
SEED = "ATEMPORAL_TEST_CRASHES_SEED"


def all_cases(counted: Mapping[tuple[str, str], int]) -> list[Point]:
    """A death on each side of every effect that was counted."""
    return [
        Point(loop, kind, number, side)
        for (loop, kind), times in sorted(counted.items())
        for number in range(1, times + 1)
        for side in SIDES
    ]


def sample(scenario: str, cases: Sequence[Point], seed: int) -> list[Point]:
    """The part of a scenario's cases that this seed chooses, and one more for a side it lacks."""
    chosen = {case for case in cases if (_place(scenario, case) - seed) % PARTS == 0}
    for side in SIDES:
        if all(case.when != side for case in chosen):
            others = [case for case in cases if case.when == side]
            chosen.add(others[seed % len(others)])
    return [case for case in cases if case in chosen]


def _place(scenario: str, case: Point) -> int:
    first = crc32(f"{scenario}: {case.loop}, {case.kind}".encode())
    return first + len(SIDES) * (case.number - 1) + SIDES.index(case.when)


def chosen_seed() -> int:
    """The seed that was given, else the day's."""
    given = os.environ.get(SEED)
    return int(given) if given else datetime.now(UTC).toordinal()


def in_full() -> bool:
    """Whether every case is asked for."""
    return bool(os.environ.get(FULL))
