"""The five fields of a cron line: their bounds, and the names of their values."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "sunday monday tuesday wednesday thursday friday saturday"


@dataclass(frozen=True)
class CronField:
    """One field: its name, its bounds, a value for an example, and the full names of its values."""

    name: str
    low: int
    high: int
    example: int
    names: tuple[str, ...] = ()

    @property
    def bounds(self) -> str:
        """For a reader: `0-59`, or `1-12 or jan-dec`."""
        digits = f"{self.low}-{self.high}"
        return f"{digits} or {self.names[0][:3]}-{self.names[-1][:3]}" if self.names else digits

    @property
    def cycle(self) -> int:
        """After so many values it begins again: Sunday is 0 and 7."""
        return 7 if self is DAY_OF_WEEK else self.high - self.low + 1

    def value(self, text: str) -> int | None:
        """The number of a value, which may be a name of three small letters; None if neither."""
        short = [name[:3] for name in self.names]
        if text in short:
            return self.low + short.index(text)
        # More digits than these are no value of any field, and int() refuses thousands of them.
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None

    def holds(self, value: int) -> bool:
        """Whether the number is within the bounds."""
        return self.low <= value <= self.high

    def around(self, first: int, last: int) -> list[int]:
        """The values from `first` to the end of the field, and on from its beginning to `last`."""
        # Sunday is 0 and 7; once around it counts once.
        end = 6 if self is DAY_OF_WEEK else self.high
        return [*range(first, end + 1), *range(self.low, last + 1)]


MINUTE = CronField("minute", 0, 59, 17)
HOUR = CronField("hour", 0, 23, 3)
DAY_OF_MONTH = CronField("day of the month", 1, 31, 15)
MONTH = CronField("month", 1, 12, 6, tuple(_MONTHS.split()))
DAY_OF_WEEK = CronField("day of the week", 0, 7, 1, tuple(_DAYS.split()))
FIELDS = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
