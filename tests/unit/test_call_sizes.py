"""For how many instances one call may be, after EC2 refused one for many."""

from __future__ import annotations

import pytest

from services.launcher.call_sizes import FORGET_S, CallSizes
from services.launcher.offerings import Offering

A, B = (Offering("a.b", subnet, "on-demand") for subnet in ("subnet-a", "subnet-b"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sizes(clock: Clock) -> CallSizes:
    return CallSizes(clock=clock)


def test_nothing_is_held_against_an_offering_that_was_never_refused(sizes: CallSizes) -> None:
    sizes.launched(A, 3)
    sizes.refused(B)
    assert sizes.largest(A, 200) == 200


def test_after_a_refusal_of_many_it_is_one_and_doubles_with_each_that_fits(
    sizes: CallSizes,
) -> None:
    sizes.refused(A)
    found = []
    for _ in range(9):
        found.append(sizes.largest(A, 200))
        sizes.launched(A, found[-1])
    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 200]


def test_smaller_calls_beside_a_larger_one_do_not_shrink_it(sizes: CallSizes) -> None:
    sizes.refused(A)
    for size in (1, 2, 4, 1, 3):
        sizes.launched(A, size)
    assert sizes.largest(A, 200) == 8


def test_single_launches_do_not_keep_it_small_for_ever(sizes: CallSizes, clock: Clock) -> None:
    sizes.refused(A)
    sizes.launched(A, 1)
    for _ in range(10):
        clock.now += FORGET_S / 10
        sizes.launched(A, 1)
    assert sizes.largest(A, 200) == 200


def test_it_is_forgotten_when_there_was_no_news_for_long(sizes: CallSizes, clock: Clock) -> None:
    sizes.refused(A)
    clock.now += FORGET_S - 1
    sizes.launched(A, 1)
    clock.now += FORGET_S - 1
    assert sizes.largest(A, 200) == 2
    clock.now += 1
    assert sizes.largest(A, 200) == 200
