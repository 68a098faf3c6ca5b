"""Disks that stayed behind: found free in two looks, with their instance surely gone, then deleted.

Promise: a volume is deleted only when it carries this deployment's tag, is attached to nothing, is
older than the grace, its tags name an attempt that was closed on EC2's word, no instance of that
attempt lives, and all this was so in the look before. One that no attempt accounts for is counted,
unless another installation made it, and left alone: what is deleted can not be had back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from atemporal.cloud import Volume
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import attempts, installation
from atemporal.store.database import Database, server_time
from atemporal.telemetry import ORPHANED_VOLUMES, VOLUMES_DELETED
from services.reaper.reaper import Reaper

# Volumes stay behind rarely and cost little: one look for so many sweeps of the instances.
EVERY = 30


@dataclass
class Leftovers:
    """What one look found: `free` is to be looked at again, `delete` was free before."""

    free: set[str] = field(default_factory=set)
    delete: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


def leftover(
    volumes: Iterable[Volume],
    books: Mapping[AttemptRef, Attempt],
    *,
    installation: UUID,
    alive: Collection[AttemptRef],
    now: datetime,
    grace_s: float,
    free_before: Collection[str],
) -> Leftovers:
    """Judge free volumes; `alive` are the attempts of which EC2 shows an instance not yet gone."""
    found = Leftovers()
    for volume in volumes:
        if (now - volume.created_at).total_seconds() <= grace_s:
            continue
        attempt = books.get(volume.ref) if volume.ref else None
        if attempt is None:
            if not volume.foreign_to(installation):
                found.unknown.add(volume.id)
        elif attempt.state is AttemptState.CLOSED and attempt.ref not in alive:
            found.free.add(volume.id)
            if volume.id in free_before:
                found.delete.append(volume.id)
    return found


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
    ) -> None:
        """Take the steps; the first look is at once, the next after `every` intervals."""
        self._reaper = reaper
        self._database = database
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._every = every
        self._ticks = 0
        self._free: set[str] = set()

    def tick(self) -> float:
        """Look, if it is time and no other reaper does."""
        tick, self._ticks = self._ticks, self._ticks + 1
        if tick % self._every == 0:
            with self._database.only_one("reaper volumes") as mine:
                if mine:
                    self._look()
        return self._interval_s

    def reset(self) -> None:
        """Forget the marks: a volume must be free in two looks in a row."""
        self._free.clear()

    def _look(self) -> None:
        cloud = self._reaper.cloud
        with self._database.begin() as tx:
            now = server_time(tx)
        volumes = cloud.volumes()
        instances = cloud.all() if volumes else []
        with self._database.begin() as tx:
            books = attempts.many(tx, [one.ref for one in volumes if one.ref])
            ours = installation.identity(tx)
        found = leftover(
            volumes,
            books,
            installation=ours,
            alive={one.ref for one in instances if one.ref and not one.gone},
            now=now,
            grace_s=self._grace_s,
            free_before=self._free,
        )
        self._free = found.free
        ORPHANED_VOLUMES.set(len(found.unknown))
        failures = cloud.delete_volumes(found.delete)
        for volume_id in found.delete:
            error = failures.get(volume_id)
            VOLUMES_DELETED.labels("failed" if error else "deleted").inc()
            if error:
                self._reaper.log.warning("not deleted", volume=volume_id, error=str(error))
            else:
                self._reaper.log.info("leftover volume deleted", volume=volume_id)
