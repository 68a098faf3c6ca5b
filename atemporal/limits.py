"""EC2's limits on calls, by name: what a process that calls EC2 has to ask before each call.

Promise: pure. `Limit` is the only list of them; `Limits` is what the cloud's adapter asks, whoever keeps
the count.
Source: the EC2 developer guide, "Request throttling for the Amazon EC2 API": a token bucket of requests
for each API action of an account in a Region; RunInstances and TerminateInstances have a second one with
a token for each instance.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Limit(StrEnum):
    """One limit: the calls that share a bucket here.

    GetConsoleOutput is non-mutating, of the same size as the Describe calls, and its own bucket:
    EC2 counts each action by itself. DescribeImages, DescribeVolumes and DescribeInstances share one
    here, because the first two are rare.
    """

    RUN_INSTANCES = "run_instances"
    TERMINATE_INSTANCES = "terminate_instances"
    DESCRIBE = "describe"
    GET_CONSOLE_OUTPUT = "get_console_output"
    CREATE_TAGS = "create_tags"
    DELETE_VOLUME = "delete_volume"


class Limits(Protocol):
    """Who knows how many calls may be made now."""

    def take(self, limit: Limit, n: int = 1, *, at_least: int = 1, leave: float = 0.0) -> int:
        """Take what one call needs; returns for how many of `n` instances it may be, 0: no call.

        Of a limit that counts calls only, `n` is the number of calls. `leave` is the part of the bucket,
        0 to 1, that is left to others.

        Raises:
            Unavailable: nobody can say; no call may be made.
        """

    def ready_in(self, limit: Limit, n: int = 1, *, leave: float = 0.0) -> float:
        """Seconds until `take` of the same grants something.

        Raises:
            Unavailable: nobody can say.
        """

    def throttled(self, limit: Limit) -> None:
        """Note that EC2 refused a call as one too many.

        Raises:
            Unavailable: it could not be noted.
        """


class Unlimited:
    """For who makes a call now and then: an operator's command, a test."""

    def take(self, limit: Limit, n: int = 1, *, at_least: int = 1, leave: float = 0.0) -> int:
        """Grant all."""
        return n

    def ready_in(self, limit: Limit, n: int = 1, *, leave: float = 0.0) -> float:
        """Tell that it is now."""
        return 0.0

    def throttled(self, limit: Limit) -> None:
        """EC2 says so itself."""
