"""Instants and durations as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

import click
import pytest

from atemporal import clock
from atemporal.cli.submit import submit
from atemporal.errors import Invalid
from atemporal.messages import SUBMIT, decode
from atemporal.model import JobSpec, parse_spec
from services.api import request_body
from services.api.submission import specification

TIMES = (
    "2015-04-25T05:27:27.069Z",
    "2015-04-25T07:27:27.069+02:00",
    " 2015-04-25 05:27:27.069 ",
    "2015-04-25t05:27:27.069z",
    "2015-04-25T05:27:27,069",
    "2015-04-25T05:27:27.0690009Z",
    "2015-04-25 05:27:27.069+00",
    "2015-04-25T07:27:27.069+0200",
    "2015-04-24T23:57:27.069-05:30",
)


@pytest.mark.parametrize("text", TIMES)
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


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.5h", "1h 2m", "٣", "1h1h", "5m1h", "٣m", "1e2", "h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        clock.parse_duration(text)


NO_TIMES = (
    # What could only be guessed: a bare date, a number, a week, an ordinal, a basic form.
    *("2026-11-28", "20300425", "1429939647", "1429939647.069", "2030-W17-4", "2030-115"),
    *("20300425T052727Z", "2030-04-25T05", "05:27", "tomorrow", "now", "2030-04-25T05:27:27 Z"),
    # What no clock shows.
    *("2030-02-29T00:00Z", "2030-04-25T24:00:00Z", "2016-12-31T23:59:60Z", "2030-13-01T00:00Z"),
    *("2030-04-25T05:27:27+24:00", "2030-04-25T05:27:27+02:60", "0001-01-01T00:00+01:00"),
    *("", "  ", "2030-04-25T05:27:27+", "2030-04-25T05:27:27+2", "２０３０-04-25T05:27Z"),
    "2030-04-25T05:27:27-00:00Z",
)


@pytest.mark.parametrize(
    "text", [*NO_TIMES, "2030-04-25T05:27:27Z\0", "2030-04-25T05:27:27 02:00"]
)
def test_what_is_no_time_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"2015-04-25T05:27:27\.069Z"):
        clock.parse_utc(text)


def test_a_time_without_seconds_is_the_full_minute() -> None:
    assert clock.format_utc(clock.parse_utc("2030-04-25T05:27Z")) == "2030-04-25T05:27:00.000Z"


DOORS: dict[str, Callable[[str], datetime | None]] = {
    "run_at in JSON": lambda text: specification({"image": "a", "run_at": text}).time,
    "time in JSON": lambda text: specification({"image": "a", "time": text}).time,
    "time in a form": lambda text: (
        specification(
            request_body.fields(
                urlencode({"image": "a", "time": text}).encode(), request_body.FORM
            )
        ).time
    ),
    "a job message": lambda text: (
        parse_spec(decode(SUBMIT, json.dumps({"image": "a", "run_at": text}).encode()).job).time
    ),
    "--at": lambda text: submit.make_context("submit", ["a", "--at", text]).params["time"],
}


@pytest.mark.parametrize("read", DOORS.values(), ids=DOORS)
def test_a_time_is_the_same_at_every_door_and_never_guessed(
    read: Callable[[str], datetime | None],
) -> None:
    schema = re.compile(JobSpec.model_json_schema()["properties"]["time"]["anyOf"][0]["pattern"])
    for text in TIMES:
        assert read(text) == datetime(2015, 4, 25, 5, 27, 27, 69_000, UTC), text
        assert schema.search(text), text
    for text in NO_TIMES:
        with pytest.raises((Invalid, click.BadParameter), match="2015-04-25T05:27:27"):
            read(text)
    for text in ("2026-11-28", "20300425", "1429939647", "tomorrow", ""):
        assert not schema.search(text), text


@pytest.mark.parametrize("offset", ["+02:00", "+0200", "+02"])
@pytest.mark.parametrize("name", ["time", "run_at"])
def test_a_plus_that_a_form_did_not_escape_is_a_plus(name: str, offset: str) -> None:
    for text in (f"2030-04-25T05:27:27{offset}", f"2030-04-25 05:27{offset}"):
        body = f"image=a&{name}={text}".encode()
        spec = specification(request_body.fields(body, request_body.FORM))
        assert spec.time == clock.parse_utc(text)
