"""Every service dies before and after every effect it has: each time the job ends as if it had not.

An effect is a commit that wrote something, a publish, an acknowledgement, a call to EC2. They are
counted first, in a run where nobody dies; then there is a case for each of them and each side of it.
One in five is tried, of every scenario and on both sides, unless ATEMPORAL_TEST_CRASHES_FULL is set:
the seed says which, and five seeds in a row try all. The day is the seed unless one is given.
"""

from __future__ import annotations

import itertools
import os
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Queue

import pytest

from tests.chaos.dying import Point
from tests.chaos.matrix import SCENARIOS, Matrix, Scenario

ONLY = os.environ.get("ATEMPORAL_TEST_CRASHES", "")
FULL = bool(os.environ.get("ATEMPORAL_TEST_CRASHES_FULL"))
SEED = int(os.environ.get("ATEMPORAL_TEST_CRASHES_SEED") or datetime.now(UTC).date().toordinal())
# Odd, so that a sample of neighbours has both sides of effects.
ONE_IN = 5


@pytest.mark.timeout(1800)
def test_every_service_dies_at_every_effect(
    matrices: list[Matrix], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    free: Queue[Matrix] = Queue()
    for matrix in matrices:
        free.put(matrix)

    def run(scenario: Scenario) -> Tried:
        matrix = free.get()
        try:
            return _try(matrix, scenario)
        finally:
            free.put(matrix)

    asked = [one for one in SCENARIOS if ONLY in f"{one.service}: {one.title}"]
    with ThreadPoolExecutor(len(matrices)) as pool:
        tried = list(pool.map(run, asked))
    took = time.monotonic() - begun
    cases, known = sum(one.cases for one in tried), sum(one.known for one in tried)
    how = "all" if FULL else f"SEED={SEED}"
    with capsys.disabled():
        print(f"\ncrash matrix: {cases} of {known} cases ({how}) in {took:.0f} s")
    failures = [failure for one in tried for failure in one.failures]
    assert not failures, "\n\n".join(failures)
    assert all(one.cases for one in tried), "a scenario of which nothing was tried"
    if FULL:
        assert cases == known
    else:
        assert {side for one in tried for side in one.sides} == {"before", "after"}
        assert cases >= known // ONE_IN


@dataclass
class Tried:
    """What came of one scenario."""

    known: int = 0
    cases: int = 0
    sides: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


def _try(matrix: Matrix, scenario: Scenario) -> Tried:
    tried = Tried()
    rows = [f"\n{scenario.service}: {scenario.title}"]
    order = itertools.count(SEED)
    for (loop, kind), times in sorted(matrix.count(scenario).items()):
        row = ""
        for number in range(1, times + 1):
            for when in ("before", "after"):
                tried.known += 1
                if next(order) % ONE_IN and not FULL:
                    row += "-"
                    continue
                tried.cases += 1
                tried.sides.add(when)
                failure = _case(matrix, scenario, Point(loop, kind, number, when))
                row += "F" if failure else "."
                tried.failures += failure
            row += " "
        rows.append(f"  {loop:14} {kind:26} {row}")
    # Whole again: neither deaf nor counting.
    matrix.kill(scenario.service)
    matrix.start(scenario.service)
    print("\n".join(rows), flush=True)
    return tried


def _case(matrix: Matrix, scenario: Scenario, death: Point) -> list[str]:
    try:
        matrix.case(scenario, death)
    except AssertionError:
        # The next case begins with everybody alive again.
        for name in [*matrix._children]:
            matrix.kill(name)
        matrix.start("scheduler", "launcher", "reaper", "api")
        return [f"{scenario} {death}\n{traceback.format_exc(limit=3)}"]
    return []
