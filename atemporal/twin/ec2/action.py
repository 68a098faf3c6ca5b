"""What is known of one action of EC2's API.

Promise: limits, faults and the log of calls learn here what they must know of an action; none has
a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atemporal.twin.ec2.account import Account

Parameters = dict[str, Any]
Response = dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """A token bucket's size, and how many tokens come back each second."""

    size: float
    refill: float


@dataclass(frozen=True)
class Action:
    """One action; rates are those that EC2 publishes (see `limits`).

    `requests` is the bucket of its calls, `unfiltered` that of calls without any filter, id or page,
    `resources` has a token for each instance. `ids` is the parameter that names its instances; an
    action that `launches` names them in its response.
    """

    handler: Callable[[Account, Parameters], Response]
    requests: Rate = Rate(100, 20)
    unfiltered: Rate | None = None
    resources: Rate | None = None
    ids: str = "InstanceId"
    launches: bool = False

    def named(self, parameters: Parameters) -> list[str]:
        """The ids of the instances that a call names."""
        named = parameters.get(self.ids)
        if not named:
            return []
        return [str(one) for one in named] if isinstance(named, list) else [str(named)]
