"""Instants and durations as text.

Promise: an instant inside the project is an aware `datetime` in UTC, a duration is a number of
seconds; text is accepted and produced here only. Nothing here reads a clock: what is due is decided
by the database's `now()`, so that daemons on machines with different clocks agree.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+[smhdw])+")


def format_utc(instant: datetime) -> str:
    """Write an aware instant as `2015-04-25T05:27:27.069Z` (milliseconds, UTC)."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """Read an ISO 8601 instant; one without an offset is taken as UTC.

    Raises:
        ValueError: the text is not an ISO 8601 date and time.
    """
    try:
        instant = datetime.fromisoformat(text.strip())
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; write UTC as 2015-04-25T05:27:27.069Z or with an offset"
        ) from None


def parse_duration(text: str) -> int:
    """Read a duration such as `90`, `90s`, `10m`, `1h30m`, `2d` as whole seconds.

    Raises:
        ValueError: the text is neither a whole number nor a sum of s, m, h, d, w.
    """
    text = text.strip().lower()
    if text.isascii() and text.isdigit():
        return int(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write seconds, or like 30s, 10m, 1h30m, 2d")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhdw])", text))
