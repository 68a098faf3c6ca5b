"""The launcher's parts without I/O: offerings and their availability, its limits and breakers."""

from __future__ import annotations

from typing import Any

import pytest

from atemporal.model import CapacityType, Launch, Machine
from atemporal.states import BlockedReason
from atemporal.store.launches import Interruption, Shortage
from services.launcher.availability import Availability, Unavailable, in_shortage, summary
from services.launcher.circuit_breaker import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    PROBE_S,
    CircuitBreaker,
)
from services.launcher.offerings import Offering, offering_of, offerings, placed
from services.launcher.spot_breaker import SpotBreaker


class Clock:
    """A clock that goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


A, B = "subnet-a", "subnet-b"


def unavailable(availability: Availability, *asked: Offering) -> dict[Offering, Unavailable]:
    """What is in cooldown; nothing else speaks against an offering."""
    return availability.unavailable(asked, shortages={}, interrupted={})


class TestOfferings:
    def of(self, capacity_type: CapacityType = "on-demand", **machine: Any) -> list[Offering]:
        wanted = Machine(capacity_type=capacity_type, **machine)
        return list(offerings(wanted, instance_types=("t3.small",), subnets=(A, B)))

    def test_what_the_job_omits_comes_from_the_settings(self) -> None:
        assert self.of() == [("t3.small", A, "on-demand"), ("t3.small", B, "on-demand")]

    def test_the_jobs_own_order_counts_types_before_subnets(self) -> None:
        found = self.of(instance_types=("m5.large", "m4.large"), subnets=("subnet-2", "subnet-1"))
        assert [(one.instance_type, one.subnet_id) for one in found] == [
            ("m5.large", "subnet-2"),
            ("m5.large", "subnet-1"),
            ("m4.large", "subnet-2"),
            ("m4.large", "subnet-1"),
        ]

    def test_all_of_spot_comes_before_any_on_demand(self) -> None:
        found = self.of("spot-then-on-demand", instance_types=("a.b", "c.d"))
        assert [one.capacity_type for one in found] == ["spot"] * 4 + ["on-demand"] * 4
        assert {one.capacity_type for one in self.of("spot")} == {"spot"}

    def test_without_subnets_the_default_one_is_an_offering(self) -> None:
        assert offerings(Machine(), instance_types=("a.b",), subnets=()) == (
            Offering("a.b", None, "on-demand"),
        )

    def test_no_offering_is_there_twice(self) -> None:
        assert len(self.of(instance_types=("a.b", "a.b"), subnets=("subnet-1", "subnet-1"))) == 1

    def test_another_offering_is_another_placement_never_asked_and_else_the_same(self) -> None:
        launch = Launch(
            placement=3,
            calls=2,
            image_id="ami-1",
            instance_type="a.b",
            callback_base="http://x",
            key_id="k",
            deadline_s=1,
        )
        other = placed(launch, Offering("c.d", B, "spot"))
        assert (other.placement, other.calls, offering_of(other)) == (4, 0, ("c.d", B, "spot"))
        changed = {"placement", "calls", "instance_type", "subnet_id", "capacity_type"}
        assert other.model_dump(exclude=changed) == launch.model_dump(exclude=changed)


class TestAvailability:
    @pytest.fixture
    def availability(self, clock: Clock) -> Availability:
        return Availability(capacity_s=180, quota_s=60, clock=clock)

    def test_an_offering_without_capacity_is_in_cooldown_for_a_while_and_no_other(
        self, availability: Availability, clock: Clock
    ) -> None:
        empty = Offering("a.b", A, "on-demand")
        availability.no_capacity(empty, "no room")
        found = availability.of(empty)
        assert found is not None
        assert (found.for_s, found.blocked_on, found.detail) == (
            180,
            BlockedReason.CAPACITY,
            "no room",
        )
        for other in (("a.b", B, "on-demand"), ("a.b", A, "spot"), ("c.d", A, "on-demand")):
            assert availability.of(Offering(*other)) is None
        assert availability.count() == 1
        clock.now += 180
        assert availability.of(empty) is None
        assert availability.count() == 0

    def test_a_full_quota_holds_in_every_subnet_but_not_for_the_other_capacity_type_or_type(
        self, availability: Availability, clock: Clock
    ) -> None:
        availability.over_quota(Offering("a.b", A, "on-demand"), "too many")
        for subnet_id in (A, B, None):
            found = availability.of(Offering("a.b", subnet_id, "on-demand"))
            assert found is not None
            assert found.blocked_on is BlockedReason.QUOTA
        assert availability.of(Offering("a.b", A, "spot")) is None
        assert availability.of(Offering("c.d", A, "on-demand")) is None
        clock.now += 60
        assert availability.of(Offering("a.b", A, "on-demand")) is None

    def test_all_are_unavailable_until_the_first_is_not_for_the_gravest_reason(
        self, availability: Availability, clock: Clock
    ) -> None:
        first, second = Offering("a.b", A, "spot"), Offering("a.b", A, "on-demand")
        availability.no_capacity(first, "no room")
        clock.now += 130
        availability.over_quota(second, "the limit is 5")
        blocked = summary(unavailable(availability, first, second))
        assert (blocked.for_s, blocked.blocked_on) == (50, BlockedReason.QUOTA)
        assert "the limit is 5" in blocked.detail
        clock.now += 1
        assert summary(unavailable(availability, first, second)).detail == blocked.detail


class TestSpotBreaker:
    breaker = SpotBreaker(interruptions=2, window_s=900, pause_s=1800)

    def left(self, *ages: float) -> float:
        happened = [Interruption("a.b", A, age) for age in ages]
        found = self.breaker.interrupted(happened).get(Offering("a.b", A, "spot"))
        return found.for_s if found else 0

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
    def test_two_interruptions_within_the_window_open_it_for_the_pause(
        self, ages: tuple[float, ...], left: float
    ) -> None:
        assert self.left(*ages) == left

    def test_each_pool_counts_alone(self) -> None:
        happened = [Interruption("a.b", A, 1), Interruption("a.b", B, 1)]
        assert self.breaker.interrupted(happened) == {}

    def test_a_pool_that_interrupts_is_unavailable_for_spot_only(self, clock: Clock) -> None:
        interrupted = self.breaker.interrupted([Interruption("a.b", A, 1)] * 2)
        spot, *others = (
            Offering("a.b", A, "spot"),
            Offering("a.b", A, "on-demand"),
            Offering("a.b", B, "spot"),
        )
        found = Availability(capacity_s=1, quota_s=1, clock=clock).unavailable(
            [spot, *others], shortages={}, interrupted=interrupted
        )
        assert list(found) == [spot]
        assert found[spot].blocked_on is BlockedReason.INTERRUPTIONS


class TestShortages:
    """What EC2 granted and then had no room for."""

    def of(self, *happened: Shortage) -> dict[Offering, tuple[float, BlockedReason]]:
        found = in_shortage(happened, capacity_s=180, quota_s=60)
        return {offering: (one.for_s, one.blocked_on) for offering, one in found.items()}

    def test_the_newest_makes_its_offering_unavailable_for_what_is_left(self) -> None:
        code = "Server.InsufficientInstanceCapacity"
        new, old = (Shortage("a.b", A, "spot", code, age) for age in (30.0, 170.0))
        assert self.of(new, old) == {Offering("a.b", A, "spot"): (150, BlockedReason.CAPACITY)}
        assert self.of(old._replace(age_s=180)) == {}

    def test_a_limit_of_the_account_holds_in_every_subnet(self, clock: Clock) -> None:
        full = Shortage("a.b", A, "spot", "Client.VolumeLimitExceeded", 30)
        asked = [
            Offering("a.b", A, "spot"),
            Offering("a.b", B, "spot"),
            Offering("c.d", A, "spot"),
        ]
        found = Availability(capacity_s=1, quota_s=1, clock=clock).unavailable(
            asked, shortages=in_shortage([full], capacity_s=180, quota_s=60), interrupted={}
        )
        assert list(found) == asked[:2]
        assert {(one.for_s, one.blocked_on) for one in found.values()} == {
            (30, BlockedReason.QUOTA)
        }


class TestCircuitBreaker:
    @pytest.fixture
    def breaker(self, clock: Clock) -> CircuitBreaker:
        return CircuitBreaker(clock=clock, rng=lambda: 0.999999)

    def test_it_is_closed_until_a_refusal(self, breaker: CircuitBreaker, clock: Clock) -> None:
        assert not breaker.is_open
        assert breaker.allow()
        assert breaker.open("AuthFailure")
        assert breaker.is_open
        assert not breaker.allow()
        assert breaker.ready_in() == pytest.approx(FIRST_PAUSE_S, rel=1e-3)
        assert breaker.detail == "AuthFailure"

    def test_after_the_pause_one_probe_goes_and_its_success_closes_it(
        self, breaker: CircuitBreaker, clock: Clock
    ) -> None:
        breaker.open("no")
        clock.now += breaker.ready_in()
        assert [breaker.allow() for _ in range(3)] == [True, False, False]
        assert breaker.close()
        assert not breaker.is_open
        assert not breaker.close()

    def test_each_refused_probe_doubles_the_pause_up_to_a_limit(
        self, breaker: CircuitBreaker, clock: Clock
    ) -> None:
        breaker.open("no")
        pauses = []
        for _ in range(12):
            pauses.append(breaker.ready_in())
            clock.now += pauses[-1]
            assert breaker.allow()
            assert not breaker.open("no")
        assert pauses[1] == pytest.approx(2 * pauses[0], rel=1e-3)
        assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S, rel=1e-3)
        breaker.close()
        breaker.open("no")
        assert breaker.ready_in() == pytest.approx(FIRST_PAUSE_S, rel=1e-3)

    def test_calls_that_were_under_way_do_not_lengthen_the_pause(
        self, breaker: CircuitBreaker
    ) -> None:
        breaker.open("no")
        pause = breaker.ready_in()
        for _ in range(7):
            breaker.open("no")
        assert breaker.ready_in() == pause

    def test_a_probe_without_an_answer_makes_room_for_another(
        self, breaker: CircuitBreaker, clock: Clock
    ) -> None:
        breaker.open("no")
        clock.now += breaker.ready_in()
        assert breaker.allow()
        breaker.inconclusive()
        assert breaker.allow()
        assert not breaker.allow()
        clock.now += PROBE_S  # its thread died
        assert breaker.allow()

    def test_the_pause_has_jitter(self, clock: Clock) -> None:
        soon = CircuitBreaker(clock=clock, rng=lambda: 0.0)
        soon.open("no")
        assert soon.ready_in() == FIRST_PAUSE_S / 2
