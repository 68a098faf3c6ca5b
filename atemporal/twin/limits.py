"""How many calls an account may make: EC2's token buckets for requests and for resources.

Promise: the sizes and rates that EC2 publishes for an account in a Region (developer guide, "Request
throttling for the Amazon EC2 API"). Each call has a request bucket of its own; DescribeInstances and
DescribeInstanceStatus have another for calls without any filter, id or page. RunInstances and
TerminateInstances take a token for each instance too. Assumed, because it is not published: a call
that is refused for its resources has used its request token, and RunInstances needs a resource
token for each of MaxCount, whether or not the call repeats an earlier one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atemporal.twin.wire import ApiError

CHOICES = ("none", "aws")


@dataclass(frozen=True)
class Rate:
    """A bucket's size, and how many tokens come back each second."""

    size: float
    refill: float


REQUESTS = {
    "RunInstances": Rate(5, 2),
    "TerminateInstances": Rate(100, 5),
    "CreateTags": Rate(100, 10),
}
READS = Rate(100, 20)
UNFILTERED_READS = Rate(50, 10)
RESOURCES = {"RunInstances": Rate(1000, 2), "TerminateInstances": Rate(1000, 20)}

_UNFILTERED = ("DescribeInstances", "DescribeInstanceStatus")
_NARROWING = ("Filter", "InstanceId", "MaxResults")


class Limits:
    """The buckets of an account, full at first; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def admit(self, call: str, parameters: dict[str, Any]) -> None:
        """Take the tokens that a call needs.

        Raises:
            ApiError: there are not enough of them now.
        """
        name, rate = call, REQUESTS.get(call, READS)
        if call in _UNFILTERED and not any(parameters.get(one) for one in _NARROWING):
            name, rate = f"{call} unfiltered", UNFILTERED_READS
        with self._lock:
            if not self._bucket(name, rate).take(1, self._clock()):
                raise _exceeded("Request limit exceeded.")
            if call in RESOURCES:
                resources = self._bucket(f"{call} resources", RESOURCES[call])
                if not resources.take(_count(call, parameters), self._clock()):
                    raise _exceeded("Request limit exceeded: too many instances.")

    def _bucket(self, name: str, rate: Rate) -> _Bucket:
        if name not in self._buckets:
            self._buckets[name] = _Bucket(rate, self._clock())
        return self._buckets[name]


class _Bucket:
    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = rate.size
        self._filled_at = now

    def take(self, count: int, now: float) -> bool:
        """Take so many tokens, or none."""
        gained = max(0.0, now - self._filled_at) * self._rate.refill
        self._tokens = min(self._rate.size, self._tokens + gained)
        self._filled_at = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True


def _count(call: str, parameters: dict[str, Any]) -> int:
    """How many instances a call is about; one that EC2 refuses anyway counts as one."""
    if call == "TerminateInstances":
        ids = parameters.get("InstanceId")
        return len(ids) if isinstance(ids, list) else 1
    most = parameters.get("MaxCount", "")
    return int(most) if isinstance(most, str) and most.isascii() and most.isdigit() else 1


def _exceeded(message: str) -> ApiError:
    return ApiError("RequestLimitExceeded", message, 503)
