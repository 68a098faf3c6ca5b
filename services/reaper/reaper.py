"""What the reaper does: its steps, the message loop and the sweep.

Promise: no instance outlives its attempt by more than a message's way, or a sweep when the message
was lost; an attempt whose machine died silently is ended with what its console says, or as lost; an
attempt is closed only when EC2 shows its instance gone.
Mechanism: messages name ended attempts, whose instances are terminated in batches. The sweep lists
the cloud first and reads the books after it, so whatever is in the listing was committed before;
`judgement` compares the two. One reaper sweeps at a time; terminating twice does no harm.
Failure: what EC2 refuses now the next sweep asks again; a batch with one bad id ends the others. One
attempt's failure, be it one that nobody foresaw, is logged and holds up no other; only without
Postgres a sweep ends. An attempt that can not be read is left alone, and so is its instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from atemporal import waiting
from atemporal.audit import SHARED_NAME
from atemporal.broker import REAP, Link
from atemporal.cloud import Cloud, CloudError, Instance, Unauthorized
from atemporal.cloud.instance import DEPLOYMENT_TAG, INSTALLATION_TAG
from atemporal.console import exit_record
from atemporal.errors import AtemporalError, Invalid, Refused, Retry, Unavailable
from atemporal.inbox import Inbox
from atemporal.messages import InstanceRunning, JobDue, decode_wake
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.states import AttemptState, JobState, Reason
from atemporal.store import attempts, counts, installation, jobs
from atemporal.store.database import Database, server_time
from atemporal.store.rows import left_out
from atemporal.telemetry import (
    ENDED,
    FOREIGN_INSTANCES,
    LAST_SWEEP,
    LISTING_BLIND,
    LONGEST_WAIT,
    LOOP_ERRORS,
    OVERSTAYING,
    TERMINATIONS,
    UNKNOWN_INSTANCES,
    WAITING,
    about,
    logger,
)
from atemporal.waiting import Phase
from services.reaper.judgement import (
    NOTHING_ABSENT,
    Absence,
    Findings,
    Limits,
    Loss,
    apart,
    blind,
    judge,
    missing,
)

ACTOR = "reaper"
BATCH = 100


class Reaper:
    """The steps, shared by message loop and sweep."""

    def __init__(self, database: Database, cloud: Cloud) -> None:
        """Take what it needs; nothing is called yet."""
        self._database = database
        self.cloud = cloud
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
            us = installation.identity(tx)
        ids = [
            one.instance_id
            for one in known.values()
            if one.instance_id and one.state is AttemptState.EXITED
        ]
        ours, _ = apart(self.cloud.describe(ids).values() if ids else (), known, us)
        self.terminate({one.id: "its attempt has ended" for one in ours if not one.gone})

    def look(self, refs: Sequence[AttemptRef], limits: Limits) -> None:
        """Judge some attempts now, as the sweep would."""
        with self._database.begin() as tx:
            named = attempts.many(tx, refs)
            now = server_time(tx)
        ids = [one.instance_id for one in named.values() if one.instance_id]
        described = self.cloud.describe(ids).values()
        with self._database.begin() as tx:
            books = attempts.many(tx, refs)
            timeouts = attempts.timeouts(tx)
            us = installation.identity(tx)
        instances, _ = apart(described, books, us)
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
        self.act(findings, books, instances)

    def act(
        self,
        findings: Findings,
        books: Mapping[AttemptRef, Attempt],
        listed: Iterable[Instance],
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
        for ref, reason in findings.overdue.items():
            instance_id = books[ref].instance_id
            with self._alone(ref, instance_id):
                ran_out = reason is Reason.TIMED_OUT
                ended = (ran_out and self._recover(books[ref])) or self.end(ref, reason)
                if ended and instance_id in ours:
                    self.terminate({instance_id: "its deadline is over"})
        for ref, loss in findings.lost.items():
            with self._alone(ref, books[ref].instance_id):
                self._lose(books[ref], loss)

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
        except Exception:
            # Told of as a failed turn is; the others must not wait until it is mended.
            LOOP_ERRORS.labels(SweepLoop.name, "error").inc()
            self.log.exception("left to the next sweep", **about(ref, instance_id))

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

    def _recover(self, attempt: Attempt) -> bool:
        """End an attempt by its console's word; False when that has none.

        Raises:
            Retry, Unknown: EC2 can not be asked now.
        """
        if attempt.instance_id is None:
            return False
        try:
            console = self.cloud.console(attempt.instance_id)
        except (Refused, Unauthorized) as error:
            # The listing was allowed, so it is this one right that is missing: waiting for it would
            # keep a dead attempt open for ever.
            where = about(attempt.ref, attempt.instance_id)
            self.log.warning("no console to be read", error=str(error), **where)
            return False
        record = exit_record(console, attempt.ref.id)
        if record is None:
            return False
        detail = "recovered from the console"
        return self.end(attempt.ref, record.reason, record=record, detail=detail)

    def _lose(self, attempt: Attempt, loss: Loss) -> None:
        """End an attempt whose instance is gone: by its console's word, else as lost."""
        if not self._recover(attempt) and loss.final:
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

    def turn(self) -> float:
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
        LISTING_BLIND.set(no_sight)
        if no_sight:
            self._reaper.log.error(
                "EC2's listing shows not one instance of the books: nothing is concluded from that;"
                " check the region, the deployment's name and the credentials",
                missing=len(missed),
            )
            missed = set()
        findings = judge(
            instances,
            books,
            timeouts=timeouts,
            now=now,
            limits=self._limits,
            # What this listing shows may be another deployment's.
            unknown_before=set() if no_sight else self._unknown,
            absence=self._absence(books, missed & self._missing),
            gone_before=self._reaper.gone_since,
        )
        self._unknown = set() if no_sight else findings.unknown
        self._missing = missed
        self._reaper.gone_since = findings.gone_since
        self._reaper.act(findings, books, instances)
        with self._database.begin() as tx:
            expired = jobs.expire_queued(tx, deadline_s=self._limits.queue_s, actor=ACTOR)
            queued = counts.oldest_waiting(tx)
        for ref in expired:
            self._reaper.log.error("waited too long for a launcher", **about(ref))
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

    def _absence(self, books: Mapping[AttemptRef, Attempt], missed: set[AttemptRef]) -> Absence:
        """Ask for what was missing twice by its id: the listing goes by tags."""
        ids = {ref: id_ for ref in missed if (id_ := books[ref].instance_id)}
        log = self._reaper.log
        try:
            strays = self._reaper.cloud.describe(ids.values(), tagged=False) if ids else {}
        except AtemporalError as error:
            log.warning("missing instances not looked up", error=str(error), missing=len(ids))
            return NOTHING_ABSENT
        for ref, instance_id in ids.items():
            if instance_id in strays:
                log.error(
                    "its instance is there, but not in the listing: it has lost its tags",
                    state=strays[instance_id].state,
                    **about(ref, instance_id),
                )
        proven = {ref for ref in missed if ids.get(ref) not in strays}
        return Absence(proven, strays)

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
