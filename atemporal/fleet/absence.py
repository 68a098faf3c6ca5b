"""What EC2's listing should show and does not.

Promise: pure. A thing that is missing from one listing proves nothing: EC2's answers lag behind, and a
listing goes by tags. It is proven when it is old enough, was missing in the snapshot before too, and EC2
does not know its id either; and never while the listing is empty of ours, which is what wrong
credentials, a wrong region or a wrong deployment look like.
"""

from __future__ import annotations

from dataclasses import dataclass

from atemporal.fleet.snapshot import Snapshot
from atemporal.model import AttemptRef
from atemporal.states import AttemptState


@dataclass(frozen=True)
class Absence:
    """What is known about instances that the listing should show and does not.

    `unknown` are the attempts whose instance's id EC2 does not know, `proven` those of them that
    have no instance any more. Of the `unasked` nothing is known, for EC2 could not be asked.
    """

    missing: frozenset[AttemptRef] = frozenset()
    listing_empty: bool = False
    proven: frozenset[AttemptRef] = frozenset()
    unknown: frozenset[AttemptRef] = frozenset()
    unasked: frozenset[AttemptRef] = frozenset()


def missing(snapshot: Snapshot, grace_s: float) -> frozenset[AttemptRef]:
    """The open attempts whose instance should be listed by now and is not."""
    ids = {one.id for one in snapshot.instances}
    refs = {one.ref for one in snapshot.instances}
    found = set()
    for ref, attempt in snapshot.attempts.items():
        if attempt.state is AttemptState.CLOSED:
            continue
        if attempt.instance_id is None and attempt.group_id in snapshot.launching:
            continue  # one of those that nobody has yet may become its own
        since = attempt.launched_at or attempt.ready_at or attempt.running_at
        if attempt.state is AttemptState.EXITED:
            began = since or attempt.created_at
            old = all(snapshot.is_older(at, grace_s) for at in (began, attempt.exited_at))
        else:
            # Without an instance that EC2 has named, only one that was heard of should have one.
            old = snapshot.is_older(since, grace_s)
        shown = attempt.instance_id in ids if attempt.instance_id else ref in refs
        if old and not shown:
            found.add(ref)
    return frozenset(found)


def is_listing_empty(snapshot: Snapshot, missed: frozenset[AttemptRef]) -> bool:
    """Whether the listing shows no recorded instance, though a live one of `missed` should be there."""
    attempts = snapshot.attempts
    ids = {one.instance_id for one in attempts.values()}
    return any(attempts[ref].state is not AttemptState.EXITED for ref in missed) and not any(
        one.id in ids or one.ref in attempts for one in snapshot.instances
    )


def absence_in(
    snapshot: Snapshot,
    grace_s: float,
    *,
    missing_before: frozenset[AttemptRef],
    empty_before: bool,
) -> Absence:
    """What a snapshot says of absences; what the one before said is given."""
    if not snapshot.whole:
        return Absence()
    missed = missing(snapshot, grace_s)
    empty = is_listing_empty(snapshot, missed)
    if snapshot.by_id is None:
        return Absence(missed, empty, unasked=missed)
    unknown = frozenset(
        ref for ref in missed if snapshot.looked_up(snapshot.attempts[ref]) is None
    )
    # A listing that was empty of ours counts for none, also when the next one is not.
    counts = not (empty or empty_before)
    return Absence(
        missed,
        empty,
        proven=unknown & missing_before if counts else frozenset(),
        unknown=unknown,
    )
