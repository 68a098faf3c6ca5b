"""What the reaper does: its steps, the message loop and the sweep.

Promise: no instance outlives its attempt by more than a message's way, or a sweep when the message
was lost; an attempt whose machine died silently is ended with what its console says, or as lost; an
attempt is closed only when EC2 shows its instance gone.
Mechanism: messages name ended attempts, whose instances are terminated in batches. The sweep lists
the cloud first and reads the books after it, so whatever is in the listing was committed before;
`judgement` compares the two. One reaper sweeps at a time; terminating twice does no harm.
Failure: what EC2 refuses now the next sweep asks again; a batch with one bad id ends the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from atemporal import waiting
from atemporal.broker import REAP, Link
from atemporal.cloud import Cloud, Instance
from atemporal.console import exit_record
from atemporal.errors import Invalid
from atemporal.inbox import Inbox
from atemporal.messages import InstanceRunning, JobDue, decode_wake
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.states import AttemptState, JobState, Reason
from atemporal.store import attempts, counts, jobs
from atemporal.store.database import Database, server_time
from atemporal.telemetry import (
    ENDED,
    LONGEST_WAIT,
    OVERSTAYING,
    TERMINATIONS,
    UNKNOWN_INSTANCES,
    WAITING,
    about,
    logger,
)
from atemporal.waiting import Phase
from services.reaper.judgement import Findings, Limits, judge

ACTOR = "reaper"
BATCH = 100
# How EC2's codes begin for a spot instance that it has taken back.
_SPOT = "Server.SpotInstance"


class Reaper:
    """The steps, shared by message loop and sweep."""

    def __init__(self, database: Database, cloud: Cloud) -> None:
        """Take what it needs; nothing is called yet."""
        self._database = database
        self.cloud = cloud
        self.log = logger(ACTOR)

    def ping(self) -> None:
        """Ask whether the database is there.

        Raises:
            Unavailable: it does not answer.
        """
        self._database.ping()

    def terminate(self, why: dict[str, str]) -> None:
        """Ask EC2 to end these instances; failures are logged, the sweep asks again."""
        if not why:
            return
        failures = self.cloud.terminate(list(why))
        for instance_id, cause in why.items():
            error = failures.get(instance_id)
            TERMINATIONS.labels(cause.split(" i-")[0], "failed" if error else "asked").inc()
            if error:
                self.log.warning("not terminated", instance=instance_id, error=str(error))
            else:
                self.log.info("terminated", instance=instance_id, why=cause)

    def note_addresses(self, refs: Iterable[AttemptRef]) -> None:
        """Write down where running instances can be reached."""
        with self._database.begin() as tx:
            known = attempts.many(tx, list(refs))
        ids = {one.instance_id: ref for ref, one in known.items() if one.instance_id}
        instances = self.cloud.describe(list(ids)) if ids else {}
        with self._database.begin() as tx:
            for instance_id, instance in instances.items():
                attempts.set_address(tx, ids[instance_id], instance.public_dns, instance.public_ip)

    def end_instances_of(self, refs: Iterable[AttemptRef]) -> None:
        """Terminate the instances of attempts that have ended.

        An instance's id can come from a machine's claim. So EC2 is asked first whether it carries
        our tag; one that EC2 does not show yet is left to the sweep.
        """
        with self._database.begin() as tx:
            known = attempts.many(tx, list(refs))
        ids = [
            one.instance_id
            for one in known.values()
            if one.instance_id and one.state is AttemptState.EXITED
        ]
        ours = self.cloud.describe(ids).values() if ids else ()
        self.terminate({one.id: "its attempt has ended" for one in ours if not one.gone})

    def look(self, refs: Sequence[AttemptRef], limits: Limits) -> None:
        """Judge some attempts now, as the sweep would."""
        with self._database.begin() as tx:
            named = attempts.many(tx, refs)
            now = server_time(tx)
        ids = [one.instance_id for one in named.values() if one.instance_id]
        instances = list(self.cloud.describe(ids).values())
        with self._database.begin() as tx:
            books = attempts.many(tx, refs)
            timeouts = attempts.timeouts(tx)
        findings = judge(
            instances, books, timeouts=timeouts, now=now, limits=limits, unknown_before=set()
        )
        self.act(findings, books, instances)

    def act(
        self,
        findings: Findings,
        books: Mapping[AttemptRef, Attempt],
        listed: Iterable[Instance],
    ) -> None:
        """Do what the judgement of `listed` and `books` asks for."""
        for ref, instance in findings.adopt.items():
            with self._database.begin() as tx:
                attempts.launched(tx, ref, instance.id, actor=ACTOR)
            self.log.info("adopted", **about(ref, instance.id))
        ours = {one.id for one in listed if not one.gone}
        for ref, reason in findings.overdue.items():
            ended = self.end(ref, reason)
            instance_id = books[ref].instance_id
            if ended and instance_id in ours:
                findings.terminate[instance_id] = "its deadline is over"
        self.terminate(findings.terminate)
        for ref, why in findings.lost.items():
            self._recover(books[ref], why)
        for ref, why in findings.close.items():
            with self._database.begin() as tx:
                attempts.close(tx, ref, actor=ACTOR, detail=why)

    def end(
        self,
        ref: AttemptRef,
        reason: Reason,
        *,
        record: ExitRecord | None = None,
        detail: str | None = None,
    ) -> bool:
        """Write the end of an attempt; False when it has ended or moved on meanwhile."""
        with self._database.begin() as tx:
            ended = attempts.end(tx, ref, reason, actor=ACTOR, exit_record=record, detail=detail)
        if ended:
            ENDED.labels(reason).inc()
            self.log.warning("attempt ended by the sweep", reason=reason, **about(ref))
        return ended

    def _recover(self, attempt: Attempt, why: str | None) -> None:
        """End an attempt whose instance is gone: by its console's word, else as lost."""
        record = None
        if attempt.instance_id:
            record = exit_record(self.cloud.console(attempt.instance_id), attempt.ref.id)
        if record is not None:
            self.end(
                attempt.ref, record.reason, record=record, detail="recovered from the console"
            )
        else:
            taken = why is not None and why.startswith(_SPOT)
            reason = Reason.SPOT_INTERRUPTED if taken else Reason.INSTANCE_LOST
            self.end(attempt.ref, reason, detail=why)


