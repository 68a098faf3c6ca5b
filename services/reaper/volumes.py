"""The volumes' loop: disks that stayed behind, deleted when two snapshots in a row show them so.

Promise: only what `fleet.leftovers` allows is deleted. Orphans are counted and left alone.
"""

from __future__ import annotations

from atemporal.fleet.leftovers import find_leftovers
from atemporal.metrics import Aggregate, clear, counter, gauge
from atemporal.store.database import Database
from services.reaper.one_sweeper import OneSweeper
from services.reaper.reaper import Reaper

DELETIONS = counter(
    "atemporal_volume_deletions_total",
    "Deletions of leftover volumes that EC2 was asked for, by their result.",
    result=["deleted", "failed"],
)
ORPHANED_VOLUMES = gauge(
    "atemporal_orphaned_volumes",
    "Free volumes that no attempt accounts for.",
    aggregate=Aggregate.ONE,
)

# Volumes stay behind rarely and cost little: one snapshot for so many sweeps of the instances.
EVERY = 30


class VolumeLoop:
    """Looks for leftover volumes, less often than the sweep looks for instances."""

    name = "reap-volumes"

    def __init__(
        self,
        reaper: Reaper,
        database: Database,
        *,
        grace_s: float,
        interval_s: float,
        every: int = EVERY,
        holder: str = "",
    ) -> None:
        """Take the steps; the first check is at once, the next after `every` intervals."""
        self._reaper = reaper
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._sweeper = OneSweeper(
            database, "reaper volumes", interval_s=interval_s * every, holder=holder
        )
        self._every = every
        self._ticks = 0
        self._free: set[str] = set()

    def tick(self) -> float:
        """Check, if it is time and no other reaper does."""
        tick, self._ticks = self._ticks, self._ticks + 1
        if tick % self._every == 0:
            with self._sweeper.mine() as mine:
                if mine:
                    self._check()
                else:
                    clear(ORPHANED_VOLUMES)
        return self._interval_s

    def reset(self) -> None:
        """Forget the marks: a volume must be free in two snapshots in a row."""
        self._free.clear()
        self._sweeper.give_up()

    def _check(self) -> None:
        snapshot = self._reaper.fleet.snapshot_of_volumes()
        found = find_leftovers(snapshot, grace_s=self._grace_s, free_before=self._free)
        self._free = found.free
        ORPHANED_VOLUMES.set(len(found.orphaned))
        failures = self._reaper.cloud.delete_volumes(found.delete)
        for volume_id in found.delete:
            error = failures.get(volume_id)
            DELETIONS.labels("failed" if error else "deleted").inc()
            if error:
                self._reaper.log.warning("not deleted", volume=volume_id, error=str(error))
            else:
                self._reaper.log.info("leftover volume deleted", volume=volume_id)
