"""Whose the instances of launch groups are: the records name them where their tags do not.

Promise: pure. An instance that an attempt has is that attempt's. One that no attempt has is given to an
attempt of its group that ended without an instance, so that it is written down as every launch is; whose
group may still be answered is not among these. The others stay nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from uuid import UUID

from atemporal.cloud.instance import Instance
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState


def named(
    instances: Iterable[Instance], owners: Mapping[str, AttemptRef], attempts: Iterable[Attempt]
) -> list[Instance]:
    """The instances, each with the attempt that the records name for it, if its tags name none.

    `owners` are also those attempts that can not be read; `attempts` are those that can.
    """
    without: dict[UUID | None, list[AttemptRef]] = defaultdict(list)
    for attempt in attempts:
        ended = attempt.state in (AttemptState.EXITED, AttemptState.CLOSED)
        if ended and attempt.instance_id is None:
            without[attempt.group_id].append(attempt.ref)
    for refs in without.values():
        refs.sort(reverse=True)
    found = []
    for one in sorted(instances, key=lambda one: (one.gone, one.id)):
        if one.ref is None and one.group_id is not None:
            ref = owners.get(one.id)
            if ref is None and without[one.group_id]:
                ref = without[one.group_id].pop()
            one = one.of(ref) if ref else one
        found.append(one)
    return found
