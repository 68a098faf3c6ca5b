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
        "2015-04-25t05:27:27.069z",
        "2015-04-25T05:27:27,069",
        "2015-04-25T05:27:27.0690009Z",
        "2015-04-25 05:27:27.069+00",
        "2015-04-25T07:27:27.069+0200",
        "2015-04-24T23:57:27.069-05:30",
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


@pytest.mark.parametrize(
    "text",
    [
        # What could only be guessed: a bare date, a number, a week, an ordinal, a basic form.
        *("2026-11-28", "20300425", "1429939647", "1429939647.069", "2030-W17-4", "2030-115"),
        *(
            "20300425T052727Z",
            "2030-04-25T05",
            "05:27",
            "tomorrow",
            "now",
            "2030-04-25T05:27:27 Z",
        ),
        # What no clock shows.
        *(
            "2030-02-29T00:00Z",
            "2030-04-25T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "2030-13-01T00:00Z",
        ),
        *("2030-04-25T05:27:27+24:00", "2030-04-25T05:27:27+02:60", "0001-01-01T00:00+01:00"),
        *("", "  ", "2030-04-25T05:27:27+", "2030-04-25T05:27:27+2", "２０３０-04-25T05:27Z"),
        *("2030-04-25T05:27:27Z\0", "2030-04-25T05:27:27 02:00", "2030-04-25T05:27:27-00:00Z"),
    ],
)
def test_what_is_no_time_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"2015-04-25T05:27:27\.069Z"):
        clock.parse_utc(text)


def test_a_time_without_seconds_is_the_full_minute() -> None:
    assert clock.format_utc(clock.parse_utc("2030-04-25T05:27Z")) == "2030-04-25T05:27:00.000Z"
