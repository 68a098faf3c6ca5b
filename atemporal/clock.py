"""Instants and durations as text.

Promise: an instant inside the project is an aware `datetime` in UTC, a duration is a number of
seconds; text is accepted and produced here only. Nothing here reads a clock: what is due is decided
by the database's `now()`, so that daemons on machines with different clocks agree.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
INSTANT_PATTERN = (
    r"^\s*(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
    r"(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)?\s*$"
)
"""The form of an instant, for schemas too: valid in Python and in JSON Schema's dialect."""
_INSTANT = re.compile(INSTANT_PATTERN, re.ASCII)
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
    lower-case, white space around it does not count. Nothing else is guessed: neither a bare date nor a
    number is a time.

    Raises:
        ValueError: the text is no such instant; the message shows one that is.
    """
    text = text.strip()
    if not text:
        raise ValueError(f"is empty; write UTC as {TIME_FORM}, or leave it out for now")
    match = _INSTANT.fullmatch(text)
    if match is None:
        hint = "it has no time of day; " if _BARE_DATE.fullmatch(text) else ""
        raise ValueError(
            f"{text!r} is not a time: {hint}write UTC as {TIME_FORM} or with an offset"
        )
    date, minutes, seconds, fraction, sign, hours_off, minutes_off = match.groups()
    try:
        instant = datetime.fromisoformat(f"{date}T{minutes}:{seconds or '00'}")
        instant = instant.replace(microsecond=int((fraction or "")[:6].ljust(6, "0")))
        if int(hours_off or 0) > 23 or int(minutes_off or 0) > 59:
            raise ValueError("an offset is below a day")
        offset = timedelta(hours=int(hours_off or 0), minutes=int(minutes_off or 0))
        zone = timezone(-offset if sign == "-" else offset)
        return instant.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time: no clock shows it; write UTC as {TIME_FORM} or with an offset"
        ) from None


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
