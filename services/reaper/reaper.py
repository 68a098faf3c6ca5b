"""What the reaper does: its steps and the message loop; the loops beside it use the steps.

Promise: no instance outlives its attempt by more than a message's way, or a sweep when the message
was lost; an attempt whose machine died silently is ended with what its console says, or as lost; an
attempt is closed only when EC2 shows its instance gone.
Mechanism: messages name ended attempts, whose instances are terminated in batches; `judgement` says
what a listing means for the books, `Reaper.act` does it. Terminating twice does no harm.
Failure: what EC2 refuses now the next sweep asks again; a batch with one bad id ends the others. One
attempt's failure, be it one that nobody foresaw, is logged and holds up no other; only without
Postgres a sweep ends. An attempt that can not be read is left alone, and so is its instance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from atemporal.broker import REAP, Link
from atemporal.cloud import Cloud, CloudError, Instance
from atemporal.errors import AtemporalError, Invalid, Retry, Unavailable
from atemporal.inbox import Inbox
from atemporal.messages import InstanceRunning, JobDue, decode_notification
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.states import AttemptState, Reason
from atemporal.store import attempts, installation
from atemporal.store.database import Database, server_time
from atemporal.telemetry import (
    ENDED,
    LOOP_ERRORS,
    TERMINATIONS,
    log_context,
    logger,
)
from services.reaper.consoles import Consoles
from services.reaper.judgement import (
    Findings,
    Limits,
    Loss,
    apart,
    judge,
)

ACTOR = "reaper"
SWEEP = "reap-sweep"
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
                self.log.info("adopted", **log_context(ref, instance.id))
        for ref, instance in findings.addresses.items():
            dns = instance.public_dns or books[ref].public_dns
            with self._alone(ref, instance.id), self._database.begin() as tx:
                attempts.set_address(tx, ref, dns, instance.public_ip or books[ref].public_ip)
        for ref, why in findings.close.items():
            with self._alone(ref), self._database.begin() as tx:
                attempts.close(
                    tx, ref, actor=ACTOR, end_code=findings.end_codes.get(ref), detail=why
                )
        ours = {one.id for one in listed if not one.gone}
        for ref, code in findings.scarce.items():
            with self._alone(ref, books[ref].instance_id):
                patience_s = limits.launch_s
                self.end(
                    ref, Reason.NO_CAPACITY, detail=code, end_code=code, patience_s=patience_s
                )
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
            log("left to the next sweep", error=str(error), **log_context(ref, instance_id))
        except Exception:
            # Told of as a failed turn is; the others must not wait until it is mended.
            LOOP_ERRORS.labels(SWEEP, "error").inc()
            self.log.exception("left to the next sweep", **log_context(ref, instance_id))

    def end(
        self,
        ref: AttemptRef,
        reason: Reason,
        *,
        record: ExitRecord | None = None,
        detail: str | None = None,
        end_code: str | None = None,
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
                end_code=end_code,
                patience_s=patience_s,
            )
        if ended:
            ENDED.labels(reason).inc()
            self.log.warning("attempt ended by the sweep", reason=reason, **log_context(ref))
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
            self.end(attempt.ref, loss.reason, detail=loss.why or None, end_code=loss.end_code)


class ReapLoop:
    """Does what messages ask for."""

    name = "reap"

    def __init__(self, reaper: Reaper, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._reaper = reaper
        self._inbox = Inbox(link, REAP, ping=reaper.ping)

    def tick(self) -> float:
        """Take one batch of wake-ups: end what has ended first, then write down addresses."""
        with self._inbox.tick():
            self._tick()
        return 0.0

    def _tick(self) -> None:
        running: list[AttemptRef] = []
        ended: list[AttemptRef] = []
        for delivery in self._inbox.take(BATCH):
            try:
                message = decode_notification(delivery.body)
                if isinstance(message, JobDue):
                    raise Invalid({"type": f"{message.type} does not belong into {REAP}"})
            except Invalid as error:
                self._inbox.dead_letter(delivery, str(error))
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
