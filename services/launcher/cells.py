"""Which cells are not worth asking now: those that had no room, and spot pools that interrupt.

Promise: a cell that was refused for want of capacity is left alone by all attempts of this process
for a while; a refusal for the account's quota closes the type in that market, in every zone, because
quotas hold for the region; what the breaker says of a spot pool closes its spot cell only; a cell
that a policy forbids is closed while others are open to us, so one job's wish stops no other job.
Mechanism: cooling is in memory. A refusal speaks of EC2's stock at that moment, not of our books:
who restarts, or runs beside us, learns it again for one refused call a cell, and nothing that is
counted, promised or paid for depends on it. Interruptions are our own history and come from the
books, so a restart does not send the next job into a pool that has just thrown out the last two; so
do the instances that EC2 granted and then had no room for, which only the reaper has seen.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from atemporal.end_code import SHORTAGES
from atemporal.states import BlockedReason
from atemporal.store.launches import Interruption, Shortage
from services.launcher.candidates import Cell
from services.launcher.circuit import pause_s

ADMITTED_S = 600.0
"""How long an answer that was no refusal of rights shows that we have some."""

Pool = tuple[str, str | None]
"""A spot pool: an instance type in a subnet."""


@dataclass(frozen=True)
class Closed:
    """A cell is not asked for `for_s` more seconds; `why` is EC2's or the breaker's word."""

    for_s: float
    wait: BlockedReason
    why: str


class Cells:
    """The cells this process has found empty; safe to share between threads."""

    def __init__(self, *, capacity_s: float, quota_s: float, clock: Callable[[], float]) -> None:
        """Remember a lack of capacity for `capacity_s` seconds, a full quota for `quota_s`."""
        self._capacity_s = capacity_s
        self._quota_s = quota_s
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[Cell, tuple[float, BlockedReason, str]] = {}
        self._admitted: dict[Cell, float] = {}
        self._refusals: Counter[Cell] = Counter()

    def no_capacity(self, cell: Cell, why: str) -> None:
        """Note that EC2 had nothing there."""
        self._close(cell, self._capacity_s, BlockedReason.CAPACITY, why)

    def over_quota(self, cell: Cell, why: str) -> None:
        """Note that the account may have no more of this type in this market, in any zone."""
        self._close(_everywhere(cell), self._quota_s, BlockedReason.QUOTA, why)

    def forbidden(self, cell: Cell, why: str) -> None:
        """Note that we may not ask there, though elsewhere we may; each time in a row for longer."""
        with self._lock:
            self._admitted.pop(cell, None)
            self._refusals[cell] += 1
            refusals = self._refusals[cell]
        self._close(cell, pause_s(refusals), BlockedReason.AUTHORIZATION, why)

    def admitted(self, cell: Cell) -> None:
        """Note that EC2 let us in there, whatever else it answered."""
        with self._lock:
            self._admitted[cell] = self._clock()
            del self._refusals[cell]

    def admitted_elsewhere(self, cell: Cell) -> bool:
        """Whether EC2 has lately let us in at another cell."""
        since = self._clock() - ADMITTED_S
        with self._lock:
            return any(at > since for other, at in self._admitted.items() if other != cell)

    def pardon(self) -> None:
        """EC2 lets us in again: what was forbidden may be allowed as well."""
        with self._lock:
            self._until = {
                cell: closed
                for cell, closed in self._until.items()
                if closed[1] is not BlockedReason.AUTHORIZATION
            }

    def closed(self, cell: Cell) -> Closed | None:
        """Why and for how long the cell is not to be asked; None when it may be."""
        now = self._clock()
        with self._lock:
            # The quota first: it is the answer that a person can do something about.
            for key in (_everywhere(cell), cell):
                until, wait, why = self._until.get(key, (now, BlockedReason.CAPACITY, ""))
                if until > now:
                    return Closed(until - now, wait, why)
        return None

    def count(self) -> int:
        """How many are closed now."""
        now = self._clock()
        with self._lock:
            for cell in [cell for cell, (until, _, _) in self._until.items() if until <= now]:
                del self._until[cell]
            return len(self._until)

    def _close(self, cell: Cell, seconds: float, wait: BlockedReason, why: str) -> None:
        with self._lock:
            self._until[cell] = (self._clock() + seconds, wait, why)


@dataclass(frozen=True)
class Breaker:
    """Leave a spot pool alone for `pause_s` after `interruptions` within `window_s` seconds."""

    interruptions: int
    window_s: float
    pause_s: float

    @property
    def memory_s(self) -> float:
        """How far back an interruption can still matter."""
        return self.window_s + self.pause_s

    def broken(self, happened: Iterable[Interruption]) -> Mapping[Pool, Closed]:
        """The pools to leave alone, by what happened in the last `memory_s` seconds."""
        ages: dict[Pool, list[float]] = defaultdict(list)
        for one in happened:
            ages[one.instance_type, one.subnet_id].append(one.age_s)
        broken = {}
        for pool, of_pool in ages.items():
            of_pool.sort(reverse=True)
            for first, last in zip(of_pool, of_pool[self.interruptions - 1 :], strict=False):
                if first - last <= self.window_s and last < self.pause_s:
                    why = f"its spot pool interrupted {self.interruptions} of our instances"
                    broken[pool] = Closed(self.pause_s - last, BlockedReason.INTERRUPTIONS, why)
        return broken


def short(
    happened: Iterable[Shortage], *, capacity_s: float, quota_s: float
) -> Mapping[Cell, Closed]:
    """The cells that are empty by our own books; those over the account's quota in any zone."""
    closed: dict[Cell, Closed] = {}
    for one in happened:
        cell = Cell(one.instance_type, one.subnet_id, one.capacity_type)
        wait = SHORTAGES.get(one.end_code or "", BlockedReason.CAPACITY)
        for_s = capacity_s
        if wait is BlockedReason.QUOTA:
            cell, for_s = _everywhere(cell), quota_s
        if one.age_s < for_s:
            # The newest of a cell comes first.
            closed.setdefault(cell, Closed(for_s - one.age_s, wait, one.end_code or ""))
    return closed


def closures(
    cells: Iterable[Cell],
    cooling: Cells,
    broken: Mapping[Pool, Closed],
    shortages: Mapping[Cell, Closed],
) -> dict[Cell, Closed]:
    """Those of the cells that are not to be asked now."""
    closed = {}
    for cell in cells:
        pool = (cell.instance_type, cell.subnet_id)
        interrupts = broken.get(pool) if cell.capacity_type == "spot" else None
        empty = shortages.get(_everywhere(cell)) or shortages.get(cell)
        why = cooling.closed(cell) or empty or interrupts
        if why:
            closed[cell] = why
    return closed


def summary(closed: Mapping[Cell, Closed]) -> Closed:
    """One answer for an attempt all of whose cells are closed: until the first of them opens.

    The kind is the gravest among them, so that it does not change with every cell that opens.
    """
    cell, gravest = min(closed.items(), key=lambda item: item[1].wait.gravity)
    return Closed(
        for_s=min(one.for_s for one in closed.values()),
        wait=gravest.wait,
        why=f"none of {len(closed)} candidates may be asked now; {cell}: {gravest.why}",
    )


def _everywhere(cell: Cell) -> Cell:
    return cell._replace(subnet_id="*")
