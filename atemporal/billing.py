"""What EC2 bills for an instance and its disks: pure, in whole billionths of a US dollar, never floats.

Promise: the only place that knows these rules. An amount is exact but for one rounding, to the nearest
billionth with halves up, of each of its two parts.

The rules, of on-demand and spot instances with Linux, and of EBS volumes of the type gp3:

- An instance is billed for each second in which it is `running`: not while it is `pending`, and not from
  `shutting-down` on. At least 60 seconds for each launch.
- A volume is billed for what it may hold, for each second that it exists, at least 60. The price is for
  a GB and a month; AWS' own example reckons a month as 30 days.

Which seconds: EC2 tells when an instance was launched (`LaunchTime`, the begin of `pending`) and, of an
end by the API, when that began (`StateTransitionReason`), both in whole seconds. It does not tell when
one began to run. So the time from its launch on counts, seconds that have begun as whole ones: that is a
little more than EC2 bills, never less. A volume's life is taken to be that of its instance.

Source: EC2 User Guide, "Amazon EC2 instance state changes" (which states are billed); "Amazon EC2
On-Demand Pricing" (per second, 60 at least, for Linux); "Amazon EBS pricing" (per second, 60 at least,
and the example with 86,400 seconds a day and 30 days a month). What they bill by the hour, like some
commercial Linux distributions, is none of the families here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

NANO: Final = 10**9
"""So many units of an amount are a US dollar."""
CURRENCY: Final = "USD"
LEAST_S: Final = 60
HOUR_S: Final = 3600
MONTH_S: Final = 30 * 86_400

PLACES: Final = 9
AMOUNT: Final = r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,9})?"
"""An amount as text: below a million dollars, to the billionth."""

_AMOUNT = re.compile(AMOUNT)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Price:
    """What an instance costs in an hour, and a GB of its disks in a month, in billionths of a dollar.

    `gb` is how large its disks are together. Without a price for them they cost nothing.
    """

    hour: int
    gb_month: int = 0
    gb: int = 0

    @property
    def per_hour(self) -> int:
        """What instance and disks cost in an hour."""
        return self.hour + _rounded(self.gb_month * self.gb * HOUR_S, MONTH_S)

    def cost(self, seconds: int) -> int:
        """What they cost in these billed seconds."""
        disks = _rounded(self.gb_month * self.gb * seconds, MONTH_S)
        return _rounded(self.hour * seconds, HOUR_S) + disks


def billed_s(begin: datetime, end: datetime) -> int:
    """The seconds that are billed for an instance from its launch to its end: whole ones, 60 or more."""
    return max(LEAST_S, -((begin - end) // _SECOND))


def amount(text: str) -> int:
    """Read an amount in dollars.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    if not _AMOUNT.fullmatch(text):
        raise ValueError(
            f"{text!r} is no amount: write dollars like 1.50, below a million, with up to {PLACES} "
            "decimal places"
        )
    return int(Decimal(text) * NANO)


def dollars(nano: int) -> str:
    """Write an amount in dollars, exactly: `0.000346667`, with two decimal places at least."""
    sign, size = ("-" if nano < 0 else ""), abs(nano)
    whole, rest = divmod(size, NANO)
    places = f"{rest:0{PLACES}d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{places}"


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
