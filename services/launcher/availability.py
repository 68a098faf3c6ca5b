"""Which offerings are unavailable now: those that were refused lately, and those that our records speak
against.

Promise: an offering that was refused for want of capacity is left alone by all attempts of this process
for a cooldown. A refusal for the account's quota makes the instance type unavailable in every subnet,
for its capacity type, because quotas hold for the region. An offering that a policy forbids is
unavailable while others are allowed, so one job's wish stops no other job.
Mechanism: cooldowns are in memory. A refusal speaks of EC2's stock at that moment, not of our records.
A process that restarts, or runs beside us, learns it again for one refused call an offering; nothing
that is counted, promised or paid for depends on it. Shortages (an instance was granted, and EC2 had no
room for it after all) and spot interruptions are seen by the reaper alone, so they come from the
database, and a restart does not forget them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from atemporal.end_code import SHORTAGES
from atemporal.states import BlockedReason
from atemporal.store.launches import Shortage
from services.launcher.circuit_breaker import pause_s
from services.launcher.offerings import Offering

AUTHORIZED_S = 600.0
"""How long an answer that was no refusal of rights shows that we have some."""


@dataclass(frozen=True)
class Unavailable:
    """An offering is not to be asked for `for_s` more seconds; `detail` says why, to people."""

    for_s: float
    blocked_on: BlockedReason
    detail: str


class Availability:
    """The offerings this process has been refused; safe to share between threads."""

    def __init__(self, *, capacity_s: float, quota_s: float, clock: Callable[[], float]) -> None:
        """Remember a lack of capacity for `capacity_s` seconds, a full quota for `quota_s`."""
        self._capacity_s = capacity_s
        self._quota_s = quota_s
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[Offering, tuple[float, BlockedReason, str]] = {}
        self._authorized: dict[Offering, float] = {}
        self._refusals: Counter[Offering] = Counter()

    def no_capacity(self, offering: Offering, detail: str) -> None:
        """Note that EC2 had none of it."""
        with self._lock:
            self._cool(offering, self._capacity_s, BlockedReason.CAPACITY, detail)

    def over_quota(self, offering: Offering, detail: str) -> None:
        """Note that the account may have no more of its type and capacity type, in any subnet."""
        with self._lock:
            self._cool(_everywhere(offering), self._quota_s, BlockedReason.QUOTA, detail)

    def forbidden(self, offering: Offering, detail: str) -> None:
        """Note that we may not ask for it, though for others we may; each time in a row longer."""
        with self._lock:
            self._authorized.pop(offering, None)
            self._refusals[offering] += 1
            seconds = pause_s(self._refusals[offering])
            self._cool(offering, seconds, BlockedReason.AUTHORIZATION, detail)

    def authorized(self, offering: Offering) -> None:
        """Note that we may ask for it, whatever else EC2 answered."""
        with self._lock:
            self._authorized[offering] = self._clock()
            del self._refusals[offering]

    def authorized_elsewhere(self, offering: Offering) -> bool:
        """Whether we were lately allowed to ask for another offering."""
        since = self._clock() - AUTHORIZED_S
        with self._lock:
            return any(at > since for other, at in self._authorized.items() if other != offering)

    def reset(self) -> None:
        """EC2 takes calls of this process again: what was forbidden may be allowed as well."""
        with self._lock:
            self._until = {
                offering: known
                for offering, known in self._until.items()
                if known[1] is not BlockedReason.AUTHORIZATION
            }

    def of(self, offering: Offering) -> Unavailable | None:
        """Why and for how long the offering is in cooldown; None when it is not."""
        now = self._clock()
        with self._lock:
            # The quota first: it is the answer that a person can do something about.
            for key in (_everywhere(offering), offering):
                until, reason, detail = self._until.get(key, (now, BlockedReason.CAPACITY, ""))
                if until > now:
                    return Unavailable(until - now, reason, detail)
        return None

    def unavailable(
        self,
        offerings: Iterable[Offering],
        *,
        shortages: Mapping[Offering, Unavailable],
        interrupted: Mapping[Offering, Unavailable],
    ) -> dict[Offering, Unavailable]:
        """Those of the offerings that are not to be asked for now, by memory and by the records."""
        found = {}
        for offering in offerings:
            short = shortages.get(_everywhere(offering)) or shortages.get(offering)
            why = self.of(offering) or short or interrupted.get(offering)
            if why:
                found[offering] = why
        return found

    def count(self) -> int:
        """How many are in cooldown now."""
        now = self._clock()
        with self._lock:
            over = [offering for offering, (until, _, _) in self._until.items() if until <= now]
            for offering in over:
                del self._until[offering]
            return len(self._until)

    def _cool(
        self, offering: Offering, seconds: float, reason: BlockedReason, detail: str
    ) -> None:
        self._until[offering] = (self._clock() + seconds, reason, detail)


def in_shortage(
    happened: Iterable[Shortage], *, capacity_s: float, quota_s: float
) -> Mapping[Offering, Unavailable]:
    """The offerings that are out of stock by our records; those over the quota in every subnet.

    `happened` has the newest first.
    """
    found: dict[Offering, Unavailable] = {}
    for one in happened:
        offering = Offering(one.instance_type, one.subnet_id, one.capacity_type)
        reason = SHORTAGES.get(one.end_code or "", BlockedReason.CAPACITY)
        for_s = capacity_s
        if reason is BlockedReason.QUOTA:
            offering, for_s = _everywhere(offering), quota_s
        if one.age_s < for_s:
            found.setdefault(offering, Unavailable(for_s - one.age_s, reason, one.end_code or ""))
    return found


def summary(unavailable: Mapping[Offering, Unavailable]) -> Unavailable:
    """One answer for an attempt all of whose offerings are unavailable: until the first is not.

    The reason is the gravest among them, so that it does not change with every cooldown that ends.
    """
    offering, gravest = min(unavailable.items(), key=lambda item: item[1].blocked_on.gravity)
    many = len(unavailable)
    return Unavailable(
        for_s=min(one.for_s for one in unavailable.values()),
        blocked_on=gravest.blocked_on,
        detail=f"none of {many} offerings is available now; {offering}: {gravest.detail}",
    )


def _everywhere(offering: Offering) -> Offering:
    return offering._replace(subnet_id="*")
