"""Where an attempt's instance may be asked for, and in which order: pure.

Promise: a candidate is one cell (instance type, subnet, market). All cells of the first market come
before those of the second, all of the first type before those of the second, in the order the job,
else the settings, give them. A candidate is never exchanged after its call may have been sent, but
for a definite refusal: the exchange gives a new placement, and with it a new ClientToken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from atemporal.model import CapacityType, Launch, Machine


class Cell(NamedTuple):
    """One stock of instances: EC2 has room in it, or not.

    A subnet stands for its zone: which zone a subnet is in would cost a question to EC2, and two
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


def candidates(
    machine: Machine, *, instance_types: Sequence[str], subnets: Sequence[str]
) -> tuple[Cell, ...]:
    """Every cell that will do for a job's machine; the types and subnets given fill what it omits."""
    places: Sequence[str | None] = machine.subnets or subnets or (None,)
    cells = (
        Cell(instance_type, subnet_id, capacity_type)
        for capacity_type in _CAPACITY_TYPES[machine.capacity_type]
        for instance_type in machine.instance_types or instance_types
        for subnet_id in places
    )
    return tuple(dict.fromkeys(cells))


def cell_of(launch: Launch) -> Cell:
    """The cell a launch asks in."""
    return Cell(launch.instance_type, launch.subnet_id, launch.capacity_type)


def placed(launch: Launch, cell: Cell) -> Launch:
    """The launch that asks in another cell, or in the same one anew: not asked yet."""
    return launch.model_copy(
        update={**cell._asdict(), "placement": launch.placement + 1, "calls": 0}
    )
