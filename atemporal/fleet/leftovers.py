"""Disks that stayed behind: which free volumes may be deleted.

Promise: pure. A volume may go only when it is older than the grace, its tags name an attempt that was
closed on EC2's word, no instance of that attempt lives, and all this was so in the snapshot before. Of
one whose tags name a launch group this has to hold for all attempts of the group.
One without an attempt is an orphan: it is counted, unless another installation made it, and left
alone, for what is deleted can not be had back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from atemporal.fleet.snapshot import Snapshot
from atemporal.model import Attempt
from atemporal.states import AttemptState


@dataclass
class Leftovers:
    """What one snapshot shows: `free` is to be seen again, `delete` was free before."""

    free: set[str] = field(default_factory=set)
    delete: list[str] = field(default_factory=list)
    orphaned: set[str] = field(default_factory=set)


def find_leftovers(
    snapshot: Snapshot, *, grace_s: float, free_before: Collection[str]
) -> Leftovers:
    """Decide about the free volumes of a snapshot; `free_before` were free in the one before."""
    alive = {one.ref for one in snapshot.listed if one.ref and not one.gone}
    groups_alive = {one.group_id for one in snapshot.listed if one.group_id and not one.gone}
    found = Leftovers()
    for volume in snapshot.volumes:
        if (snapshot.now - volume.created_at).total_seconds() <= grace_s:
            continue
        owners: tuple[Attempt, ...] = ()
        if volume.ref:
            attempt = snapshot.attempts.get(volume.ref)
            owners = (attempt,) if attempt else ()
        elif volume.group_id and volume.group_id not in snapshot.launching:
            owners = snapshot.groups.get(volume.group_id, ())
        if not owners:
            if not volume.foreign_to(snapshot.installation):
                found.orphaned.add(volume.id)
        elif volume.ref is None and volume.group_id in groups_alive:
            continue
        elif all(one.state is AttemptState.CLOSED and one.ref not in alive for one in owners):
            found.free.add(volume.id)
            if volume.id in free_before:
                found.delete.append(volume.id)
    return found
