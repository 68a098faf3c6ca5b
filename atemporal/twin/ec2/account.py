"""The account that the twin plays: what the handlers of actions work on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atemporal.twin.ec2.wire import ApiError
from atemporal.twin.faults.plan import FaultPlan
from atemporal.twin.host.host import Host
from atemporal.twin.state import Instance, State

ID_LIMIT = 1000


@dataclass(frozen=True)
class Account:
    """One account in one region; `clock` gives seconds since the epoch."""

    state: State
    host: Host
    plan: FaultPlan
    region: str
    clock: Callable[[], float]

    def named(self, ids: Sequence[str]) -> list[Instance]:
        """The instances with these ids, all or none.

        Raises:
            ApiError: an id is malformed or unknown, or there are too many.
        """
        if len(ids) > ID_LIMIT:
            raise ApiError("InvalidParameterValue", f"More than {ID_LIMIT} instance ids")
        malformed = [
            one for one in ids if not re.fullmatch(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})", one)
        ]
        if malformed:
            raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{malformed[0]}"')
        found = {one: self.state.get(one) for one in dict.fromkeys(ids)}
        missing = [
            one
            for one, instance in found.items()
            if instance is None or self.plan.is_hidden(instance)
        ]
        if len(missing) == 1:
            text = f"The instance ID '{missing[0]}' does not exist"
            raise ApiError("InvalidInstanceID.NotFound", text)
        if missing:
            text = f"The instance IDs '{', '.join(missing)}' do not exist"
            raise ApiError("InvalidInstanceID.NotFound", text)
        return [instance for instance in found.values() if instance is not None]

    def shown(self, ids: Sequence[str]) -> Sequence[Instance]:
        """What a describing call shows of these instances; without ids, of all.

        Raises:
            ApiError: see `named`.
        """
        return self.plan.shown(self.named(ids) if ids else self.state.instances())
