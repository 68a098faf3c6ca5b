"""The daemons' real steps under schedules nobody thought of: every promise holds, every time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.simulation import Simulation
from tests.sim.world import CHANCES

# The same schedules each time, so that a red test is a change's doing; `make sim` takes fresh ones.
FIRST_SEEDS, RUNS = (77_000, 77_075, 1_077_000, 1_077_075), 75


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", FIRST_SEEDS)
def test_the_promises_hold_under_hundreds_of_schedules(
    simulated: Simulation, remark: Callable[[str], None], seed: int
) -> None:
    report = simulated.many(seed, runs=RUNS)
    remark(str(report).splitlines()[0])
    assert not report.failed, str(report)
    assert report.schedules == RUNS
    never = [fault for fault in CHANCES if not report.counts[fault]]
    assert len(never) < len(CHANCES) / 2, f"a run that proves little, without {never}"
    assert report.counts["containers started"] > report.schedules / 2


def test_a_seed_gives_the_same_schedule_again(simulated: Simulation) -> None:
    for seed in range(4711, 4731):
        assert simulated.one(seed).story == simulated.one(seed).story, seed
