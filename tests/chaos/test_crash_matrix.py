"""Every service dies before and after every effect it has: each time the job ends as if it had not.

An effect is a commit that wrote something, a publish, an acknowledgement, a call to EC2. They are
counted first, in a run where nobody dies; then there is a case for each of them and each side of it.
An ordinary run tries a sample (`tests/chaos/cases.py`), `make crashes FULL=1` all of them.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Queue

import pytest

from tests.chaos import cases
from tests.chaos.dying import Point
from tests.chaos.matrix import SCENARIOS, Matrix, Scenario

# Effects that came by chance when they were counted; more than so many of all cases is no chance.
MISSED = 0.05
ONLY = os.environ.get("ATEMPORAL_TEST_CRASHES", "")


@pytest.mark.timeout(1800)
def test_every_service_dies_at_every_effect(
    matrices: list[Matrix], remark: Callable[[str], None]
) -> None:
    begun = time.monotonic()
    free: Queue[Matrix] = Queue()
    for matrix in matrices:
        free.put(matrix)

    seed, full = cases.chosen_seed(), cases.in_full()

    def run(scenario: Scenario) -> Tried:
        matrix = free.get()
        try:
            return _try(matrix, scenario, None if full else seed)
        finally:
            free.put(matrix)

    asked = [one for one in SCENARIOS if ONLY in f"{one.service}: {one.title}"]
    with ThreadPoolExecutor(len(matrices)) as pool:
        results = list(pool.map(run, asked))
    took = time.monotonic() - begun
    tried, known = sum(len(one.cases) for one in results), sum(one.known for one in results)
    how = "all" if full else f"SEED={seed}"
    missed = sum(one.missed for one in results)
    remark(
        f"crash matrix: {tried} of {known} cases ({how}) in {took:.0f} s, "
        f"{missed} whose moment never came"
    )
    failures = [failure for one in results for failure in one.failures]
    assert not failures, "\n\n".join(failures)
    assert results, "nothing was tried"
    for one in results:
        assert {case.when for case in one.cases} == set(cases.SIDES), one
    assert missed <= max(1, known * MISSED), "the count promises more than comes"
    assert tried + missed == known if full else tried > known / cases.PARTS / 2


@dataclass
class Tried:
    """What came of one scenario: how many cases it has, those that were tried, what failed.

    `missed` are chosen cases whose moment never came.
    """

    known: int = 0
    missed: int = 0
    cases: list[Point] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def _try(matrix: Matrix, scenario: Scenario, seed: int | None) -> Tried:
    """Try a scenario's sample of this seed, or all of its cases without one."""
    title = f"{scenario.service}: {scenario.title}"
    known = cases.all_cases(matrix.count(scenario))
    chosen = known if seed is None else cases.sample(title, known, seed)
    tried = Tried(len(known))
    rows: dict[str, str] = {}
    for case in known:
        mark = "-"
        if case in chosen:
            died, failure = _case(matrix, scenario, case)
            if died:
                tried.cases.append(case)
            else:
                tried.missed += 1
            tried.failures += failure
            mark = "F" if failure else "." if died else "?"
        effect = f"  {case.loop:14} {case.kind:26} "
        rows[effect] = rows.get(effect, "") + mark + " " * (case.when == cases.SIDES[-1])
    # Whole again: neither deaf nor counting.
    matrix.kill(scenario.service)
    matrix.start(scenario.service)
    print("\n".join([f"\n{title}", *map("".join, rows.items())]), flush=True)
    return tried


def _case(matrix: Matrix, scenario: Scenario, death: Point) -> tuple[bool, list[str]]:
    """Whether the service died of it, and what went wrong."""
    try:
        died = matrix.case(scenario, death)
    except AssertionError:
        # The next case begins with everybody alive again.
        for name in [*matrix._children]:
            matrix.kill(name)
        matrix.start("scheduler", "launcher", "reaper", "api")
        return True, [f"{scenario} {death}\n{traceback.format_exc(limit=3)}"]
    return died, []
