"""What instances cost by the twin's own times, beside what the product has written down.

Promise: reckoned here anew from the rules, with none of the product's code: a twin's record and a price
in, a bill out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from atemporal.model import Job

# Dollars an hour: on-demand, spot. A hundred times AWS' own, so that seconds make a cent.
_PRICES = {"t3.small": ("2.08", "0.62"), "t3.nano": ("0.52", "0.16")}
PRICES = "item,region,on_demand_usd,spot_usd\n" + "".join(
    f"{name},,{on_demand},{spot}\n" for name, (on_demand, spot) in _PRICES.items()
)
"""The price table of the chaos run."""

CENT = Decimal("0.01")
_LEAST_S = 60
# EC2 tells whole seconds of an end.
_ROUNDED_S = 2
# What EC2 does not date is found by a sweep, and its reaper may have been killed or stopped.
_LATE_S = 120


class Bill(NamedTuple):
    """For how many seconds an instance is billed, and what for, in dollars.

    `exact`: EC2 tells begin and end of what it bills. It does not where an instance powered itself off
    or died, nor of one that never came to run.
    """

    seconds: int
    cost: Decimal
    exact: bool = True


def bill(record: Mapping[str, Any]) -> Bill:
    """What EC2 bills for an instance of the twin, by its record: running to shutting-down."""
    begin, end = record["running_at"], record["ending_at"]
    if begin is None or end is None:
        return Bill(0, Decimal(0), exact=False)
    dated = bool(record["transition_reason"])
    spot = record["parameters"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    price = Decimal(_PRICES[record["parameters"]["InstanceType"]][spot])
    seconds = max(_LEAST_S, math.ceil((math.floor(end) if dated else end) - begin))
    return Bill(seconds, price * seconds / 3600, dated)


def booked_of(known: Iterable[Job]) -> dict[str, Bill]:
    """What the records say of each instance that has been booked."""
    return {
        one.instance_id: Bill(one.billed_s, Decimal(one.booked) / 10**9)
        for job in known
        for one in job.attempts
        if one.instance_id and one.billed_s is not None and one.booked is not None
    }


def differences(recorded: Mapping[str, Bill], bills: Mapping[str, Bill]) -> Iterator[str]:
    """What is booked otherwise than EC2 bills it, one sentence each.

    To the cent, all together, where EC2 tells the times. Where it does not, no less is booked, and
    no more than the time until it was found.
    """
    for instance_id in sorted(bills.keys() - recorded.keys()):
        yield f"{instance_id} is not booked: it was billed for {bills[instance_id].seconds} s"
    for instance_id in sorted(recorded.keys() - bills.keys()):
        yield f"{instance_id} is booked, and the twin had none"
    both = sorted(recorded.keys() & bills.keys())
    for instance_id in both:
        billed = bills[instance_id]
        more_s = recorded[instance_id].seconds - billed.seconds
        if more_s < -_ROUNDED_S:
            yield f"{instance_id} was billed for {-more_s} s more than is booked"
        if not billed.exact and more_s > _LATE_S:
            yield f"{instance_id} was billed for {more_s} s less than is booked"
    exact = [instance_id for instance_id in both if bills[instance_id].exact]
    paid = sum((bills[one].cost for one in exact), Decimal(0))
    booked = sum((recorded[one].cost for one in exact), Decimal(0))
    if abs(paid - booked) > CENT:
        yield f"{booked:.6f} USD are booked, and {paid:.6f} were billed"
