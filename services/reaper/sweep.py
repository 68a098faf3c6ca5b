"""The sweep: EC2's listing against the records, from which everything else follows.

Promise: what messages, machines or other daemons failed to tell is found here. One reaper sweeps, to
save calls: nothing breaks when two do. While all is well and nothing changes EC2 is asked less often.
Its gauges are the sweeper's; a reaper that does not sweep shows 0, not what it saw when it last did.
Failure: nothing is concluded from what could not be asked; the next sweep asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from atemporal import waiting
from atemporal.cloud import Instance
from atemporal.cloud.instance import DEPLOYMENT_TAG, INSTALLATION_TAG
from atemporal.fleet.absence import missing
from atemporal.fleet.plan import Limits, Memory, Plan
from atemporal.fleet.reconciliation import SHARED_NAME
from atemporal.fleet.snapshot import Snapshot
from atemporal.metrics import Aggregate, clear, gauge
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import counts, jobs, limit_waits
from atemporal.store.database import Database, server_time
from atemporal.telemetry import log_context
from atemporal.waiting import Phase
from services.reaper import costs
from services.reaper import limits as limit_gauges
from services.reaper.one_sweeper import OneSweeper
from services.reaper.reaper import ACTOR, SWEEP, Reaper

# How many have not come to their time is not what anybody waits for.
_PHASES = [phase for phase in Phase if phase is not Phase.TIME]
_OF_JOBS = (Phase.DUE, Phase.LIMIT, Phase.PAUSE, Phase.QUEUED)
_OF_ATTEMPTS = [phase for phase in _PHASES if phase not in _OF_JOBS]

WAITING = gauge(
    "atemporal_waiting",
    "Jobs and attempts that are waiting, due ones only, by phase.",
    aggregate=Aggregate.ONE,
    phase=_PHASES,
)
LONGEST_WAIT = gauge(
    "atemporal_longest_wait_seconds",
    "The longest wait of a job or an attempt.",
    aggregate=Aggregate.ONE,
    phase=_PHASES,
)
LEAKED_INSTANCES = gauge(
    "atemporal_leaked_instances",
    "Instances that do not end though their attempt has.",
    aggregate=Aggregate.ONE,
)
ORPHANED_INSTANCES = gauge(
    "atemporal_orphaned_instances",
    "Instances that no attempt accounts for.",
    aggregate=Aggregate.ONE,
)
FOREIGN_INSTANCES = gauge(
    "atemporal_foreign_instances",
    "Instances of another installation with our deployment's name.",
    aggregate=Aggregate.ONE,
)
LISTING_EMPTY = gauge(
    "atemporal_listing_empty",
    "1 while EC2's listing shows none of the recorded instances.",
    aggregate=Aggregate.ONE,
)
LAST_SWEEP = gauge(
    "atemporal_last_sweep_timestamp_seconds",
    "When this process last ended a sweep, 0 if never.",
    aggregate=Aggregate.MAX,
)
# When it last swept stays true of a reaper that does not any more.
_OF_THE_SWEEPER = (
    *(WAITING, LONGEST_WAIT, LEAKED_INSTANCES, ORPHANED_INSTANCES),
    *(FOREIGN_INSTANCES, LISTING_EMPTY, costs.RATE),
)


class SweepLoop:
    """Compares EC2 with the records, and does what follows."""

    name = SWEEP

    def __init__(
        self,
        reaper: Reaper,
        database: Database,
        *,
        limits: Limits,
        interval_s: float,
        quiet: int = 1,
        holder: str = "",
    ) -> None:
        """Take the steps; the first sweep is at once.

        While nothing changes and nothing is due, EC2 is asked in every so many intervals (`quiet`) only.
        """
        self._reaper = reaper
        self._database = database
        self._limits = limits
        self._interval_s = interval_s
        self._sweeper = OneSweeper(database, "reaper sweep", interval_s=interval_s, holder=holder)
        self._quiet_s = (quiet - 1) * interval_s
        self._quiet: Quiet | None = None

    def tick(self) -> float:
        """Sweep once, unless another reaper does."""
        with self._sweeper.mine() as mine:
            if mine:
                if not self._is_quiet():
                    self._sweep()
                self._sweep_queue()
                LAST_SWEEP.set_to_current_time()
            else:
                # Whoever sweeps again after another shows what there is then, quiet or not.
                self._quiet = None
                clear(*_OF_THE_SWEEPER)
                limit_gauges.report(())
        return self._interval_s

    def reset(self) -> None:
        """Forget the marks: an instance must be orphaned, or missing, in two sweeps in a row."""
        self._reaper.forget_marks()
        self._quiet = None
        self._sweeper.give_up()

    def _sweep(self) -> None:
        snapshot = self._with_missing_looked_up(self._reaper.fleet.snapshot())
        plan, memory = self._reaper.decide(snapshot, self._limits)
        self._quiet = quiet(snapshot, plan, memory)
        self._report_listing(snapshot, plan, memory)
        self._reaper.apply(plan, snapshot)
        self._report_plan(plan)
        _report_waiting_attempts(snapshot.attempts.values(), snapshot.now)
        costs.report_rate(snapshot.attempts.values())

    def _is_quiet(self) -> bool:
        """Whether all was well when EC2 was asked last, and nothing has changed since."""
        if self._quiet is None or not self._quiet_s:
            return False
        with self._database.begin() as tx:
            now = server_time(tx)
            states = counts.open_states(tx)
        for_s = (now - self._quiet.since).total_seconds()
        # Half an interval, because no tick comes exactly after one.
        return states == self._quiet.states and for_s < self._quiet_s + self._interval_s / 2

    def _sweep_queue(self) -> None:
        with self._database.begin() as tx:
            expired = jobs.expire_queued(tx, deadline_s=self._limits.queue_s, actor=ACTOR)
            waiting_jobs = counts.oldest_waiting(tx)
            uses = limit_waits.uses(tx)
        for ref in expired:
            self._reaper.log.error("waited too long for a launcher", **log_context(ref))
        limit_gauges.report(uses)
        for phase in _OF_JOBS:
            count, oldest_s = waiting_jobs.get(phase, (0, 0.0))
            WAITING.labels(phase).set(count)
            LONGEST_WAIT.labels(phase).set(oldest_s)

    def _with_missing_looked_up(self, snapshot: Snapshot) -> Snapshot:
        missed = missing(snapshot, self._limits.grace_s)
        snapshot, error = self._reaper.fleet.look_up(snapshot, missed)
        if error:
            self._reaper.log.warning(
                "missing instances not looked up", error=str(error), missing=len(missed)
            )
        return snapshot

    def _report_listing(self, snapshot: Snapshot, plan: Plan, memory: Memory) -> None:
        self._report_foreign(snapshot.foreign)
        LISTING_EMPTY.set(memory.listing_empty)
        if memory.listing_empty:
            self._reaper.log.error(
                "EC2's listing shows not one of the recorded instances: nothing is concluded from"
                " that; check the region, the deployment's name and the credentials",
                missing=len(memory.missing),
            )
        for ref, instance in plan.strays.items():
            self._reaper.log.error(
                "its instance is there, but not in the listing: it has lost its tags",
                state=instance.state,
                **log_context(ref, instance.id),
            )

    def _report_foreign(self, foreign: Iterable[Instance]) -> None:
        """Show what another installation has under our deployment's name."""
        alive = [one for one in foreign if not one.gone]
        FOREIGN_INSTANCES.set(len(alive))
        if alive:
            self._reaper.log.error(
                f"left alone: {SHARED_NAME}",
                many=len(alive),
                instance=alive[0].id,
                deployment=alive[0].tags.get(DEPLOYMENT_TAG),
                installation=alive[0].tags.get(INSTALLATION_TAG),
            )

    def _report_plan(self, plan: Plan) -> None:
        """Show what should not be."""
        ORPHANED_INSTANCES.set(len(plan.orphaned))
        LEAKED_INSTANCES.set(len(plan.leaked))
        for ref in plan.leaked:
            self._reaper.log.error("its instance does not end", **log_context(ref))


