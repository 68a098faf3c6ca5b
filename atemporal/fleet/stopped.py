"""Which attempts' instances have stopped to cost, by a snapshot: pure.

Promise: EC2's own time where it says one. Else nobody knows: it is not later than the moment in which
that is written down, and not earlier than the snapshot before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from atemporal.cloud.instance import Instance
from atemporal.fleet.snapshot import Snapshot
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState

# EC2 bills none of these.
_OVER = ("shutting-down", "terminated", "stopping", "stopped")


def recorded(snapshot: Snapshot) -> Mapping[AttemptRef, Instance]:
    """The attempts' recorded instances, as far as EC2 shows them."""
    shown = {one.id: one for one in snapshot.instances}
    found = {}
    for ref, attempt in snapshot.attempts.items():
        instance = shown.get(attempt.instance_id or "") or snapshot.looked_up(attempt)
        if instance is not None and instance.id == attempt.instance_id:
            found[ref] = instance
    return found


def stopped(
    known: Mapping[AttemptRef, Attempt], instances: Mapping[AttemptRef, Instance]
) -> Mapping[AttemptRef, datetime | None]:
    """The open attempts whose instances have ended without a record of it; when, where EC2 says it."""
    return {
        ref: one.ended_at
        for ref, one in instances.items()
        if one.state in _OVER
        and known[ref].billed_until is None
        and known[ref].state is not AttemptState.CLOSED
    }
