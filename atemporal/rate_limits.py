"""How many calls to EC2 may be made now, over all processes of the installation.

Promise: as `store.rate_limits`; a process that can not ask the database makes no call. A take for more
than one instance leaves a second's worth of instances, and a launch of more than one a call, to whoever
wants little: a single launch or a retry does not starve behind a burst.
Failure: without the database every take is `Unavailable`.
"""

from __future__ import annotations

from uuid import uuid4

from atemporal.limits import Limit
from atemporal.metrics import Aggregate, counter, gauge
from atemporal.settings import Settings
from atemporal.store import rate_limits
from atemporal.store.database import Database
from atemporal.store.rate_limits import Bucket, Grant, Size, Want

TOKENS = gauge(
    "atemporal_rate_limit_tokens",
    "Tokens that a limit of EC2 had for all processes, when this one last asked, by its bucket.",
    aggregate=Aggregate.MIN,
    kind=Limit,
    bucket=["requests", "instances"],
)
RATE = gauge(
    "atemporal_rate_limit_tokens_per_second",
    "How fast a limit's buckets refill; less than is set after EC2 has throttled.",
    aggregate=Aggregate.MIN,
    kind=Limit,
    bucket=["requests", "instances"],
)
CALLS = counter(
    "atemporal_ec2_calls_total", "Calls to EC2 that this process took tokens for.", kind=Limit
)
REFUSED = counter(
    "atemporal_ec2_calls_refused_total", "Calls that EC2 refused as too many.", kind=Limit
)


class RateLimits:
    """One process's hand in the limits that all share; safe to share between threads.

    `taker` is who asks, as fairness counts: a process.
    """

    def __init__(self, settings: Settings, database: Database, *, taker: str = "") -> None:
        """Take the sizes from the settings; nothing is asked yet."""
        self._database = database
        self._taker = taker or uuid4().hex
        self._sizes = sizes(settings)

    def take(self, limit: Limit, n: int = 1, *, at_least: int = 1, leave: float = 0.0) -> int:
        """Take what one call needs; returns for how many of `n` instances it may be, 0: no call.

        Of a limit that counts calls only, `n` is the number of calls. `leave` is the part of the bucket,
        0 to 1, that is left to others.

        Raises:
            Unavailable: the database can not be asked; no call may be made.
        """
        size = self._sizes[limit]
        want = self._want(limit, n, at_least, leave)
        with self._database.each() as connection:
            grant = rate_limits.take(connection, limit, size, want)
        self._show(limit, grant)
        if grant.granted:
            CALLS.labels(limit).inc(1 if size.instances else grant.granted)
        return grant.granted

    def room(self, limit: Limit, most: int, *, per_call: int = 1) -> int:
        """How many instances, `most` at most, could be asked for now by calls for `per_call` each.

        Raises:
            Unavailable: the database can not be asked.
        """
        grant = self._peek(limit, self._want(limit, 1, 1, 0.0))
        if not grant.granted:
            return 0
        tokens = [grant.requests * per_call]
        if self._sizes[limit].instances:
            tokens.append(grant.instances)
        return max(1, min(most, int(min(tokens) + 1e-6)))

    def ready_in(self, limit: Limit, n: int = 1, *, leave: float = 0.0) -> float:
        """Seconds until `take` of the same grants something.

        Raises:
            Unavailable: the database can not be asked.
        """
        grant = self._peek(limit, self._want(limit, n, 1, leave))
        return 0.0 if grant.granted else grant.ready_s

    def pace(self, limit: Limit) -> float:
        """The part of the full rate at which the limit's buckets refill now.

        Raises:
            Unavailable: the database can not be asked.
        """
        return self._peek(limit, self._want(limit, 1, 1, 0.0)).pace

    def throttled(self, limit: Limit) -> None:
        """EC2 refused a call as one too many: all processes pause, and go on at half the pace.

        Raises:
            Unavailable: the database can not be told.
        """
        REFUSED.labels(limit).inc()
        with self._database.each() as connection:
            rate_limits.throttled(connection, limit, self._sizes[limit])

    def _peek(self, limit: Limit, want: Want) -> Grant:
        with self._database.each() as connection:
            grant = rate_limits.peek(connection, limit, self._sizes[limit], want)
        self._show(limit, grant)
        return grant

    def _want(self, limit: Limit, n: int, at_least: int, leave: float) -> Want:
        size = self._sizes[limit]
        calls, instances = size.requests.burst * leave, 0.0
        if size.instances:
            instances = size.instances.burst * leave
            if n > 1:
                instances = max(instances, min(size.instances.rate, size.instances.burst / 2))
                if limit is Limit.RUN_INSTANCES:
                    calls = max(calls, min(1.0, size.requests.burst / 2))
        # A full bucket has to be enough, or nothing could ever be taken.
        least = max(1, min(at_least, n))
        calls = _leave(calls, size.requests, 1 if size.instances else least)
        if size.instances:
            instances = _leave(instances, size.instances, least)
        return Want(self._taker, n, at_least, calls, instances)

    def _show(self, limit: Limit, grant: Grant) -> None:
        size = self._sizes[limit]
        buckets = [("requests", size.requests, grant.requests)]
        if size.instances:
            buckets.append(("instances", size.instances, grant.instances))
        for name, bucket, tokens in buckets:
            TOKENS.labels(limit, name).set(tokens)
            RATE.labels(limit, name).set(bucket.rate * grant.pace)


def _leave(tokens: float, bucket: Bucket, least: int) -> float:
    """What is left of a bucket to others, where `least` must be obtainable."""
    return max(0.0, min(tokens, bucket.burst - least))


def sizes(settings: Settings) -> dict[Limit, Size]:
    """The buckets of each limit, as they are set."""
    return {
        Limit.RUN_INSTANCES: Size(
            Bucket(settings.run_instances_burst, settings.run_instances_rate),
            Bucket(settings.instances_burst, settings.instances_rate),
        ),
        Limit.TERMINATE_INSTANCES: Size(
            Bucket(settings.terminate_instances_burst, settings.terminate_instances_rate),
            Bucket(settings.terminated_burst, settings.terminated_rate),
        ),
        Limit.DESCRIBE: Size(Bucket(settings.describe_burst, settings.describe_rate)),
        Limit.GET_CONSOLE_OUTPUT: Size(Bucket(settings.console_burst, settings.console_rate)),
        Limit.CREATE_TAGS: Size(Bucket(settings.create_tags_burst, settings.create_tags_rate)),
        Limit.DELETE_VOLUME: Size(
            Bucket(settings.delete_volume_burst, settings.delete_volume_rate)
        ),
    }
