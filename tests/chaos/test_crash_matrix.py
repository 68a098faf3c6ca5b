"""Every service dies before and after every effect it has: each time the job ends as if it had not.

An effect is a commit that wrote something, a publish, an acknowledgement, a call to EC2. They are
counted first, in a run where nobody dies; then there is a case for each of them and each side of it.
"""

from __future__ import annotations

import os
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Queue

import pytest

from tests.chaos.dying import Point
from tests.chaos.matrix import SCENARIOS, Matrix, Scenario

ONLY = os.environ.get("ATEMPORAL_TEST_CRASHES", "")


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
    cases = sum(one.cases for one in tried)
    with capsys.disabled():
        print(f"\ncrash matrix: {cases} cases in {took:.0f} s, {len(matrices)} at a time")
    failures = [failure for one in tried for failure in one.failures]
    assert cases, "nothing was tried"
    assert not failures, "\n\n".join(failures)


@dataclass
class Tried:
    """What came of one scenario."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)


def _try(matrix: Matrix, scenario: Scenario) -> Tried:
    tried = Tried()
    rows = [f"\n{scenario.service}: {scenario.title}"]
    for (loop, kind), times in sorted(matrix.count(scenario).items()):
        row = ""
        for number in range(1, times + 1):
            for when in ("before", "after"):
                tried.cases += 1
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
