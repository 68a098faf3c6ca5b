"""EC2's limits of calls: token buckets for requests and for resources.

Promise: sizes and rates are those that EC2 publishes for an account in a Region (developer guide,
"Request throttling for the Amazon EC2 API"); the table of actions has them. Each action has a request
bucket of its own. Some have another one for calls without any filter, id or page, and some take a
token for each instance too. Assumed, because it is not published: a call that is refused for its
resources has used its request token, and a launch needs a resource token for each of MaxCount,
whether or not the call repeats an earlier one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from atemporal.twin.ec2 import launching
from atemporal.twin.ec2.action import Action, Parameters, Rate
from atemporal.twin.ec2.wire import ApiError

CHOICES = ("none", "aws")

_NARROWING = ("Filter", "InstanceId", "MaxResults")


class Limits:
    """The buckets of an account, full at first; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, name: str, action: Action, parameters: Parameters) -> None:
        """Take the tokens that a call needs.

        Raises:
            ApiError: there are not enough of them now.
        """
        bucket, rate = name, action.requests
        if action.unfiltered and not any(parameters.get(one) for one in _NARROWING):
            bucket, rate = f"{name} unfiltered", action.unfiltered
        with self._lock:
            if not self._bucket(bucket, rate).take(1, self._clock()):
                raise _exceeded("Request limit exceeded.")
            if action.resources:
                resources = self._bucket(f"{name} resources", action.resources)
                if not resources.take(_instances(action, parameters), self._clock()):
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


def _instances(action: Action, parameters: Parameters) -> int:
    """How many instances a call is for; one that EC2 refuses anyway counts as one."""
    if not action.launches:
        return len(action.named(parameters)) or 1
    return launching.most(parameters)


def _exceeded(message: str) -> ApiError:
    return ApiError("RequestLimitExceeded", message, 503)
