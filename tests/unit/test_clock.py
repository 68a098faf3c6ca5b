"""Instants and durations as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from atemporal import clock


@pytest.mark.parametrize(
    "text",
    [
        "2015-04-25T05:27:27.069Z",
        "2015-04-25T07:27:27.069+02:00",
        " 2015-04-25 05:27:27.069 ",
    ],
)
def test_an_instant_is_utc(text: str) -> None:
    instant = clock.parse_utc(text)
    assert instant == datetime(2015, 4, 25, 5, 27, 27, 69_000, UTC)
    assert clock.format_utc(instant) == "2015-04-25T05:27:27.069Z"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1W", 604_800),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: int) -> None:
    assert clock.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5h", "1h 2m", "٣"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        clock.parse_duration(text)


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="write UTC as"):
        clock.parse_utc("tomorrow")
