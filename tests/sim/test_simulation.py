"""The daemons' real steps under schedules nobody thought of: every promise holds, every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers.postgres import Postgres
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.simulation import Simulation, simulation
from tests.sim.world import CHANCES

# The same schedules each time, so that a red test is a change's doing; `make sim` takes fresh ones.
FIRST_SEEDS, RUNS = (77_000, 77_075, 1_077_000, 1_077_075), 75
# Each mistake shows within a few dozen schedules; this is where the net counts as torn.
PATIENCE = 400
# For those that need more, where to begin: a few schedules before the first that shows it.
BEGIN_AT = {"next_zone_after_a_timeout": 115, "an_absence_counts_at_once": 50}


@pytest.fixture(scope="module")
def simulated(postgres_server: Postgres) -> Iterator[Simulation]:
    with simulation(postgres_server.create_database()) as made:
        yield made


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


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mistake_is_found(
    simulated: Simulation, monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    mutant(monkeypatch, simulated)
    report = simulated.many(BEGIN_AT.get(mutant.__name__, 1), runs=PATIENCE)
    assert report.failed, f"{mutant.__name__} was not noticed in {report.schedules} schedules"
    print(f"{mutant.__name__}: schedule {report.schedules}: {report.failed[0].broken[0]}")
