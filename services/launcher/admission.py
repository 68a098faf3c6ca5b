"""What EC2 lets this process do now: whether it may call at all, how often, and for which offerings.

Promise: what one call's outcome means for the calls of all attempts is learned in one place, `learn`.
Mechanism: a circuit breaker for missing rights, the rate limits that all processes share, cooldowns of
offerings; beside these, what the database knows of shortages and of spot interruptions.
Failure: all but the database's part is in this process's memory. A process that starts again learns it
anew for a few refused calls. Without the database nothing may be called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Event

from atemporal.cloud import (
    CloudError,
    Forbidden,
    Instance,
    NoCapacity,
    OverQuota,
    Throttled,
    TooMany,
    Unauthorized,
    Unreachable,
)
from atemporal.errors import Unknown
from atemporal.identity.trusted import group_size
from atemporal.limits import Limit
from atemporal.metrics import Aggregate, gauge
from atemporal.rate_limits import RateLimits
from atemporal.settings import Settings
from atemporal.store import launches
from atemporal.store.database import Database
from atemporal.telemetry import logger
from services.launcher.availability import Availability, Unavailable, in_shortage
from services.launcher.call_sizes import CallSizes
from services.launcher.circuit_breaker import CircuitBreaker
from services.launcher.offerings import Offering
from services.launcher.spot_breaker import SpotBreaker

OFFERINGS_UNAVAILABLE = gauge(
    "atemporal_offerings_unavailable",
    "Offerings in cooldown: no capacity, no quota, or not authorized.",
    aggregate=Aggregate.MAX,
)
CIRCUIT_BREAKER_OPEN = gauge(
    "atemporal_launch_circuit_breaker_open",
    "1 while the circuit breaker is open: EC2 refuses all calls of this process.",
    aggregate=Aggregate.MAX,
)


class Admission:
    """What one process has learned of EC2; safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        """Begin without any bad news. `rng` gives numbers in [0, 1) for jitter."""
        self._database = database
        self._capacity_s = settings.capacity_cooldown_s
        self._quota_s = settings.quota_cooldown_s
        self._group_size = group_size(settings)
        self._log = logger("launcher")
        self.circuit_breaker = CircuitBreaker(clock=clock, rng=rng)
        self._limits = RateLimits(settings, database)
        self.availability = Availability(
            capacity_s=self._capacity_s, quota_s=self._quota_s, clock=clock
        )
        self.call_sizes = CallSizes(clock=clock)
        self._spot_breaker = SpotBreaker(
            interruptions=settings.spot_interruptions,
            window_s=settings.spot_window_s,
            pause_s=settings.spot_pause_s,
        )
        self.backlog = Event()
        """Set while more is to be asked for than there are tokens: it comes before new messages."""

    def room(self, most: int) -> int:
        """How many attempts, `most` at most, may be asked for now; one while the breaker is open.

        They may be so many as the calls that may be made now could ask for if they are alike.

        Raises:
            Unavailable: the database can not be asked.
        """
        if self.circuit_breaker.ready_in() > 0:
            return 0
        most = 1 if self.circuit_breaker.is_open else most
        return self._limits.room(Limit.RUN_INSTANCES, most, per_call=self._group_size)

    def calls(self, most: int) -> int:
        """How many calls, `most` at most, may be made now.

        Raises:
            Unavailable: the database can not be asked.
        """
        return self._limits.room(Limit.RUN_INSTANCES, most)

    def ready_in(self) -> float:
        """Seconds until a call may be made at all.

        Raises:
            Unavailable: the database can not be asked.
        """
        return max(self.rate_limit_s(), self.circuit_breaker.ready_in())

    def rate_limit_s(self, instances: int = 1) -> float:
        """Seconds until EC2's limits allow the next call for so many instances, or for fewer.

        Raises:
            Unavailable: the database can not be asked.
        """
        return self._limits.ready_in(Limit.RUN_INSTANCES, instances)

    def take(self, instances: int = 1) -> int:
        """Take what one call for so many instances needs; returns for how many it may be.

        0: no call may be made now. Who gets fewer than it wanted has a place among all processes.

        Raises:
            Unavailable: the database can not be asked.
        """
        granted = self._limits.take(Limit.RUN_INSTANCES, instances)
        if granted < instances:
            self.backlog.set()
        return granted

    def largest(self, offerings: Sequence[Offering]) -> int:
        """For how many instances one call may be: of the first of the offerings that is available.

        It is one after a call for many was refused, and doubles with each call that launches as many.
        """
        available = (one for one in offerings if self.availability.of(one) is None)
        first = next(available, offerings[0])
        return self.call_sizes.largest(first, self._group_size)

    def unavailable(self, offerings: Collection[Offering]) -> Mapping[Offering, Unavailable]:
        """Those of the offerings that are not to be asked for now."""
        interruptions = []
        with self._database.begin() as tx:
            shortages = launches.shortages(tx, within_s=max(self._capacity_s, self._quota_s))
            if any(one.capacity_type == "spot" for one in offerings):
                within_s = self._spot_breaker.memory_s
                interruptions = launches.spot_interruptions(tx, within_s=within_s)
        return self.availability.unavailable(
            offerings,
            shortages=in_shortage(shortages, capacity_s=self._capacity_s, quota_s=self._quota_s),
            interrupted=self._spot_breaker.interrupted(interruptions),
        )

    def may_ask_elsewhere(self, offering: Offering, offerings: Collection[Offering]) -> bool:
        """Whether it may be this offering alone that a policy forbids, and not the whole process.

        So it is while its job has another that was not refused, or while we were lately allowed to
        ask for another. What one job wants must not stop the others, whose offerings are allowed.
        """
        untried = any(
            other != offering and self.availability.of(other) is None for other in offerings
        )
        return untried or self.availability.authorized_elsewhere(offering)

    def learn(
        self,
        offering: Offering,
        outcome: Instance | CloudError,
        *,
        may_ask_elsewhere: bool,
        size: int = 1,
    ) -> None:
        """Note what the outcome of one call means for the calls of all attempts.

        `size` is how many instances it was for. A quota that has no room for many may have room for one.
        """
        if isinstance(outcome, Instance):
            self.call_sizes.launched(offering, size)
        match outcome:
            case Forbidden() if may_ask_elsewhere:
                self.circuit_breaker.inconclusive()
                self.availability.forbidden(offering, outcome.detail)
            case Unauthorized():
                self.unauthorized(outcome)
            case Throttled():
                self.circuit_breaker.inconclusive()
            case Unknown() | Unreachable():
                self.circuit_breaker.inconclusive()
            case _:
                self.availability.authorized(offering)
                if self.circuit_breaker.close():
                    self.availability.reset()
                    self._log.info("EC2 takes calls of this process again")
        match outcome:
            case NoCapacity():
                self.availability.no_capacity(offering, outcome.detail)
            case OverQuota() | TooMany() if size == 1:
                self.availability.over_quota(offering, outcome.detail)

    def unauthorized(self, error: Unauthorized) -> None:
        """Note that EC2 refuses this process altogether, or its settings name a wrong image."""
        if self.circuit_breaker.open(error.detail):
            self._log.error("launches wait: nothing can be launched", error=str(error))
        CIRCUIT_BREAKER_OPEN.set(1)

    def report(self) -> None:
        """Set the gauges."""
        OFFERINGS_UNAVAILABLE.set(self.availability.count())
        CIRCUIT_BREAKER_OPEN.set(1 if self.circuit_breaker.is_open else 0)