@dataclass(frozen=True)
class Quiet:
    """That all was well at that time, and the open attempts with their states."""

    since: datetime
    states: Mapping[AttemptRef, str]


def quiet(snapshot: Snapshot, plan: Plan, memory: Memory) -> Quiet | None:
    """Say that nothing is to be done, and that nothing is on its way but containers that run."""
    states: dict[AttemptRef, str] = {
        ref: one.state
        for ref, one in snapshot.attempts.items()
        if one.state is not AttemptState.CLOSED
    }
    if plan != Plan() or replace(memory, forced={}) != Memory() or snapshot.unreadable:
        return None
    if any(state is not AttemptState.RUNNING for state in states.values()):
        return None
    return Quiet(snapshot.now, states)


def _report_waiting_attempts(attempts: Iterable[Attempt], now: datetime) -> None:
    """Show as gauges what is waited for, and since when."""
    seconds: dict[Phase, list[float]] = {phase: [] for phase in _OF_ATTEMPTS}
    for attempt in attempts:
        if found := waiting.of_attempt(attempt):
            seconds[found.phase].append((now - found.since).total_seconds())
    for phase, ages in seconds.items():
        WAITING.labels(phase).set(len(ages))
        LONGEST_WAIT.labels(phase).set(max(ages, default=0.0))
