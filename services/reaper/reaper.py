"""What the reaper does: its steps, the message loop and the sweep.

Promise: no instance outlives its attempt by more than a message's way, or a sweep when the message
was lost; an attempt whose machine died silently is ended with what its console says, or as lost; an
attempt is closed only when EC2 shows its instance gone.
Mechanism: messages name ended attempts, whose instances are terminated in batches. The sweep lists
the cloud first and reads the books after it, so whatever is in the listing was committed before;
`judgement` compares the two. One reaper sweeps at a time; terminating twice does no harm.
Failure: what EC2 refuses now the next sweep asks again; a batch with one bad id ends the others. One
attempt's failure is logged and holds up no other; only without Postgres a sweep ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from atemporal import waiting
from atemporal.broker import REAP, Link
from atemporal.cloud import Cloud, CloudError, Instance
from atemporal.errors import AtemporalError, Invalid, Retry, Unavailable
from atemporal.inbox import Inbox
from atemporal.messages import InstanceRunning, JobDue, decode_wake
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.states import AttemptState, JobState, Reason
from atemporal.store import attempts, counts, jobs
from atemporal.store.database import Database, server_time
from atemporal.telemetry import (
    ENDED,
    LISTING_BLIND,
    LONGEST_WAIT,
    OVERSTAYING,
    TERMINATIONS,
    UNKNOWN_INSTANCES,
    WAITING,
    about,
    logger,
)
from atemporal.waiting import Phase
from services.reaper.consoles import Consoles
from services.reaper.judgement import (
    Absence,
    Findings,
    Limits,
    Loss,
    blind,
    judge,
    missing,
)

ACTOR = "reaper"
BATCH = 100


class Reaper:
    """The steps, shared by message loop and sweep."""

    def __init__(
        self, database: Database, cloud: Cloud, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take what it needs; nothing is called yet."""
        self._database = database
        self.cloud = cloud
        self._clock = clock
        self._unread: set[AttemptRef] = set()
        self.log = logger(ACTOR)
        self.gone_since: dict[AttemptRef, datetime] = {}

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
            instances,
            books,
            timeouts=timeouts,
            now=now,
            limits=limits,
            unknown_before=set(),
            gone_before=self.gone_since,
        )
        self.gone_since = {**self.gone_since, **findings.gone_since}
        self.act(findings, books, instances, limits)

    def act(
        self,
        findings: Findings,
        books: Mapping[AttemptRef, Attempt],
        listed: Iterable[Instance],
        limits: Limits,
    ) -> None:
        """Do what the judgement of `listed` and `books` asks for: ends first, consoles last."""
        self.terminate(findings.terminate)
        for ref, instance in findings.adopt.items():
            with self._alone(ref, instance.id):
                with self._database.begin() as tx:
                    attempts.launched(tx, ref, instance.id, actor=ACTOR)
                self.log.info("adopted", **about(ref, instance.id))
        for ref, instance in findings.addresses.items():
            dns = instance.public_dns or books[ref].public_dns
            with self._alone(ref, instance.id), self._database.begin() as tx:
                attempts.set_address(tx, ref, dns, instance.public_ip or books[ref].public_ip)
        for ref, why in findings.close.items():
            with self._alone(ref), self._database.begin() as tx:
                attempts.close(tx, ref, actor=ACTOR, detail=why)
        ours = {one.id for one in listed if not one.gone}
        for ref, code in findings.scarce.items():
            with self._alone(ref, books[ref].instance_id):
                patience_s = limits.launch_s
                self.end(ref, Reason.NO_CAPACITY, detail=code, patience_s=patience_s)
        for ref, reason in findings.overdue.items():
            if books[ref].instance_id is None:
                with self._alone(ref):
                    self.end(ref, reason)
        self._unread &= {*findings.overdue, *findings.lost}
        consoles = Consoles(self.cloud, failed=self._unread, clock=self._clock)
        of_machines = [r for r in (*findings.overdue, *findings.lost) if books[r].instance_id]
        for ref in consoles.in_time(of_machines):
            attempt = books[ref]
            with self._alone(ref, attempt.instance_id):
                said = consoles.read(attempt)
                if ref in findings.lost:
                    self._lose(attempt, said, findings.lost[ref])
                else:
                    self._run_out(attempt, said, findings.overdue[ref], ours)

    @contextmanager
    def _alone(self, ref: AttemptRef, instance_id: str | None = None) -> Iterator[None]:
        """Let what fails in here be this attempt's matter alone; the next sweep tries it again."""
        try:
            yield
        except AtemporalError as error:
            if isinstance(error, Unavailable) and not isinstance(error, CloudError):
                raise
            log = self.log.warning if isinstance(error, Retry) else self.log.error
            log("left to the next sweep", error=str(error), **about(ref, instance_id))

    def end(
        self,
        ref: AttemptRef,
        reason: Reason,
        *,
        record: ExitRecord | None = None,
        detail: str | None = None,
        patience_s: float = 0.0,
    ) -> bool:
        """Write the end of an attempt; False when it has ended or moved on meanwhile."""
        with self._database.begin() as tx:
            ended = attempts.end(
                tx,
                ref,
                reason,
                actor=ACTOR,
                exit_record=record,
                detail=detail,
                patience_s=patience_s,
            )
        if ended:
            ENDED.labels(reason).inc()
            self.log.warning("attempt ended by the sweep", reason=reason, **about(ref))
        return ended

    def _recover(self, attempt: Attempt, said: ExitRecord | None) -> bool:
        """End an attempt by its console's word; False when that has none."""
        if said is None:
            return False
        detail = "recovered from the console"
        return self.end(attempt.ref, said.reason, record=said, detail=detail)

    def _run_out(
        self, attempt: Attempt, said: ExitRecord | None, reason: Reason, ours: Collection[str]
    ) -> None:
        """End an attempt that is over its time: by its console's word, else for its deadline."""
        ended = self._recover(attempt, said) or self.end(attempt.ref, reason)
        if ended and attempt.instance_id and attempt.instance_id in ours:
            self.terminate({attempt.instance_id: "its deadline is over"})

    def _lose(self, attempt: Attempt, said: ExitRecord | None, loss: Loss) -> None:
        """End an attempt whose instance is gone: by its console's word, else as lost."""
        if not self._recover(attempt, said) and loss.final:
            self.end(attempt.ref, loss.reason, detail=loss.why)


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
        self._missing: set[AttemptRef] = set()
        self._blind = False

    def turn(self) -> float:
        """Sweep once, unless another reaper does."""
        with self._database.only_one("reaper sweep") as mine:
            if mine:
                self._sweep()
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
        instances = self._reaper.cloud.all()
        with self._database.begin() as tx:
            books = {one.ref: one for one in attempts.still_open(tx)}
            named = [one.ref for one in instances if one.ref and one.ref not in books]
            books.update(attempts.many(tx, named))
            timeouts = attempts.timeouts(tx)
        missed = missing(instances, books, now=now, limits=self._limits)
        no_sight = blind(instances, books, missed)
        LISTING_BLIND.set(no_sight)
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
            self._reaper.log.error("waited too long for a launcher", **about(ref))
        self._report(books.values(), queued, findings, now)

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
                    **about(ref, instance_id),
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
        UNKNOWN_INSTANCES.set(len(findings.unknown))
        OVERSTAYING.set(len(findings.overstaying))
        for ref in findings.overstaying:
            self._reaper.log.error("its instance does not end", **about(ref))
