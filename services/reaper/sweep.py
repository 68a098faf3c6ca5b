"""The reaper's sweep: EC2's listing against the books, from which everything else follows.

Promise: what messages, machines or other daemons failed to tell is found here. The listing is read
first, the books after it; every thing is as old as it was at the listing. One reaper sweeps at a
time, to save calls: nothing breaks when two do.
Failure: nothing is concluded from what could not be asked; the next sweep looks again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from atemporal import waiting
from atemporal.audit import SHARED_NAME
from atemporal.cloud import Instance
from atemporal.cloud.instance import DEPLOYMENT_TAG, INSTALLATION_TAG
from atemporal.errors import AtemporalError
from atemporal.model import Attempt, AttemptRef
from atemporal.states import JobState
from atemporal.store import attempts, counts, installation, jobs
from atemporal.store.database import Database, server_time
from atemporal.store.rows import left_out
from atemporal.telemetry import (
    FOREIGN_INSTANCES,
    LAST_SWEEP,
    LEAKED_INSTANCES,
    LISTING_EMPTY,
    LONGEST_WAIT,
    ORPHANED_INSTANCES,
    WAITING,
    log_context,
)
from atemporal.waiting import Phase
from services.reaper.judgement import (
    Absence,
    Findings,
    Limits,
    apart,
    blind,
    judge,
    missing,
)
from services.reaper.reaper import ACTOR, SWEEP, Reaper


class SweepLoop:
    """Compares the cloud with the books."""

    name = SWEEP

    def __init__(
        self, reaper: Reaper, database: Database, *, limits: Limits, interval_s: float
    ) -> None:
        """Take the steps; the first sweep is at once."""
        self._reaper = reaper
        self._database = database
        self._limits = limits
        self._interval_s = interval_s
        self._unknown: set[str] = set()
        self._missing: set[AttemptRef] = set()
        self._blind = False

    def tick(self) -> float:
        """Sweep once, unless another reaper does."""
        with self._database.only_one("reaper sweep") as mine:
            if mine:
                self._sweep()
                LAST_SWEEP.set_to_current_time()
        return self._interval_s

    def reset(self) -> None:
        """Forget the marks: an instance must be unknown, or missing, in two sweeps in a row."""
        self._unknown = set()
        self._missing = set()

    def _sweep(self) -> None:
        with self._database.begin() as tx:
            # Before the listing: a thing is as old as it was when the cloud did not show it, however
            # long this process was stopped since.
            now = server_time(tx)
        listed = self._reaper.cloud.all()
        with self._database.begin() as tx:
            books = {one.ref: one for one in attempts.still_open(tx)}
            named = [one.ref for one in listed if one.ref and one.ref not in books]
            books.update(attempts.many(tx, named))
            # No attempt accounts for these as far as this release can tell; the books do all the same.
            listed = [one for one in listed if not left_out(tx, one.ref)]
            timeouts = attempts.timeouts(tx)
            us = installation.identity(tx)
        instances, others = apart(listed, books, us)
        self._report_others(others)
        missed = missing(instances, books, now=now, limits=self._limits)
        no_sight = blind(instances, books, missed)
        LISTING_EMPTY.set(no_sight)
        if no_sight:
            self._reaper.log.error(
                "EC2's listing shows not one instance of the books: nothing is concluded from that;"
                " check the region, the deployment's name and the credentials",
                missing=len(missed),
            )
        # A blind look counts for none, also when sight is back.
        twice = set() if no_sight or self._blind else missed & self._missing
        findings = judge(
            instances,
            books,
            timeouts=timeouts,
            now=now,
            limits=self._limits,
            # What this listing shows may be another deployment's.
            unknown_before=set() if no_sight else self._unknown,
            absence=self._absence(books, missed, twice),
            gone_before=self._reaper.gone_since,
        )
        self._unknown = set() if no_sight else findings.unknown
        self._missing, self._blind = missed, no_sight
        self._reaper.gone_since = findings.gone_since
        self._reaper.act(findings, books, instances, self._limits)
        with self._database.begin() as tx:
            expired = jobs.expire_queued(tx, deadline_s=self._limits.queue_s, actor=ACTOR)
            queued = counts.oldest_waiting(tx)
        for ref in expired:
            self._reaper.log.error("waited too long for a launcher", **log_context(ref))
        self._report(books.values(), queued, findings, now)

    def _report_others(self, others: Iterable[Instance]) -> None:
        """Show what another installation has under our deployment's name."""
        alive = [one for one in others if not one.gone]
        FOREIGN_INSTANCES.set(len(alive))
        if alive:
            self._reaper.log.error(
                f"left alone: {SHARED_NAME}",
                many=len(alive),
                instance=alive[0].id,
                deployment=alive[0].tags.get(DEPLOYMENT_TAG),
                installation=alive[0].tags.get(INSTALLATION_TAG),
            )

    def _absence(
        self,
        books: Mapping[AttemptRef, Attempt],
        missed: set[AttemptRef],
        twice: Collection[AttemptRef],
    ) -> Absence:
        """Ask for what is missing by its id: the listing goes by tags. `twice` may be proven."""
        ids = {ref: id_ for ref in missed if (id_ := books[ref].instance_id)}
        log = self._reaper.log
        try:
            strays = self._reaper.cloud.describe(ids.values(), tagged=False) if ids else {}
        except AtemporalError as error:
            log.warning("missing instances not looked up", error=str(error), missing=len(ids))
            return Absence(unasked=missed)
        for ref, instance_id in ids.items():
            if instance_id in strays:
                log.error(
                    "its instance is there, but not in the listing: it has lost its tags",
                    state=strays[instance_id].state,
                    **log_context(ref, instance_id),
                )
        unknown = {ref for ref in missed if ids.get(ref) not in strays}
        return Absence(unknown & set(twice), strays, unknown)

    def _report(
        self,
        books: Iterable[Attempt],
        queued: Mapping[JobState, tuple[int, float]],
        findings: Findings,
        now: datetime,
    ) -> None:
        """Show as gauges what is waited for, since when, and what should not be."""
        waits: dict[Phase, list[float]] = {phase: [] for phase in Phase}
        for attempt in books:
            if found := waiting.of_attempt(attempt):
                waits[found.phase].append((now - found.since).total_seconds())
        for phase, ages in waits.items():
            WAITING.labels(phase).set(len(ages))
            LONGEST_WAIT.labels(phase).set(max(ages, default=0.0))
        for state, phase in ((JobState.SCHEDULED, Phase.TIME), (JobState.QUEUED, Phase.QUEUED)):
            count, oldest_s = queued.get(state, (0, 0.0))
            WAITING.labels(phase).set(count)
            LONGEST_WAIT.labels(phase).set(oldest_s)
        ORPHANED_INSTANCES.set(len(findings.unknown))
        LEAKED_INSTANCES.set(len(findings.overstaying))
        for ref in findings.overstaying:
            self._reaper.log.error("its instance does not end", **log_context(ref))
