"""A launch group: attempts whose instances are alike, asked for by one call."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from atemporal.model.attempt import Launch
from atemporal.model.frozen import Frozen


class LaunchGroup(Frozen):
    """The intent of one RunInstances call for many attempts, committed before the call.

    `launch` is what a launch is to one attempt: it is all that the call is made of, and the call's
    ClientToken follows from the group and its placement. `size` is how many instances are asked for
    with this placement. `settled_at` is when there was nothing left to ask for: its attempts had their
    instances, had left, or had ended.
    """

    id: UUID
    launch: Launch
    size: int
    created_at: datetime
    settled_at: datetime | None = None
