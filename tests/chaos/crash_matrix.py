"""Every service dies before and after every effect it has: each time the job ends as if it had not.

An effect is a commit that wrote something, a publish, an acknowledgement, a call to EC2. They are
counted first, in a run where nobody dies; then there is a cell for each of them and each side of it.
"""

from __future__ import annotations

import os
import time
import traceback

import pytest

from tests.chaos.dying import Point
from tests.chaos.matrix import SCENARIOS, Matrix, Scenario

ONLY = os.environ.get("ATEMPORAL_TEST_CRASHES", "")


@pytest.mark.timeout(1200)
def test_every_service_dies_at_every_effect(matrix: Matrix) -> None:
    begun = time.monotonic()
    cells, failures = 0, []
    for scenario in SCENARIOS:
        if ONLY not in f"{scenario.service}: {scenario.title}":
            continue
        counted = matrix.count(scenario)
        print(f"\n{scenario.service}: {scenario.title}", flush=True)
        for (loop, kind), times in sorted(counted.items()):
            row = ""
            for number in range(1, times + 1):
                for when in ("before", "after"):
                    cells += 1
                    failure = _cell(matrix, scenario, Point(loop, kind, number, when))
                    row += "F" if failure else "."
                    failures += failure
                row += " "
            print(f"  {loop:14} {kind:26} {row}", flush=True)
        # Whole again: neither deaf nor counting.
        matrix.kill(scenario.service)
        matrix.start(scenario.service)
    took = time.monotonic() - begun
    print(f"{cells} cells in {took:.0f} s, {took / max(cells, 1):.1f} s a cell")
    assert cells, "nothing was tried"
    assert not failures, "\n\n".join(failures)


def _cell(matrix: Matrix, scenario: Scenario, death: Point) -> list[str]:
    try:
        matrix.cell(scenario, death)
    except AssertionError:
        # The next cell begins with everybody alive again.
        for name in [*matrix._children]:
            matrix.kill(name)
        matrix.start("scheduler", "launcher", "reaper", "api")
        return [f"{scenario} {death}\n{traceback.format_exc(limit=3)}"]
    return []
