"""Where an attempt's instance may be asked for, and in which order: pure.

Promise: all offerings of the first capacity type come before those of the second, all of the first
instance type before those of the second, in the order the job, else the settings, give them. After
its call may have been sent, an offering is exchanged only for a definite refusal: the exchange gives
a new placement, and with it a new ClientToken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from atemporal.model import CapacityType, JobSpec, Launch, Machine
from atemporal.prices import NO_PRICES, Prices


class Offering(NamedTuple):
    """What EC2 has room for, or not: an instance type in a subnet, on-demand or spot.

    A subnet stands for its zone. To learn which zone a subnet is in would cost a call to EC2; two
    subnets of one zone cost one refused call more.
    """

    instance_type: str
    subnet_id: str | None
    capacity_type: Literal["on-demand", "spot"]

    def __str__(self) -> str:
        place = f" in {self.subnet_id}" if self.subnet_id else ""
        return f"{self.capacity_type} {self.instance_type}{place}"


_CAPACITY_TYPES: dict[CapacityType, tuple[Literal["on-demand", "spot"], ...]] = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "spot-then-on-demand": ("spot", "on-demand"),
}


def offerings(
    machine: Machine, *, instance_types: Sequence[str], subnets: Sequence[str]
) -> tuple[Offering, ...]:
    """Every offering that suits a job's machine; the types and subnets given fill what it omits."""
    places: Sequence[str | None] = machine.subnets or subnets or (None,)
    found = (
        Offering(instance_type, subnet_id, capacity_type)
        for capacity_type in _CAPACITY_TYPES[machine.capacity_type]
        for instance_type in machine.instance_types or instance_types
        for subnet_id in places
    )
    return tuple(dict.fromkeys(found))


def offering_of(launch: Launch) -> Offering:
    """The offering that a launch asks for."""
    return Offering(launch.instance_type, launch.subnet_id, launch.capacity_type)


def priced(found: tuple[Offering, ...], spec: JobSpec, prices: Prices) -> tuple[Offering, ...]:
    """Those of the offerings that a job with a bound on its cost may get: they have a price."""
    if spec.max_cost is None:
        return found
    return tuple(one for one in found if prices.of(one.instance_type, one.capacity_type))


def price_of(offering: Offering, prices: Prices) -> Mapping[str, Any]:
    """What a launch keeps of the price of an offering."""
    price = prices.of(offering.instance_type, offering.capacity_type)
    if price is None:
        return {"hour_price": None, "gb_month_price": 0}
    return {"hour_price": price.hour, "gb_month_price": price.gb_month}


def placed(launch: Launch, offering: Offering, prices: Prices = NO_PRICES) -> Launch:
    """The launch that asks for another offering, or for the same one anew: not asked yet."""
    price = {} if offering == offering_of(launch) else price_of(offering, prices)
    return launch.model_copy(
        update={
            **offering._asdict(),
            **price,
            "placement": launch.placement + 1,
            "calls": 0,
            "unsure_at": None,
        }
    )
