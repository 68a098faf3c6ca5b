"""Which attempts are alike, so that one call may ask for the instances of all of them: pure.

Promise: attempts of one shape have the same offerings in the same order, and their launches are the same
but for what has become of them so far. So whatever EC2 says of one it would say of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from atemporal.model import Attempt, JobSpec
from services.launcher.offerings import Offering

Begun: TypeAlias = tuple[Attempt, JobSpec]

# Which of the offerings is asked for is chosen anew, and how often one was is each attempt's own. A
# group's machines all ask for their jobs.
_NOT_OF_THE_SHAPE = {
    *("placement", "calls", "unsure_at"),
    *("instance_type", "subnet_id", "capacity_type"),
    *("hour_price", "gb_month_price"),
    "delivery",
}


def alike(
    begun: Iterable[Begun],
    *,
    offerings_of: Callable[[JobSpec], tuple[Offering, ...]],
    at_most: Callable[[tuple[Offering, ...]], int],
) -> list[list[Begun]]:
    """Sort attempts by their shapes, `at_most` of those with the same offerings together.

    One that may have been asked for is alone: its call must be repeated as it was.
    """
    shapes: dict[object, list[Begun]] = defaultdict(list)
    size: dict[object, int] = {}
    for attempt, spec in begun:
        shape: object = attempt.ref
        if attempt.launch.calls == 0:
            launch = attempt.launch.model_dump_json(exclude=_NOT_OF_THE_SHAPE)
            # As it was asked for: settings that fill what a job omits may change before its call.
            wanted = offerings_of(spec)
            shape = (launch, wanted, spec.machine.model_dump_json())
            size[shape] = at_most(wanted)
        shapes[shape].append((attempt, spec))
    return [part for shape, one in shapes.items() for part in _parts(one, size.get(shape, 1))]


def _parts(one: Sequence[Begun], at_most: int) -> list[list[Begun]]:
    return [list(one[start : start + at_most]) for start in range(0, len(one), at_most)]
