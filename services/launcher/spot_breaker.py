"""Which spot pools interrupt so often that they are left alone: pure.

Promise: a pool (an instance type in a subnet) that took back `interruptions` of our instances within
`window_s` seconds gets no spot instance for `pause_s`; its on-demand offering is not concerned.
Mechanism: the interruptions are our own history and come from the database, so a restart does not
send the next job into a pool that has just thrown out the last two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atemporal.states import BlockedReason
from atemporal.store.launches import Interruption
from services.launcher.availability import Unavailable
from services.launcher.offerings import Offering


@dataclass(frozen=True)
class SpotBreaker:
    """Leave a spot pool alone for `pause_s` after `interruptions` within `window_s` seconds."""

    interruptions: int
    window_s: float
    pause_s: float

    @property
    def memory_s(self) -> float:
        """How far back an interruption can still matter."""
        return self.window_s + self.pause_s

    def interrupted(self, happened: Iterable[Interruption]) -> Mapping[Offering, Unavailable]:
        """The offerings to leave alone, by what happened in the last `memory_s` seconds."""
        ages: dict[Offering, list[float]] = defaultdict(list)
        for one in happened:
            ages[Offering(one.instance_type, one.subnet_id, "spot")].append(one.age_s)
        found = {}
        for pool, of_pool in ages.items():
            of_pool.sort(reverse=True)
            for first, last in zip(of_pool, of_pool[self.interruptions - 1 :], strict=False):
                if first - last <= self.window_s and last < self.pause_s:
                    detail = f"its spot pool interrupted {self.interruptions} of our instances"
                    found[pool] = Unavailable(
                        self.pause_s - last, BlockedReason.INTERRUPTIONS, detail
                    )
        return found
