"""What the page draws and writes: phases against time, durations, states, output."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atemporal.model import Attempt
from atemporal.recurrence import FireOutcome
from atemporal.states import AttemptState, JobState, Outcome
from atemporal.waiting import Phase
from services.api.ui import wording
from services.api.ui.timeline import timeline
from tests.launches import LAUNCH

T = datetime(2026, 4, 25, 5, 27, 27, tzinfo=UTC)
JOB = UUID("01890000-0000-7000-8000-000000000001")


def at(seconds: float) -> datetime:
    return T + timedelta(seconds=seconds)


def attempt(number: int = 1, **given: Any) -> Attempt:
    times = {"state": AttemptState.CLOSED, "created_at": T, **given}
    return Attempt(job_id=JOB, number=number, launch=LAUNCH, **times)


def test_each_phase_has_its_place_and_they_fill_the_drawing() -> None:
    whole = attempt(
        launched_at=at(10),
        booted_at=at(30),
        ready_at=at(50),
        running_at=at(60),
        exited_at=at(90),
        closed_at=at(100),
        start_at=at(60),
    )
    drawn = timeline([whole], at(500))
    (one,) = drawn.drawings
    assert [(s.phase, s.seconds, s.left, s.width, s.open) for s in one.stretches] == [
        (Phase.LAUNCH, 10, 0, 10, False),
        (Phase.BOOT, 20, 10, 20, False),
        (Phase.PULL, 20, 30, 20, False),
        (Phase.HOLD, 10, 50, 10, False),
        (Phase.RUN, 30, 60, 30, False),
        (Phase.STOP, 10, 90, 10, False),
    ]
    assert one.due == 60
    assert drawn.ticks == [(0, 0), (30, 30), (60, 60), (90, 90)]


def test_what_lasts_is_drawn_up_to_now_and_all_have_one_scale() -> None:
    failed = attempt(exited_at=at(20), closed_at=at(25))
    runs = attempt(2, created_at=at(100), launched_at=at(110), running_at=at(150))
    short, long = timeline([failed, runs], at(200)).drawings
    assert [(s.phase, s.width, s.open) for s in short.stretches] == [
        (Phase.LAUNCH, 20, False),
        (Phase.STOP, 5, False),
    ]
    assert [(s.phase, s.left, s.width, s.open) for s in long.stretches] == [
        (Phase.LAUNCH, 0, 10, False),
        (Phase.BOOT, 10, 40, False),
        (Phase.RUN, 50, 50, True),
    ]


def test_times_that_go_backwards_leave_nothing_outside_of_the_drawing() -> None:
    odd = attempt(launched_at=at(5), booted_at=at(4), running_at=at(50), exited_at=at(2))
    (one,) = timeline([odd], at(1)).drawings
    for stretch in one.stretches:
        assert 0 <= stretch.left <= stretch.left + stretch.width <= 100
        assert stretch.seconds >= 0
    assert timeline([], T).drawings == []


@pytest.mark.parametrize("seconds", [0, 0.3, 7, 59, 3600, 90_000, 30 * 86_400])
def test_there_are_few_marks_of_time(seconds: float) -> None:
    drawn = timeline([attempt(exited_at=at(seconds / 2), closed_at=at(seconds))], at(0))
    assert 1 <= len(drawn.ticks) <= 6
    assert all(0 <= place <= 100 for _, place in drawn.ticks)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.42, "0.42s"),
        (9.5, "9.5s"),
        (48.9, "48s"),
        (307, "5m07s"),
        (7380, "2h03m"),
        (273_600, "3d04h"),
    ],
)
def test_a_duration_is_written_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert wording.span(seconds) == shown
    assert wording.distance(at(-seconds), T) == f"{shown} ago"


def test_every_state_has_a_sign_of_its_own_beside_its_colour() -> None:
    for state in (*JobState, *Outcome, *AttemptState, *FireOutcome):
        assert wording.mark(state) != wording.mark("unknown"), state
    assert len({wording.mark(one) for one in JobState}) == len(JobState)


def test_output_can_not_steer() -> None:
    written = b"\x1b[31mred\r\n\ttab \xe2\x80\xae \xff\x00"
    assert wording.output(written) == "\\x1b[31mred\n\ttab \\u202e \N{REPLACEMENT CHARACTER}\\x00"
