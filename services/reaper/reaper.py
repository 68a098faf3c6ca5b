"""What the reaper does: the steps that its loops share.

Promise: no instance outlives its attempt by more than a message's way, or a sweep when the message
was lost; an attempt whose machine died silently is ended with what its console reports, or as lost; an
attempt is closed only when EC2 shows its instance gone.
Mechanism: a snapshot of the fleet becomes a plan (`atemporal.fleet`), and the plan is applied.
Terminating twice does no harm. What one decision remembers for the next is shared by the threads of
sweep and notices, so it is read and replaced under a lock.
Failure: what EC2 refuses now the next sweep asks again; a batch with one bad id ends the others. One
attempt's failure, be it one that nobody foresaw, is logged and holds up no other; only without
Postgres a sweep ends. An attempt that can not be read is left alone, and so is its instance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import get_args

from atemporal.cloud import Cloud, CloudError, Instance
from atemporal.daemon import TICK_ERRORS
from atemporal.errors import AtemporalError, Retry, Unavailable
from atemporal.fleet.ending import ENDING, TerminationCause, nothing_runs
from atemporal.fleet.plan import Limits, Loss, Memory, Plan, decide
from atemporal.fleet.reader import FleetReader
from atemporal.fleet.snapshot import Snapshot
from atemporal.fleet.stopped import recorded, stopped
from atemporal.metrics import counter, series
from atemporal.metrics.endings import ENDED
from atemporal.model import Attempt, AttemptRef, ExitRecord, ReportedReason
from atemporal.states import LIVE_ATTEMPT, AttemptState, Reason
from atemporal.store import attempts, costs, starts
from atemporal.store.adoption import adopt
from atemporal.store.database import Database, server_time
from atemporal.telemetry import log_context, logger
from services.reaper.consoles import Consoles, Looks
from services.reaper.costs import book, count

TERMINATIONS = counter(
    "atemporal_terminations_total",
    "Terminations of instances that EC2 was asked for, by their cause and result.",
    cause=TerminationCause,
    result=["asked", "failed"],
)
# What a console reports, what EC2 shows, and what is over its time.
series(ENDED, reason=get_args(ReportedReason))
series(ENDED, reason=[Reason.NO_CAPACITY])
series(ENDED, reason=[Reason.LAUNCH_DEADLINE, Reason.BOOT_DEADLINE, Reason.PULL_DEADLINE])
series(ENDED, reason=[Reason.CLAIM_DEADLINE])

ACTOR = "reaper"
FRESH_S = 900.0
"""So long after an attempt's end EC2 still knows its instance: later one unknown id costs a batch."""
SWEEP = "reap-sweep"


