"""Who of several reapers sweeps, so that EC2 is asked once whatever their number.

Promise: of one kind of sweep there is one at a time, and one an interval: the reaper that swept last
goes on, the others take over when it has missed its time twice, or when its sweep failed. Nothing
breaks when two sweep.
Mechanism: a lease in the database says whose it is; a lock that dies with its session keeps two from
sweeping at once when a sweep takes longer than the lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from atemporal.errors import Unavailable
from atemporal.store import sweep_leases
from atemporal.store.database import Database

MISSED = 2.5


class OneSweeper:
    """One reaper's part in one kind of sweep; without a `holder` it has no lease, only the lock."""

    def __init__(
        self, database: Database, name: str, *, interval_s: float, holder: str = ""
    ) -> None:
        """Take the name of the sweep and how often it is due; nothing is asked yet."""
        self._database = database
        self._name = name
        self._for_s = MISSED * interval_s
        self._holder = holder

    @contextmanager
    def mine(self) -> Iterator[bool]:
        """Yield whether this reaper is the one that sweeps now.

        Raises:
            Unavailable: the database can not be asked, or the lock was lost meanwhile.
        """
        if self._holder:
            with self._database.each() as connection:
                held = sweep_leases.hold(
                    connection, self._name, holder=self._holder, for_s=self._for_s
                )
            if not held:
                yield False
                return
        with self._database.only_one(self._name) as mine:
            yield mine

    def give_up(self) -> None:
        """Let another reaper try what failed here."""
        if self._holder:
            try:
                with self._database.each() as connection:
                    sweep_leases.give_up(connection, self._name, holder=self._holder)
            except Unavailable:
                # Then the lease ends by itself.
                return
