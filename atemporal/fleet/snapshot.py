"""EC2 and the records at one time: what every decision about the fleet is made from.

Promise: pure and frozen. Instances are split by their owner before anybody decides anything: ours,
those of another installation, and those whose attempt is recorded but can not be read. Nobody may
conclude anything about the last two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from atemporal.cloud.instance import Instance
from atemporal.cloud.volume import Volume
from atemporal.model import Attempt, AttemptRef


@dataclass(frozen=True)
class Settled:
    """Attempts closed so long ago that EC2 has forgotten them: how many, and their seconds."""

    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """EC2's answer, and the records that were read after it.

    `now` is the database's time from before EC2 was asked: a thing is as old as it was when EC2 did
    not show it, however long this process was stopped since. `timeouts` are the run limits, in
    seconds, of those attempts that run. `slowest_boots` are the seconds that hardly a machine took to
    boot lately, by instance type and image, where that is known; `last_boot_at` is when the API last
    heard of a boot.

    `launching` are the launch groups whose instances may not be written down yet. `groups` are the
    attempts of those groups that volumes name.

    `whole`: it shows all there is, so what it does not show is missing. `by_id` is what EC2 said of
    the missing ones when asked by their ids, whatever their tags; `None` while it could not be asked.
    An id that only a machine has claimed is among them: ask `looked_up`.
    """

    now: datetime
    installation: UUID
    attempts: Mapping[AttemptRef, Attempt] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    foreign: tuple[Instance, ...] = ()
    unreadable: tuple[Instance, ...] = ()
    volumes: tuple[Volume, ...] = ()
    launching: frozenset[UUID] = frozenset()
    groups: Mapping[UUID, tuple[Attempt, ...]] = field(default_factory=dict)
    timeouts: Mapping[AttemptRef, int] = field(default_factory=dict)
    slowest_boots: Mapping[tuple[str, str], float] = field(default_factory=dict)
    last_boot_at: datetime | None = None
    settled: Settled = Settled()
    whole: bool = False
    by_id: Mapping[str, Instance] | None = None

    def is_older(self, instant: datetime | None, seconds: float) -> bool:
        """Whether something is known to have been for longer than `seconds`."""
        return instant is not None and (self.now - instant).total_seconds() > seconds

    def looked_up(self, attempt: Attempt) -> Instance | None:
        """What EC2 said of an attempt's instance by its id.

        Of one whose id only a machine has claimed: if EC2 says that a launch of the attempt made it.
        """
        if self.by_id is None:
            return None
        if attempt.instance_id is not None:
            return self.by_id.get(attempt.instance_id)
        claimed = self.by_id.get(attempt.claimed_instance_id or "")
        return claimed if claimed and claimed.launched_for(attempt.ref) else None

    @property
    def listed(self) -> tuple[Instance, ...]:
        """Every instance of the answer, whoever's."""
        return (*self.instances, *self.unreadable, *self.foreign)


class Owners(NamedTuple):
    """The instances of one answer, by whose they are."""

    ours: tuple[Instance, ...]
    foreign: tuple[Instance, ...]
    unreadable: tuple[Instance, ...]


def split_by_owner(
    instances: Iterable[Instance],
    attempts: Collection[AttemptRef],
    installation: UUID,
    *,
    unreadable: Collection[AttemptRef] = (),
) -> Owners:
    """Tell our instances from those of other installations, and from those that nobody may judge.

    Foreign is only what carries another installation's id and has no attempt here: whatever a machine
    claimed to be, and whichever database this is, a recorded attempt's instance is ours.
    """
    ours: list[Instance] = []
    foreign: list[Instance] = []
    spared: list[Instance] = []
    for one in instances:
        if one.ref in unreadable:
            spared.append(one)
        elif one.ref not in attempts and one.foreign_to(installation):
            foreign.append(one)
        else:
            ours.append(one)
    return Owners(tuple(ours), tuple(foreign), tuple(spared))
