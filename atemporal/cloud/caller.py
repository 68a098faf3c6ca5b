"""How a call to EC2 is made: a token first, then the call, then what its failure means.

Promise: no call goes out without a token of its limit, repeats and pages included; so the SDK repeats
nothing by itself. A call that only reads is repeated here a few times while EC2 does not answer.
Failure: foreign exceptions become classes of `faults`. Where tokens do not come in time the call is
`Throttled`, by us and before it is sent; where nobody can say, `Unavailable`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from atemporal.cloud.faults import FOREIGN, CloudError, Throttled, Unreachable, classify
from atemporal.limits import Limit, Limits

T = TypeVar("T")

READS = 3
"""How often a call that only reads is sent, while EC2 does not answer."""
WAIT_S = 5.0
"""How long a call waits for its token."""
LEAVING_WAIT_S = 10.0
"""How long one waits that leaves part of the bucket to others: after a throttling this refills first."""
_STEP_S = (0.02, 1.0)
OURS = "OwnRateLimit"
"""The code of a call that was not sent, because our own limit had no token."""


class Caller:
    """Makes calls; safe to share between threads."""

    def __init__(self, limits: Limits, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take the limits; `sleep` waits for so many seconds."""
        self._limits = limits
        self._sleep = sleep

    def ready_in(self, limit: Limit) -> float:
        """Seconds until there is a token for one more call.

        Raises:
            Unavailable: nobody can say.
        """
        return self._limits.ready_in(limit)

    def wait_for(self, limit: Limit, doing: str, n: int = 1, *, leave: float = 0.0) -> int:
        """Wait for a token; returns for how many of `n` instances the call may be, one at least.

        Raises:
            Throttled: none came in time.
            Unavailable: nobody can say whether there is one.
        """
        waited_s = 0.0
        while not (granted := self._limits.take(limit, n, leave=leave)):
            ready_s = self._limits.ready_in(limit, n, leave=leave)
            pause_s = min(max(ready_s, _STEP_S[0]), _STEP_S[1])
            if waited_s + pause_s > (LEAVING_WAIT_S if leave else WAIT_S):
                why = "other calls have used up what EC2 allows; see ATEMPORAL_*_RATE"
                raise Throttled(doing, OURS, why)
            self._sleep(pause_s)
            waited_s += pause_s
        return granted

    def send(self, limit: Limit, doing: str, call: Callable[[], T]) -> T:
        """Make one call that has its token.

        Raises:
            CloudError: as `faults` says.
        """
        try:
            return call()
        except FOREIGN as error:
            raise self._understood(limit, classify(error, doing)) from error

    def read(self, limit: Limit, doing: str, call: Callable[[], T], *, leave: float = 0.0) -> T:
        """Make a call that only reads.

        Raises:
            CloudError: as `faults` says; `Unreachable` when EC2 did not answer.
        """
        left = READS
        while True:
            self.wait_for(limit, doing, leave=leave)
            left -= 1
            try:
                return call()
            except FOREIGN as error:
                failure = self._understood(limit, classify(error, doing, reading=True))
                if not (left and isinstance(failure, Unreachable)):
                    raise failure from error

    def _understood(self, limit: Limit, failure: CloudError) -> CloudError:
        if isinstance(failure, Throttled):
            self._limits.throttled(limit)
        return failure
