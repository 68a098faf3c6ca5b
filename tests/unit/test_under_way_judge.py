"""The judge of a concurrency limit, which every chaos run has: it sees what is too much."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atemporal.model import Event
from atemporal.store.concurrency_limits import LimitChange
from tests.under_way import DOUBT, dispatches, exceeded

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
LONG_AGO = NOON - 10 * DOUBT
QUEUED, BEGUN, CLOSED = "job.queued", "attempt.launching", "attempt.closed"
EXITED, FINISHED = "attempt.exited", "job.finished.cancelled"
Step = tuple[str, int, int] | tuple[str, int, int, dict[str, Any]]


def history(*steps: Step) -> list[Event]:
    """Events one second after the other: type, job, attempt and detail."""
    return [
        Event(
            id=number,
            job_id=UUID(int=job),
            attempt=attempt,
            at=NOON + timedelta(seconds=number),
            type=kind,
            actor="test",
            detail=detail[0] if detail else {},
        )
        for number, (kind, job, attempt, *detail) in enumerate(steps)
    ]


def limited(*steps: tuple[datetime, int | None]) -> list[LimitChange]:
    """The changes of a limit, the latest first."""
    return [LimitChange("team=x", None, after, "test", at) for at, after in reversed(steps)]


def most(*steps: Step) -> int:
    return max(one.many for one in dispatches(history(*steps), []))


ONE, TWO = (QUEUED, 1, 1), (QUEUED, 2, 1)


@pytest.mark.parametrize(
    ("between", "many"),
    [
        ([], 2),
        ([(BEGUN, 1, 1)], 2),
        ([(BEGUN, 1, 1), (CLOSED, 1, 1)], 1),
        ([(BEGUN, 1, 1), (EXITED, 1, 1, {"exit_code": 0})], 1),
        # Its container may run on: nobody has heard of its end.
        ([(BEGUN, 1, 1), (EXITED, 1, 1, {"reason": "cancelled"})], 2),
        ([(BEGUN, 1, 1), (FINISHED, 1, 1)], 2),
        ([(FINISHED, 1, 0)], 1),
        ([(BEGUN, 1, 1), (CLOSED, 1, 2)], 2),
    ],
)
def test_a_job_is_under_way_until_its_container_is_known_to_have_ended(
    between: Sequence[Step], many: int
) -> None:
    assert most(ONE, *between, TWO) == many


def test_the_order_is_that_of_the_numbers() -> None:
    late = history(ONE, (CLOSED, 1, 1), TWO)
    assert max(one.many for one in dispatches(reversed(late), [])) == 1


def test_more_than_the_limit_is_seen() -> None:
    two = history(ONE, TWO)
    assert list(exceeded(dispatches(two, limited((LONG_AGO, 1))))) == [
        f"2 are under way with the dispatch of {UUID(int=2)}, and 1 may be"
    ]
    assert not list(exceeded(dispatches(two, limited((LONG_AGO, 2)))))


def test_without_a_limit_nothing_is_too_much() -> None:
    two = history(ONE, TWO)
    assert not list(exceeded(dispatches(two, [])))
    assert not list(exceeded(dispatches(two, limited((LONG_AGO, 1), (NOON - 2 * DOUBT, None)))))


def test_near_a_change_either_limit_may_have_held() -> None:
    two = history(ONE, TWO)
    assert not list(exceeded(dispatches(two, limited((LONG_AGO, 2), (NOON, 1)))))
    assert not list(exceeded(dispatches(two, limited((LONG_AGO, 1), (NOON + DOUBT, 2)))))
    assert list(exceeded(dispatches(two, limited((LONG_AGO, 2), (NOON - DOUBT, 1)))))
    assert list(exceeded(dispatches(two, limited((LONG_AGO, 1), (NOON + 2 * DOUBT, 2)))))
