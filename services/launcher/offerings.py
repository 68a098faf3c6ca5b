"""Where an attempt's instance may be asked for, and in which order: pure.

Promise: all offerings of the first capacity type come before those of the second, all of the first
instance type before those of the second, in the order the job, else the settings, give them. After
its call may have been sent, an offering is exchanged only for a definite refusal: the exchange gives
a new placement, and with it a new ClientToken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from atemporal.model import CapacityType, Launch, Machine


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


def placed(launch: Launch, offering: Offering) -> Launch:
    """The launch that asks for another offering, or for the same one anew: not asked yet."""
    return launch.model_copy(
        update={
            **offering._asdict(),
            "placement": launch.placement + 1,
            "calls": 0,
            "unsure_at": None,
        }
    )
