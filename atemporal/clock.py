"""Instants and durations as text.

Promise: an instant inside the project is an aware `datetime` in UTC, a duration is a number of
seconds; text is accepted and produced here only. Nothing here reads a clock: what is due is decided
by the database's `now()`, so that daemons on machines with different clocks agree.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from atemporal.pattern import whole

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _instant(date: str, hour: str, sixty: str) -> str:
    """The one form of an instant, of the parts that it is to have."""
    return (
        rf"[ \t\n\r\f\v]*({date})[Tt ]({hour}:{sixty})(?::({sixty})(?:[.,]([0-9]+))?)?"
        rf"(?:[Zz]|([+-])({hour})(?::?({sixty}))?)?[ \t\n\r\f\v]*"
    )


# What a clock can show. The calendar and the years 1 to 9999 in UTC are beyond an expression.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
INSTANT_PATTERN = whole(
    _instant(
        date=f"{_YEAR}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])",
        hour="(?:[01][0-9]|2[0-3])",
        sixty="[0-5][0-9]",
    )
)
"""The form of an instant, for schemas: all that it refuses, `parse_utc` refuses."""
_SHOWN = re.compile(INSTANT_PATTERN)
_WRITTEN = re.compile(
    _instant(date="[0-9]{4}-[0-9]{2}-[0-9]{2}", hour="[0-9]{2}", sixty="[0-9]{2}")
)
_BARE_DATE = re.compile(r"\d{4}-?\d\d-?\d\d", re.ASCII)
TIME_FORM = "2015-04-25T05:27:27.069Z"
_DURATION = re.compile(r"(?=.)(?:\d+w)?(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?", re.ASCII)


def format_utc(instant: datetime) -> str:
    """Write an aware instant as `2015-04-25T05:27:27.069Z` (milliseconds, UTC)."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """Read an instant: `2015-04-25T05:27:27.069Z`, the one form for every door.

    It is ISO 8601's extended form: a date, `T` or one space, hours and minutes; seconds and their
    fraction may be left out, and what is finer than a microsecond is cut off. The zone is `Z` or an
    offset (`+02:00`, `+0200`, `+02`); without one the time is UTC, as the original's was. Letters may be
    lower-case, white space of ASCII around it does not count. Nothing else is guessed: neither a bare
    date nor a number is a time.

    Raises:
        ValueError: the text is no such instant; the message shows one that is.
    """
    # Not left to the library: Python 3.14 reads 24:00, the ones before do not.
    match = _SHOWN.fullmatch(text)
    if match is None:
        raise ValueError(_why_no_time(text))
    date, minutes, seconds, fraction, sign, hours_off, minutes_off = match.groups()
    try:
        instant = datetime.fromisoformat(f"{date}T{minutes}:{seconds or '00'}")
        instant = instant.replace(microsecond=int((fraction or "")[:6].ljust(6, "0")))
        offset = timedelta(hours=int(hours_off or 0), minutes=int(minutes_off or 0))
        zone = timezone(-offset if sign == "-" else offset)
        return instant.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(_why_no_time(text)) from None


def _why_no_time(text: str) -> str:
    if not text.strip():
        return f"is empty; write UTC as {TIME_FORM}, or leave it out for now"
    hint = ""
    if _WRITTEN.fullmatch(text):
        hint = "no clock shows it; "
    elif _BARE_DATE.fullmatch(text.strip()):
        hint = "it has no time of day; "
    return f"{text!r} is not a time: {hint}write UTC as {TIME_FORM} or with an offset"


def parse_duration(text: str) -> int:
    """Read a duration such as `90`, `90s`, `10m`, `1h30m`, `2d` as whole seconds.

    Raises:
        ValueError: the text is neither a whole number nor w, d, h, m, s in this order.
    """
    text = text.strip().lower()
    if text.isascii() and text.isdigit():
        return int(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write seconds, or like 30s, 10m, 1h30m, 2d")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))