class ReapLoop:
    """Does what messages ask for."""

    name = "reap"

    def __init__(self, reaper: Reaper, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._reaper = reaper
        self._inbox = Inbox(link, REAP, ping=reaper.ping)

    def turn(self) -> float:
        """Take one batch of wake-ups: end what has ended first, then write down addresses."""
        with self._inbox.turn():
            self._turn()
        return 0.0

    def _turn(self) -> None:
        running: list[AttemptRef] = []
        ended: list[AttemptRef] = []
        for delivery in self._inbox.take(BATCH):
            try:
                message = decode_wake(delivery.body)
                if isinstance(message, JobDue):
                    raise Invalid({"type": f"{message.type} does not belong into {REAP}"})
            except Invalid as error:
                self._inbox.bury(delivery, str(error))
                continue
            (running if isinstance(message, InstanceRunning) else ended).append(message.ref)
        if ended:
            self._reaper.end_instances_of(ended)
        if running:
            self._reaper.note_addresses(running)
        self._inbox.done()

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()


class SweepLoop:
    """Compares the cloud with the books."""

    name = "reap-sweep"

    def __init__(
        self, reaper: Reaper, database: Database, *, limits: Limits, interval_s: float
    ) -> None:
        """Take the steps; the first sweep is at once."""
        self._reaper = reaper
        self._database = database
        self._limits = limits
        self._interval_s = interval_s
        self._unknown: set[str] = set()

    def turn(self) -> float:
        """Sweep once, unless another reaper does."""
        with self._database.only_one("reaper sweep") as mine:
            if mine:
                self._sweep()
        return self._interval_s

    def reset(self) -> None:
        """Forget the marks: an instance must be unknown in two sweeps in a row."""
        self._unknown.clear()

    def _sweep(self) -> None:
        with self._database.begin() as tx:
            # Before the listing: a thing is as old as it was when the cloud did not show it, however
            # long this process was stopped since.
            now = server_time(tx)
        instances = self._reaper.cloud.all()
        with self._database.begin() as tx:
            books = {one.ref: one for one in attempts.still_open(tx)}
            named = [one.ref for one in instances if one.ref and one.ref not in books]
            books.update(attempts.many(tx, named))
            timeouts = attempts.timeouts(tx)
        findings = judge(
            instances,
            books,
            timeouts=timeouts,
            now=now,
            limits=self._limits,
            unknown_before=self._unknown,
        )
        self._unknown = findings.unknown
        with self._database.begin() as tx:
            expired = jobs.expire_queued(tx, deadline_s=self._limits.queue_s, actor=ACTOR)
            queued = counts.oldest_waiting(tx)
        for ref in expired:
            self._reaper.log.error("waited too long for a launcher", **about(ref))
        self._report(books.values(), queued, findings, now)
        self._reaper.act(findings, books, instances)

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
        UNKNOWN_INSTANCES.set(len(findings.unknown))
        OVERSTAYING.set(len(findings.overstaying))
        for ref in findings.overstaying:
            self._reaper.log.error("its instance does not end", **about(ref))
