"""How many RunInstances calls this process may make now.

Promise: calls keep within EC2's two limits, requests and instances, each a token bucket. When EC2
throttles all the same, because others share the account, our own request rate is halved at once and
grows back slowly (additive increase, multiplicative decrease), never above what was set.
Nobody waits in here: a call that gets no token is made later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# Calls in flight are throttled together; that is one sign, not many.
_ONE_SIGN_S = 1.0
_SLOWEST = 0.05
_STEPS_BACK = 20


class TokenBucket:
    """`capacity` tokens at most, `rate` new ones a second."""

    def __init__(self, capacity: float, rate: float, clock: Callable[[], float]) -> None:
        """Begin full."""
        self.capacity = capacity
        self._rate = rate
        self._clock = clock
        self._tokens = capacity
        self._at = clock()

    @property
    def rate(self) -> float:
        """New tokens a second."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.tokens()  # what has passed is paid at the old rate
        self._rate = rate

    def tokens(self) -> float:
        """How many there are now."""
        now = self._clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def spend(self, count: float) -> None:
        """Take some out."""
        self._tokens = max(0.0, self.tokens() - count)

    def ready_in(self) -> float:
        """Seconds until there is a whole one."""
        return max(0.0, (1.0 - self.tokens()) / self._rate)


class RateLimiter:
    """The two buckets of RunInstances; safe to share between threads."""

    def __init__(
        self,
        *,
        burst: float,
        rate: float,
        instance_burst: float,
        instance_rate: float,
        clock: Callable[[], float],
    ) -> None:
        """Take EC2's limits: calls at once and a second, instances at once and a second."""
        self._lock = threading.Lock()
        self._clock = clock
        self._requests = TokenBucket(burst, rate, clock)
        self._instances = TokenBucket(instance_burst, instance_rate, clock)
        self._full_rate = rate
        self._shrunk_at: float | None = None

    def take(self, instances: int = 1) -> int:
        """Take what one call for so many instances needs; returns for how many there were tokens."""
        with self._lock:
            if self._available() < 1:
                return 0
            granted = min(instances, int(self._instances.tokens() + 1e-9))
            self._requests.spend(1)
            self._instances.spend(granted)
            return granted

    def available(self) -> int:
        """How many calls could be made now."""
        with self._lock:
            return self._available()

    def instances(self) -> int:
        """For how many instances there are tokens now."""
        with self._lock:
            return int(self._instances.tokens() + 1e-9)

    def ready_in(self) -> float:
        """Seconds until a call may be made."""
        with self._lock:
            return max(self._requests.ready_in(), self._instances.ready_in())

    @property
    def rate(self) -> float:
        """The request rate we allow ourselves now, a second."""
        with self._lock:
            return self._requests.rate

    def throttled(self) -> None:
        """EC2 refused a call as one too many: halve the rate, and pause."""
        with self._lock:
            now = self._clock()
            if self._shrunk_at is None or now - self._shrunk_at >= _ONE_SIGN_S:
                self._shrunk_at = now
                self._requests.rate = max(min(_SLOWEST, self._full_rate), self._requests.rate / 2)
            self._requests.spend(self._requests.capacity)

    def answered(self) -> None:
        """EC2 took a call: grow back by a step."""
        with self._lock:
            grown = self._requests.rate + self._full_rate / _STEPS_BACK
            self._requests.rate = min(self._full_rate, grown)

    def _available(self) -> int:
        # Rounding must not cost a caller its token after it waited for exactly `ready_in`.
        return int(min(self._requests.tokens(), self._instances.tokens()) + 1e-9)
