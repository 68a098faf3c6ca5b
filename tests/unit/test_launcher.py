"""The launcher's pure parts: candidates, cooling, the spot breaker, the budget of calls, the circuit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.model import CapacityType, Launch, Machine
from atemporal.states import BlockedReason
from atemporal.store.launches import Interruption, Shortage
from services.launcher.budget import Budget
from services.launcher.candidates import Cell, candidates, cell_of, placed
from services.launcher.cells import Breaker, Cells, closures, short, summary
from services.launcher.circuit import FIRST_PAUSE_S, LONGEST_PAUSE_S, PROBE_S, Circuit


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


A, B = "subnet-a", "subnet-b"


class TestCandidates:
    def of(self, capacity_type: CapacityType = "on-demand", **machine: Any) -> list[Cell]:
        wanted = Machine(capacity_type=capacity_type, **machine)
        return list(candidates(wanted, instance_types=("t3.small",), subnets=(A, B)))

    def test_what_the_job_omits_comes_from_the_settings(self) -> None:
        assert self.of() == [("t3.small", A, "on-demand"), ("t3.small", B, "on-demand")]

    def test_the_jobs_own_order_counts_types_before_subnets(self) -> None:
        cells = self.of(instance_types=("m5.large", "m4.large"), subnets=("subnet-2", "subnet-1"))
        assert [(cell.instance_type, cell.subnet_id) for cell in cells] == [
            ("m5.large", "subnet-2"),
            ("m5.large", "subnet-1"),
            ("m4.large", "subnet-2"),
            ("m4.large", "subnet-1"),
        ]

    def test_all_of_spot_comes_before_any_on_demand(self) -> None:
        cells = self.of("spot-then-on-demand", instance_types=("a.b", "c.d"))
        assert [cell.capacity_type for cell in cells] == ["spot"] * 4 + ["on-demand"] * 4
        assert {cell.capacity_type for cell in self.of("spot")} == {"spot"}

    def test_without_subnets_the_default_one_is_a_candidate(self) -> None:
        assert candidates(Machine(), instance_types=("a.b",), subnets=()) == (
            Cell("a.b", None, "on-demand"),
        )

    def test_none_is_there_twice(self) -> None:
        assert len(self.of(instance_types=("a.b", "a.b"), subnets=("subnet-1", "subnet-1"))) == 1

    def test_another_candidate_is_another_placement_never_asked_and_else_the_same(self) -> None:
        launch = Launch(
            placement=3,
            calls=2,
            image_id="ami-1",
            instance_type="a.b",
            callback_base="http://x",
            key_id="k",
            deadline_s=1,
        )
        other = placed(launch, Cell("c.d", B, "spot"))
        assert (other.placement, other.calls, cell_of(other)) == (4, 0, ("c.d", B, "spot"))
        changed = {"placement", "calls", "instance_type", "subnet_id", "capacity_type"}
        assert other.model_dump(exclude=changed) == launch.model_dump(exclude=changed)


class TestCells:
    @pytest.fixture
    def cells(self, clock: Clock) -> Cells:
        return Cells(capacity_s=180, quota_s=60, clock=clock)

    def test_a_cell_without_room_is_left_alone_for_a_while_and_no_other(
        self, cells: Cells, clock: Clock
    ) -> None:
        empty = Cell("a.b", A, "on-demand")
        cells.no_capacity(empty, "no room")
        closed = cells.closed(empty)
        assert closed is not None
        assert (closed.for_s, closed.wait, closed.why) == (180, BlockedReason.CAPACITY, "no room")
        for other in (("a.b", B, "on-demand"), ("a.b", A, "spot"), ("c.d", A, "on-demand")):
            assert cells.closed(Cell(*other)) is None
        assert cells.count() == 1
        clock.now += 180
        assert cells.closed(empty) is None
        assert cells.count() == 0

    def test_a_full_quota_closes_every_zone_but_not_the_other_market_or_type(
        self, cells: Cells, clock: Clock
    ) -> None:
        cells.over_quota(Cell("a.b", A, "on-demand"), "too many")
        for subnet_id in (A, B, None):
            closed = cells.closed(Cell("a.b", subnet_id, "on-demand"))
            assert closed is not None
            assert closed.wait is BlockedReason.QUOTA
        assert cells.closed(Cell("a.b", A, "spot")) is None
        assert cells.closed(Cell("c.d", A, "on-demand")) is None
        clock.now += 60
        assert cells.closed(Cell("a.b", A, "on-demand")) is None

    def test_the_wait_ends_with_the_first_cell_and_is_named_after_the_gravest(
        self, cells: Cells, clock: Clock
    ) -> None:
        first, second = Cell("a.b", A, "spot"), Cell("a.b", A, "on-demand")
        cells.no_capacity(first, "no room")
        clock.now += 130
        cells.over_quota(second, "the limit is 5")
        wait = summary(closures([first, second], cells, {}, {}))
        assert (wait.for_s, wait.wait) == (50, BlockedReason.QUOTA)
        assert "the limit is 5" in wait.why
        clock.now += 1
        assert summary(closures([first, second], cells, {}, {})).why == wait.why


class TestBreaker:
    breaker = Breaker(interruptions=2, window_s=900, pause_s=1800)

    def left(self, *ages: float) -> float:
        happened = [Interruption("a.b", A, age) for age in ages]
        closed = self.breaker.broken(happened).get(("a.b", A))
        return closed.for_s if closed else 0

    @pytest.mark.parametrize(
        ("ages", "left"),
        [
            ((), 0),
            ((10,), 0),
            ((10, 500), 1790),
            ((500, 10), 1790),
            ((10, 911), 0),  # too far from each other
            ((1700, 1750), 100),
            ((1800, 1850), 0),  # it has had its pause
            ((10, 1000, 1700), 800),  # the last alone is no second trip
            ((1, 2, 3, 4), 1799),
        ],
    )
    def test_two_interruptions_within_the_window_break_it_for_the_pause(
        self, ages: tuple[float, ...], left: float
    ) -> None:
        assert self.left(*ages) == left

    def test_pools_are_apart(self) -> None:
        happened = [Interruption("a.b", A, 1), Interruption("a.b", B, 1)]
        assert self.breaker.broken(happened) == {}

    def test_a_broken_pool_is_closed_for_spot_only(self, clock: Clock) -> None:
        broken = self.breaker.broken([Interruption("a.b", A, 1)] * 2)
        cells = [Cell("a.b", A, "spot"), Cell("a.b", A, "on-demand"), Cell("a.b", B, "spot")]
        closed = closures(cells, Cells(capacity_s=1, quota_s=1, clock=clock), broken, {})
        assert list(closed) == [cells[0]]
        assert closed[cells[0]].wait is BlockedReason.INTERRUPTIONS


class TestShortages:
    """What EC2 granted and then had no room for."""

    def closed(self, *happened: Shortage) -> dict[Cell, tuple[float, BlockedReason]]:
        cells = short(happened, capacity_s=180, quota_s=60)
        return {cell: (one.for_s, one.wait) for cell, one in cells.items()}

    def test_the_newest_closes_its_cell_for_what_is_left(self) -> None:
        code = "Server.InsufficientInstanceCapacity"
        new, old = (Shortage("a.b", A, "spot", code, age) for age in (30.0, 170.0))
        assert self.closed(new, old) == {Cell("a.b", A, "spot"): (150, BlockedReason.CAPACITY)}
        assert self.closed(old._replace(age_s=180)) == {}

    def test_a_limit_of_the_account_holds_in_every_zone(self, clock: Clock) -> None:
        full = Shortage("a.b", A, "spot", "Client.VolumeLimitExceeded", 30)
        cells = [Cell("a.b", A, "spot"), Cell("a.b", B, "spot"), Cell("c.d", A, "spot")]
        shortages = short([full], capacity_s=180, quota_s=60)
        closed = closures(cells, Cells(capacity_s=1, quota_s=1, clock=clock), {}, shortages)
        assert list(closed) == cells[:2]
        assert {(one.for_s, one.wait) for one in closed.values()} == {(30, BlockedReason.QUOTA)}


class TestBudget:
    @pytest.fixture
    def budget(self, clock: Clock) -> Budget:
        return Budget(burst=5, rate=2, instance_burst=1000, instance_rate=2, clock=clock)

    def test_a_burst_then_the_rate(self, budget: Budget, clock: Clock) -> None:
        assert [budget.take() for _ in range(6)] == [True] * 5 + [False]
        assert budget.ready_in() == 0.5
        clock.now += 0.5
        assert budget.available() == 1
        assert budget.take()
        assert not budget.take()
        clock.now += 3600
        assert budget.available() == 5

    def test_the_bucket_of_instances_counts_too(self, clock: Clock) -> None:
        budget = Budget(burst=5, rate=2, instance_burst=2, instance_rate=0.1, clock=clock)
        assert [budget.take() for _ in range(3)] == [True, True, False]
        assert budget.ready_in() == 10

    def test_a_throttled_call_halves_the_rate_and_answers_bring_it_back(
        self, budget: Budget, clock: Clock
    ) -> None:
        budget.throttled()
        assert (budget.rate, budget.available(), budget.ready_in()) == (1, 0, 1)
        clock.now += 10
        budget.throttled()
        assert budget.rate == 0.5
        for _ in range(100):
            budget.answered()
        assert budget.rate == 2

    def test_calls_throttled_together_are_one_sign(self, budget: Budget) -> None:
        for _ in range(8):
            budget.throttled()
        assert budget.rate == 1

    def test_it_never_stops_altogether(self, budget: Budget, clock: Clock) -> None:
        for _ in range(50):
            clock.now += 10
            budget.throttled()
        assert budget.rate > 0
        clock.now += budget.ready_in()
        assert budget.take()

    @given(
        st.lists(
            st.tuples(st.floats(0, 10), st.sampled_from(["take", "throttled", "answered"])),
            max_size=60,
        )
    )
    def test_no_more_calls_than_burst_and_rate_allow(self, steps: list[tuple[float, str]]) -> None:
        clock = Clock()
        budget = Budget(burst=5, rate=2, instance_burst=1000, instance_rate=2, clock=clock)
        taken = 0
        for pause, what in steps:
            clock.now += pause
            taken += bool(getattr(budget, what)()) if what == "take" else 0
            if what != "take":
                getattr(budget, what)()
            assert taken <= 5 + 2 * (clock.now - 1000) + 1e-6
            assert 0 < budget.rate <= 2


class TestCircuit:
    @pytest.fixture
    def circuit(self, clock: Clock) -> Circuit:
        return Circuit(clock=clock, random=lambda: 0.999999)

    def test_it_is_closed_until_a_refusal(self, circuit: Circuit, clock: Clock) -> None:
        assert circuit.closed
        assert circuit.admit()
        assert circuit.trip("AuthFailure")
        assert not circuit.closed
        assert not circuit.admit()
        assert circuit.ready_in() == pytest.approx(FIRST_PAUSE_S, rel=1e-3)
        assert circuit.why == "AuthFailure"

    def test_after_the_pause_one_probe_goes_and_its_success_closes(
        self, circuit: Circuit, clock: Clock
    ) -> None:
        circuit.trip("no")
        clock.now += circuit.ready_in()
        assert [circuit.admit() for _ in range(3)] == [True, False, False]
        assert circuit.mend()
        assert circuit.closed
        assert not circuit.mend()

    def test_each_refused_probe_doubles_the_pause_up_to_a_limit(
        self, circuit: Circuit, clock: Clock
    ) -> None:
        circuit.trip("no")
        pauses = []
        for _ in range(12):
            pauses.append(circuit.ready_in())
            clock.now += pauses[-1]
            assert circuit.admit()
            assert not circuit.trip("no")
        assert pauses[1] == pytest.approx(2 * pauses[0], rel=1e-3)
        assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S, rel=1e-3)
        circuit.mend()
        circuit.trip("no")
        assert circuit.ready_in() == pytest.approx(FIRST_PAUSE_S, rel=1e-3)

    def test_calls_that_were_under_way_do_not_lengthen_the_pause(self, circuit: Circuit) -> None:
        circuit.trip("no")
        pause = circuit.ready_in()
        for _ in range(7):
            circuit.trip("no")
        assert circuit.ready_in() == pause

    def test_a_probe_without_an_answer_makes_room_for_another(
        self, circuit: Circuit, clock: Clock
    ) -> None:
        circuit.trip("no")
        clock.now += circuit.ready_in()
        assert circuit.admit()
        circuit.unsure()
        assert circuit.admit()
        assert not circuit.admit()
        clock.now += PROBE_S  # its thread died
        assert circuit.admit()

    def test_the_pause_has_jitter(self, clock: Clock) -> None:
        soon = Circuit(clock=clock, random=lambda: 0.0)
        soon.trip("no")
        assert soon.ready_in() == FIRST_PAUSE_S / 2
