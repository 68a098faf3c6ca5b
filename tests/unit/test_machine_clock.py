"""Which of two clocks counts, and how an instant of the other is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from atemporal.model import ClockState, MachineClock
from atemporal.model.machine_clock import AGREE_MS

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("synchronised", "offset_ms", "state", "read"),
    [
        (True, 0, ClockState.AGREES, NOON),
        (True, AGREE_MS, ClockState.AGREES, NOON),
        (True, -AGREE_MS, ClockState.AGREES, NOON),
        (True, AGREE_MS + 1, ClockState.DIFFERS, NOON - timedelta(milliseconds=AGREE_MS + 1)),
        (True, -5000, ClockState.DIFFERS, NOON + timedelta(seconds=5)),
        (True, None, ClockState.UNKNOWN, NOON),
        (False, 3, ClockState.UNSYNCHRONISED, NOON - timedelta(milliseconds=3)),
        (None, -3_600_000, ClockState.UNKNOWN, NOON + timedelta(hours=1)),
        (None, None, ClockState.UNKNOWN, NOON),
        (False, 10**15, ClockState.UNSYNCHRONISED, NOON),
    ],
)
def test_the_own_clock_counts_if_it_is_synchronised_and_agrees(
    synchronised: bool | None, offset_ms: int | None, state: ClockState, read: datetime
) -> None:
    clock = MachineClock(synchronised=synchronised, offset_ms=offset_ms)
    assert clock.state is state
    assert clock.true(NOON) == read
