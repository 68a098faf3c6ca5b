"""What the reaper does: message loop and sweep.

Promise: no instance outlives its attempt by more than a message's way, or a sweep when the message
was lost; an attempt whose machine died silently is ended with what its console says, or as lost; an
attempt is closed only when EC2 shows its instance gone.
Mechanism: messages name ended attempts, whose instances are terminated in batches. The sweep lists
the cloud first and reads the books after it, so whatever is in the listing was committed before;
`judgement` compares the two. One reaper sweeps at a time; terminating twice does no harm.
Failure: what EC2 refuses now the next sweep asks again; a batch with one bad id ends the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from atemporal.broker import REAP, Link
from atemporal.cloud import Cloud, CloudError
from atemporal.console import exit_record
from atemporal.errors import Invalid, Refused
from atemporal.messages import InstanceRunning, JobDue, decode_wake
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.states import AttemptState, Reason
from atemporal.store import attempts
from atemporal.store.database import Database, server_time
from atemporal.telemetry import (
    DEAD_LETTERS,
    ENDED,
    OPEN_ATTEMPTS,
    TERMINATIONS,
    UNKNOWN_INSTANCES,
    about,
    logger,
)
from services.reaper.judgement import Findings, Limits, judge

ACTOR = "reaper"
BATCH = 100


class Reaper:
    """The steps, shared by message loop and sweep."""

    def __init__(self, database: Database, cloud: Cloud) -> None:
        """Take what it needs; nothing is called yet."""
        self._database = database
        self.cloud = cloud
        self.log = logger(ACTOR)

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
        """Terminate the instances of attempts that have ended."""
        with self._database.begin() as tx:
            known = attempts.many(tx, list(refs))
        self.terminate(
            {
                one.instance_id: "its attempt has ended"
                for one in known.values()
                if one.instance_id and one.state is AttemptState.EXITED
            }
        )

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


class ReapLoop:
    """Does what messages ask for."""

    name = "reap"

    def __init__(self, reaper: Reaper, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._reaper = reaper
        self._link = link

    def turn(self) -> float:
        """Take one batch of wake-ups: end what has ended first, then write down addresses."""
        batch = self._link.receive(REAP, limit=BATCH)
        running: list[AttemptRef] = []
        ended: list[AttemptRef] = []
        for delivery in batch:
            try:
                message = decode_wake(delivery.body)
                if isinstance(message, JobDue):
                    raise Invalid({"type": f"{message.type} does not belong into {REAP}"})
            except Invalid as error:
                self._link.bury(delivery, str(error))
                DEAD_LETTERS.labels(REAP).inc()
                continue
            (running if isinstance(message, InstanceRunning) else ended).append(message.ref)
        if ended:
            self._reaper.end_instances_of(ended)
        if running:
            self._reaper.note_addresses(running)
        self._link.ack(batch)
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._link.close()


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
        self._report(books.values(), findings)
        self._act(findings, books)

    def _act(self, findings: Findings, books: dict[AttemptRef, Attempt]) -> None:
        reaper = self._reaper
        for ref, instance in findings.adopt.items():
            with self._database.begin() as tx:
                attempts.launched(tx, ref, instance.id, actor=ACTOR)
            reaper.log.info("adopted", **about(ref, instance.id))
        for ref, reason in findings.overdue.items():
            ended = reaper.end(ref, reason)
            instance_id = books[ref].instance_id
            if ended and instance_id:
                findings.terminate[instance_id] = "its deadline is over"
        reaper.terminate(findings.terminate)
        for ref, why in findings.lost.items():
            try:
                self._recover(books[ref], why)
            except CloudError as error:
                # One console that can not be read now holds up nobody else's end.
                reaper.log.warning("console not read", error=str(error), **about(ref))
        for ref, why in findings.close.items():
            with self._database.begin() as tx:
                attempts.close(tx, ref, actor=ACTOR, detail=why)

    def _recover(self, attempt: Attempt, why: str | None) -> None:
        """End an attempt whose instance is gone: by its console's word, else as lost."""
        record = None
        if attempt.instance_id:
            try:
                console = self._reaper.cloud.console(attempt.instance_id)
                record = exit_record(console, attempt.ref.id)
            except Refused as error:
                why = str(error)
        if record is not None:
            self._reaper.end(
                attempt.ref, record.reason, record=record, detail="recovered from the console"
            )
        else:
            self._reaper.end(attempt.ref, Reason.INSTANCE_LOST, detail=why)

    def _report(self, books: Iterable[Attempt], findings: Findings) -> None:
        states = [one.state for one in books]
        for state in AttemptState:
            if state is not AttemptState.CLOSED:
                OPEN_ATTEMPTS.labels(state).set(states.count(state))
        UNKNOWN_INSTANCES.set(len(findings.unknown))