class Reaper:
    """The steps; shared by all loops, each in its thread."""

    def __init__(
        self,
        database: Database,
        cloud: Cloud,
        *,
        clock: Callable[[], float] = time.monotonic,
        proven: Callable[[Attempt], bool] = lambda _: False,
    ) -> None:
        """Take what it needs; nothing is called yet.

        `proven` says whether EC2 itself named the instance of an attempt to this deployment.
        """
        self._database = database
        self._proven = proven
        self._clock = clock
        self.cloud = cloud
        self.fleet = FleetReader(database, cloud)
        self.log = logger(ACTOR)
        self._lock = Lock()
        self._memory = Memory()
        self._looks = Looks()

    def ping(self) -> None:
        """Ask whether the database is there.

        Raises:
            Unavailable: it does not answer.
        """
        self._database.ping()

    def terminations_ready_in(self) -> float:
        """Seconds until EC2's limits allow the next call of TerminateInstances.

        Raises:
            Unavailable: the database does not answer.
        """
        return self.cloud.terminations_ready_in()

    def end_instances_of(self, refs: Iterable[AttemptRef]) -> None:
        """Terminate the instances of attempts that have ended.

        Those that EC2 itself has named to us are ended without a question. Of the others, and of those
        that ended long ago, EC2 is asked first: one that it does not show under our tag, or not yet, is
        left to the sweep.
        """
        with self._database.begin() as tx:
            now = server_time(tx)
            known = attempts.many(tx, list(refs)).values()
        ended = [one for one in known if one.state is AttemptState.EXITED and one.instance_id]
        sure = {
            one.ref: one
            for one in ended
            if one.exited_at and (now - one.exited_at).total_seconds() < FRESH_S
            if self._proven(one)
        }
        self._end_instances(sure.values())
        if rest := [one.ref for one in ended if one.ref not in sure]:
            snapshot = self.fleet.snapshot_of(rest)
            shown = {one.id for one in snapshot.instances if not (one.gone or one.state == ENDING)}
            self._end_instances(
                one
                for one in snapshot.attempts.values()
                if one.state is AttemptState.EXITED and one.instance_id in shown
            )

    def _end_instances(self, ended: Iterable[Attempt]) -> None:
        causes: dict[str, TerminationCause] = {}
        at_once = set()
        for one in ended:
            if one.instance_id:
                causes[one.instance_id] = TerminationCause.ATTEMPT_ENDED
                if nothing_runs(one):
                    at_once.add(one.instance_id)
        self.terminate(causes, at_once=at_once)

    def check(self, refs: Sequence[AttemptRef], limits: Limits) -> None:
        """Decide about some attempts now, as the sweep would."""
        snapshot = self.fleet.snapshot_of(refs)
        plan, _ = self.decide(snapshot, limits)
        self.apply(plan, snapshot)

    def decide(self, snapshot: Snapshot, limits: Limits) -> tuple[Plan, Memory]:
        """Decide what is to be done; returns the plan, and what is remembered after it."""
        with self._lock:
            plan, self._memory = decide(snapshot, limits, self._memory)
            return plan, self._memory

    def forget_marks(self) -> None:
        """Forget what was seen once: it must be seen in two sweeps in a row."""
        with self._lock:
            self._memory = self._memory.without_marks()

    def apply(self, plan: Plan, snapshot: Snapshot) -> None:
        """Do what the plan for a snapshot says: ends first, consoles last."""
        known = snapshot.attempts
        self.terminate(plan.terminate, at_once=plan.at_once, forced=plan.forced)
        instances = recorded(snapshot)
        if ends := stopped(known, instances):
            with self._database.begin() as tx:
                costs.ending(tx, ends)
        for ref, instance in plan.adopt.items():
            with self._alone(ref, instance.id):
                with self._database.begin() as tx:
                    adopt(
                        tx,
                        ref,
                        instance.id,
                        known=known[ref].instance_id,
                        gone=instance.gone,
                        launched_at=instance.launched_at,
                        actor=ACTOR,
                    )
                    booked = book(tx, ref, instance)
                count(booked)
                self._log_adopted(known[ref], instance)
        for ref, instance in plan.addresses.items():
            with self._alone(ref, instance.id), self._database.begin() as tx:
                attempts.set_address(tx, ref, instance.public_dns, instance.public_ip)
        for ref, close in plan.close.items():
            with self._alone(ref):
                with self._database.begin() as tx:
                    attempts.close(
                        tx, ref, actor=ACTOR, end_code=close.end_code, detail=close.sentence
                    )
                    booked = book(tx, ref, instances.get(ref))
                count(booked)
        for ref, short in plan.short.items():
            with self._alone(ref, known[ref].instance_id):
                self.end(
                    ref,
                    Reason.NO_CAPACITY,
                    detail=short.end_code,
                    end_code=short.end_code,
                    patience_s=short.patience_s,
                )
        for ref, reason in plan.overdue.items():
            if known[ref].instance_id is None:
                with self._alone(ref):
                    self.end(ref, reason)
        self._end_by_consoles(plan, snapshot)

    def terminate(
        self,
        causes: Mapping[str, TerminationCause],
        *,
        at_once: Collection[str] = (),
        forced: Collection[str] = (),
    ) -> None:
        """Ask EC2 to end these instances; failures are logged, the sweep asks again.

        On those `at_once` no operating system is waited for; those `forced` do not end otherwise.
        """
        for (skips, forces), ids in _by_method(causes, at_once, forced).items():
            failures = self.cloud.terminate(ids, skip_os_shutdown=skips, force=forces)
            for instance_id in ids:
                cause, error = causes[instance_id], failures.get(instance_id)
                TERMINATIONS.labels(cause, "failed" if error else "asked").inc()
                if error:
                    self.log.warning("not terminated", instance=instance_id, error=str(error))
                else:
                    self.log.info("terminated", instance=instance_id, cause=cause, forced=forces)

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
        """Write the end of an attempt; False when it has ended or gone on meanwhile."""
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
            if ended and record is not None and record.started_at is not None:
                starts.started(tx, ref, record.started_at, actor=ACTOR)
        if ended:
            ENDED.labels(reason).inc()
            self.log.warning("attempt ended by the sweep", reason=reason, **log_context(ref))
        return ended

    def _end_by_consoles(self, plan: Plan, snapshot: Snapshot) -> None:
        """End the attempts that are lost or overdue, each by its console's record if it has one."""
        ours = {one.id for one in snapshot.instances if not one.gone}
        refs = [*plan.overdue, *plan.lost]
        if snapshot.whole:
            self._looks.keep_only(refs)
        consoles = Consoles(self.cloud, looks=self._looks, clock=self._clock)
        # Who has no instance has no console either; who is late without one has been ended before.
        asked = [ref for ref in refs if ref in plan.lost or snapshot.attempts[ref].instance_id]
        last = {ref for ref in asked if ref not in plan.lost or plan.lost[ref].final}
        for ref in consoles.in_time(asked, last=last):
            attempt = snapshot.attempts[ref]
            with self._alone(ref, attempt.instance_id):
                if not self._is_live(ref):
                    # Its machine has reported meanwhile.
                    continue
                record = consoles.read(attempt, last=ref in last)
                if ref in plan.lost:
                    self._lose(attempt, record, plan.lost[ref])
                else:
                    self._run_out(attempt, record, plan.overdue[ref], ours)

    def _log_adopted(self, attempt: Attempt, instance: Instance) -> None:
        """Log it; as a warning where a machine said of itself what EC2 does not."""
        claimed = attempt.claimed_instance_id
        if claimed in (None, instance.id):
            self.log.info("adopted", **log_context(attempt.ref, instance.id))
        else:
            self.log.warning(
                "adopted; the machine that was granted the claim gave another id",
                claimed=claimed,
                **log_context(attempt.ref, instance.id),
            )

    def _is_live(self, ref: AttemptRef) -> bool:
        with self._database.begin() as tx:
            attempt = attempts.get(tx, ref)
        return attempt is not None and attempt.state in LIVE_ATTEMPT

    def _lose(self, attempt: Attempt, record: ExitRecord | None, loss: Loss) -> None:
        """End an attempt whose instance is gone: by its console's record, else as lost."""
        if not self._recover(attempt, record) and loss.final:
            detail = loss.sentence or loss.end_code
            self.end(attempt.ref, loss.reason, detail=detail, end_code=loss.end_code)

    def _run_out(
        self,
        attempt: Attempt,
        record: ExitRecord | None,
        reason: Reason,
        ours: Collection[str],
    ) -> None:
        """End an attempt that is over its time: by its console's record, else for its deadline."""
        ended = self._recover(attempt, record) or self.end(attempt.ref, reason)
        if ended and attempt.instance_id and attempt.instance_id in ours:
            # Who never ran, and by this end never will, has nothing to stop.
            at_once = {attempt.instance_id} if attempt.running_at is None else ()
            self.terminate({attempt.instance_id: TerminationCause.OVERDUE}, at_once=at_once)

    def _recover(self, attempt: Attempt, record: ExitRecord | None) -> bool:
        """End an attempt by its console's record; False when there is none."""
        if record is None:
            return False
        detail = "recovered from the console"
        return self.end(attempt.ref, record.reason, record=record, detail=detail)

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
            # Counted and logged as a failed tick is; the others must not wait until it is mended.
            TICK_ERRORS.labels(SWEEP, "error").inc()
            self.log.exception("left to the next sweep", **log_context(ref, instance_id))


def _by_method(
    ids: Iterable[str], at_once: Collection[str], forced: Collection[str]
) -> dict[tuple[bool, bool], list[str]]:
    """The ids by how they are to be ended: without the operating system, by force."""
    methods: dict[tuple[bool, bool], list[str]] = {}
    for one in ids:
        methods.setdefault((one in at_once, one in forced), []).append(one)
    return methods
