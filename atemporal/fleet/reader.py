"""How a snapshot of the fleet is taken: the clock, then EC2, then the records.

Promise: this order, which everybody's safety rests on, stands in `_take` and nowhere else. The clock
is first, so that a process that was stopped meanwhile takes nothing for older than it was when EC2 did
not show it. The records are last: an intent is committed before its launch, so whatever EC2 shows has
its attempt in them.
Failure: what can not be asked fails the snapshot; only the question by ids may stay open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from atemporal.cloud import Cloud, Instance, Volume
from atemporal.cloud.instance import INSTANCE_ID
from atemporal.errors import AtemporalError
from atemporal.fleet.named import named
from atemporal.fleet.reconciliation import SHOWN_FOR_S
from atemporal.fleet.snapshot import Settled, Snapshot, split_by_owner
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import attempts, boot_times, groups, installation, reconciliation
from atemporal.store.database import Database, server_time
from atemporal.store.rows import Transaction, left_out

DAY_S = 86_400.0


class Listing(NamedTuple):
    """What EC2 answered."""

    instances: Sequence[Instance]
    volumes: Sequence[Volume] = ()


class Records(NamedTuple):
    """What is recorded of it."""

    attempts: Iterable[Attempt]
    settled: Settled = Settled()
    groups: Mapping[UUID, tuple[Attempt, ...]] = MappingProxyType({})


class FleetReader:
    """Takes snapshots; may be shared by threads."""

    def __init__(self, database: Database, cloud: Cloud) -> None:
        """Take both sides; nothing is asked yet."""
        self._database = database
        self._cloud = cloud

    def snapshot(self) -> Snapshot:
        """Every instance, and every attempt that is open or that an instance's tags name."""

        def records(tx: Transaction, listing: Listing) -> Records:
            known = {one.ref: one for one in attempts.still_open(tx)}
            known |= attempts.many(tx, list(_named(listing.instances) - known.keys()))
            return Records(known.values())

        return replace(self._take(self._everything, records), whole=True)

    def snapshot_of(self, refs: Sequence[AttemptRef]) -> Snapshot:
        """Some attempts, and those of their recorded instances that carry our tag.

        A row may be damaged, so it is EC2 that says whose an instance is.
        """

        def ask() -> Listing:
            with self._database.begin() as tx:
                known = attempts.many(tx, refs).values()
            ids = [one.instance_id for one in known if one.instance_id]
            return Listing(list(self._cloud.describe(ids).values()) if ids else [])

        return self._take(ask, lambda tx, _: Records(attempts.many(tx, refs).values()))

    def snapshot_with_history(self, *, whole: bool = False) -> Snapshot:
        """As `snapshot`, and the attempts that were closed while EC2 still shows their instances.

        What was closed before is counted: of the last day, or the `whole` of it.
        """

        def records(tx: Transaction, listing: Listing) -> Records:
            page = reconciliation.page(
                tx,
                instance_ids=[one.id for one in listing.instances],
                refs=_named(listing.instances),
                within_s=SHOWN_FOR_S,
                settled_for_s=None if whole else DAY_S,
            )
            return Records(page.attempts, Settled(page.settled, page.settled_s))

        return replace(self._take(self._everything, records), whole=True)

    def snapshot_of_volumes(self) -> Snapshot:
        """The free volumes, the attempts that they name, and every instance if there are any."""

        def ask() -> Listing:
            volumes = self._cloud.volumes()
            return Listing(self._cloud.all() if volumes else [], volumes)

        def records(tx: Transaction, listing: Listing) -> Records:
            of_groups = {one.group_id for one in listing.volumes if one.ref is None}
            return Records(
                attempts.many(tx, list(_named(listing.volumes))).values(),
                groups=groups.members(tx, [one for one in of_groups if one]),
            )

        return self._take(ask, records)

    def look_up(
        self, snapshot: Snapshot, missing: Collection[AttemptRef]
    ) -> tuple[Snapshot, AtemporalError | None]:
        """Ask EC2 for the instances of missing attempts by their ids, whatever their tags.

        The listing goes by tags. Returns the snapshot with the answer, or with why there is none.
        """
        attempts_ = [snapshot.attempts[ref] for ref in missing]
        ids = [id_ for one in attempts_ if (id_ := one.instance_id or _claimed(one))]
        try:
            shown = self._cloud.describe(ids, tagged=False) if ids else {}
        except AtemporalError as error:
            return snapshot, error
        return replace(snapshot, by_id=shown), None

    def _everything(self) -> Listing:
        return Listing(self._cloud.all())

    def _take(
        self,
        ask: Callable[[], Listing],
        read: Callable[[Transaction, Listing], Records],
    ) -> Snapshot:
        with self._database.begin() as tx:
            now = server_time(tx)
        listing = ask()
        with self._database.begin() as tx:
            records = read(tx, listing)
            known = {one.ref: one for one in records.attempts}
            instances, launching = listing.instances, frozenset[UUID]()
            # Those of launch groups have no attempt's tags at first, and the records know more.
            if nameless := [one for one in instances if one.ref is None and one.group_id]:
                launching = groups.unsettled(tx)
                settled = {one.group_id for one in nameless if one.group_id} - launching
                ids = [one.id for one in nameless]
                found = groups.of_instances(tx, settled, ids)
                known |= {one.ref: one for one in found}
                # Read without the model: who can not be read has its instance all the same.
                instances = named(instances, groups.owners(tx, ids), found)
            running = [ref for ref, one in known.items() if one.state is AttemptState.RUNNING]
            is_booting = any(one.state is AttemptState.WARMING for one in known.values())
            boots = boot_times.lately(tx) if is_booting else boot_times.NOTHING
            ours = installation.identity(tx)
            sides = split_by_owner(
                instances,
                known.keys(),
                ours,
                unreadable=[ref for ref in _named(instances) if left_out(tx, ref)],
            )
            return Snapshot(
                now=now,
                installation=ours,
                attempts=known,
                instances=sides.ours,
                foreign=sides.foreign,
                unreadable=sides.unreadable,
                volumes=tuple(listing.volumes),
                launching=launching,
                groups=records.groups,
                timeouts=attempts.timeouts(tx, running) if running else {},
                slowest_boots=boots.slowest_s,
                last_boot_at=boots.last_at,
                settled=records.settled,
            )


def _claimed(attempt: Attempt) -> str | None:
    """The id that a machine has claimed, if it has the form of one: it may be a wild card."""
    claimed = attempt.claimed_instance_id
    return claimed if claimed and INSTANCE_ID.fullmatch(claimed) else None


def _named(things: Iterable[Instance | Volume]) -> set[AttemptRef]:
    return {one.ref for one in things if one.ref}
