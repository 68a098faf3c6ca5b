"""What the launcher does: from a due job to an instance, and the sweep that finds what was left.

Promise: a job that is queued gets one attempt, an attempt gets one instance, whatever crashes.
Mechanism: the attempt with everything its RunInstances call is made of is committed before the call,
and the call's token follows from the attempt and the candidate: whoever finds the row after a crash
repeats the identical call and gets the same instance. Another candidate is committed, with a token
of its own, only after EC2 refused for want of capacity or quota. Messages only make it quick; the
sweep does the same work from the tables alone.
Failure, by class: no capacity or over the quota: the cell cools and the next candidate is asked, or
the attempt waits until a cell opens. No sure answer: the identical call again. Throttled: our own
budget shrinks. Not authorized: the circuit opens, nothing is begun, one probe closes it. Refused for
good: the attempt ends with EC2's own words. What waits stays `launching`, says for what, and has the
reaper's launch deadline.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from atemporal import tokens
from atemporal.cloud import (
    Cloud,
    Forbidden,
    NoCapacity,
    OverQuota,
    Throttled,
    TokenMismatch,
    TokenSpent,
    Unauthorized,
    Unreachable,
)
from atemporal.errors import AtemporalError, Invalid, Refused, Unknown
from atemporal.model import Attempt, AttemptRef, JobSpec, Launch
from atemporal.settings import Settings
from atemporal.states import BlockedReason
from atemporal.store import attempts, installation, jobs, launches
from atemporal.store.database import Database
from atemporal.telemetry import (
    CIRCUIT_BREAKER_OPEN,
    LAUNCH_SECONDS,
    LAUNCHES,
    LAUNCHES_BLOCKED,
    MACHINES_NOT_BOOTING,
    OFFERINGS_UNAVAILABLE,
    RATE_LIMITER_RATE,
    RATE_LIMITER_TOKENS,
    STALE,
    log_context,
    logger,
)
from atemporal.userdata import render
from services.launcher.books import ACTOR, REPEAT_S, Books, said
from services.launcher.budget import Budget
from services.launcher.candidates import Cell, candidates, cell_of, placed
from services.launcher.cells import Breaker, Cells, Closed, Pool, closures, short, summary
from services.launcher.circuit import Circuit

BATCH = 32
# After so long of one refusal after the other, the rest of the candidates is left to the next turn:
# a turn must end well before a stopping daemon's patience does.
TICK_S = 8.0
SILENT_MACHINES = 5
"""So many machines in a row that never called are no accident."""

Begun = tuple[Attempt, JobSpec]


class Launcher:
    """The steps, shared by message loop and sweep; safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        cloud: Cloud,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """Take what it needs; nothing is called yet. `dice` gives numbers in [0, 1) for jitter.

        Raises:
            Invalid: the settings have no callback key.
        """
        self._settings = settings
        self._database = database
        self._cloud = cloud
        self._clock = clock
        self._rng = rng
        self._log = logger(ACTOR)
        self._books = Books(settings, database, cloud, rng=rng)
        self._key_id = settings.signing_key_id
        self.circuit = Circuit(clock=clock, random=rng)
        self.budget = Budget(
            burst=settings.run_instances_burst,
            rate=settings.run_instances_rate,
            instance_burst=settings.instances_burst,
            instance_rate=settings.instances_rate,
            clock=clock,
        )
        self.cells = Cells(
            capacity_s=settings.capacity_cooldown_s,
            quota_s=settings.quota_cooldown_s,
            clock=clock,
        )
        self._breaker = Breaker(
            interruptions=settings.spot_interruptions,
            window_s=settings.spot_window_s,
            pause_s=settings.spot_pause_s,
        )
        self.behind = False
        """Whether there is more to ask for than there are tokens: it comes before new messages."""

    def ping(self) -> None:
        """Ask whether the database is there.

        Raises:
            Unavailable: it does not answer.
        """
        self._database.ping()

    def room(self) -> int:
        """How many calls may be made now: no more work than this should be taken up."""
        if self.circuit.ready_in() > 0:
            return 0
        return min(BATCH if self.circuit.closed else 1, self.budget.available())

    def begin(self, refs: Sequence[AttemptRef]) -> list[Begun]:
        """Commit the intent for those of the given jobs that are still queued for that attempt.

        While the circuit is open there are none: the jobs stay queued.
        """
        if not refs or self.circuit.ready_in() > 0:
            return []
        try:
            image_id = self._cloud.resolve_image()
        except Unauthorized as error:
            self._trip(error)
            raise
        refs = refs[: self._may_begin(len(refs))]
        with self._database.begin() as tx:
            queued = jobs.lock_queued(tx, refs)
            ours = installation.identity(tx) if queued else None
            for ref, spec in queued.items():
                attempts.begin(tx, ref, self._plan(spec, image_id, ours), actor=ACTOR)
            begun = attempts.with_specs(tx, list(queued))
        STALE.labels("job.due").inc(len(refs) - len(begun))
        return begun

    def _may_begin(self, wanted: int) -> int:
        """How many jobs may get a machine now: one at a time while none of the last has called.

        Machines that come up and can not reach the API would be paid for until their boot deadline,
        one for each retry of each job; the one that is tried shows when they can again.
        """
        within_s = SILENT_MACHINES * self._settings.boot_deadline_s
        with self._database.begin() as tx:
            silent = launches.never_booted(tx, machines=SILENT_MACHINES, within_s=within_s)
            booting = launches.booting(tx) if silent else 0
        MACHINES_NOT_BOOTING.set(silent)
        if not silent:
            return wanted
        self._log.error(
            "no machine calls: they are tried one at a time, the other jobs stay queued",
            machines=SILENT_MACHINES,
            callback_url=self._settings.callback_url,
        )
        return 0 if booting else min(wanted, 1)

    def call(self, attempt: Attempt, spec: JobSpec) -> None:
        """Ask EC2 for the attempt's instance and write down what came of it."""
        launch: Launch | None = attempt.launch
        until = self._clock() + TICK_S
        while launch is not None:
            if self._clock() >= until:
                self._books.leave(attempt.ref, launch)
                return
            launch = self._step(attempt.ref, spec, launch)

    def unfinished(self) -> list[Begun]:
        """Find what messages left, as much as may be called now: intents whose lease is over, and
        queued jobs nobody took."""
        room = self.room()
        if room == 0:
            return []
        stale_s = self._settings.stale_after_s
        if not self.circuit.closed:
            # The one probe should not be the call that was refused before, if there is another.
            with self._database.begin() as tx:
                untried = jobs.overlooked(tx, stale_s=stale_s, limit=room)
            if begun := self.begin(untried):
                return begun
        with self._database.begin() as tx:
            leased = attempts.lease_unlaunched(tx, stale_s=stale_s, limit=room)
            unlaunched = attempts.with_specs(tx, leased)
            left = room - len(leased)
            overlooked = jobs.overlooked(tx, stale_s=stale_s, limit=left) if left else []
        self.behind = len(leased) + len(overlooked) == room
        if overlooked or unlaunched:
            self._log.info("sweep found work", queued=len(overlooked), begun=len(unlaunched))
        return [*unlaunched, *self.begin(overlooked)]

    def rest_s(self, longest_s: float) -> float:
        """Seconds, `longest_s` at most, until there may be a call to make; tell the metrics what is
        waited for."""
        with self._database.begin() as tx:
            blocked, next_in_s = launches.unlaunched(tx, stale_s=self._settings.stale_after_s)
        for wait in BlockedReason:
            LAUNCHES_BLOCKED.labels(wait).set(blocked.get(wait, 0))
        LAUNCHES_BLOCKED.labels("").set(blocked.get(None, 0))
        OFFERINGS_UNAVAILABLE.set(self.cells.count())
        RATE_LIMITER_TOKENS.set(self.budget.available())
        RATE_LIMITER_RATE.set(self.budget.rate)
        CIRCUIT_BREAKER_OPEN.set(0 if self.circuit.closed else 1)
        if next_in_s is None or next_in_s > 0:
            wait_s = 0.0 if self.behind else next_in_s
        else:
            self.behind, wait_s = True, 0.0
        return longest_s if wait_s is None else min(longest_s, max(wait_s, self.gate_s()))

    def gate_s(self) -> float:
        """Seconds until a call may be made at all."""
        return max(self.budget.ready_in(), self.circuit.ready_in())

    def _step(self, ref: AttemptRef, spec: JobSpec, launch: Launch) -> Launch | None:
        """Make one call at most; return what to ask for next, when that may be asked at once."""
        if launch.calls == 0:
            chosen = self._place(ref, spec, launch)
            if chosen is None:
                return None
            launch = chosen
        try:
            token = tokens.mint(
                self._settings.keys, launch.key_id, self._settings.deployment, ref.id
            )
            user_data = render(ref, spec, launch, token)
        except KeyError:
            # Keys are being replaced, and this process has not got the new one yet.
            why = f"the callback key {launch.key_id!r} is not among this launcher's"
            self._books.wait(ref, launch, BlockedReason.KEY, why, REPEAT_S)
            return None
        except Invalid as error:
            self._books.refuse(ref, f"the user-data can not be made: {error}")
            return None
        if self.circuit.ready_in() > 0:
            self._await_circuit(ref, launch)
            return None
        if not self.budget.take():
            self.behind = True
            self._books.leave(ref, launch)
            return None
        since = self._clock()
        with self._database.begin() as tx:
            asked = launches.ask(tx, ref, launch)
        # Frozen in between for so long, this process has lost the attempt to another.
        if asked is None or self._clock() - since > self._settings.stale_after_s:
            STALE.labels("launch").inc()
            return None
        if not self.circuit.admit():
            self._await_circuit(ref, asked)
            return None
        return self._run(ref, spec, asked, user_data)

    def _run(
        self, ref: AttemptRef, spec: JobSpec, launch: Launch, user_data: bytes
    ) -> Launch | None:
        """Send the call, and answer each class of outcome in its own way."""
        log = self._log.bind(
            cell=str(cell_of(launch)), placement=launch.placement, **log_context(ref)
        )
        try:
            with LAUNCH_SECONDS.time():
                instance = self._cloud.run(ref, launch, user_data)
        except AtemporalError as error:
            LAUNCHES.labels(type(error).__name__).inc()
            self._learn(launch, error)
            log.warning("not launched", error=str(error))
            return self._answer(ref, spec, launch, error)
        LAUNCHES.labels("launched").inc()
        self._learn(launch, None)
        self._books.write_down(ref, instance)
        return None

    def _learn(self, launch: Launch, error: AtemporalError | None) -> None:
        """What one call's outcome means for the calls of all attempts."""
        cell = cell_of(launch)
        if isinstance(error, Unauthorized):
            # Whether it is this process that may not, or this cell: see `_forbidden`.
            if not isinstance(error, Forbidden):
                self._trip(error)
        elif isinstance(error, Throttled):
            self.budget.throttled()
            self.circuit.unsure()
        elif isinstance(error, (Unknown, Unreachable)):
            self.circuit.unsure()
        else:
            self.budget.answered()
            self.cells.admitted(cell)
            if self.circuit.mend():
                self.cells.pardon()
                self._log.info("EC2 lets this process in again")
        if isinstance(error, NoCapacity):
            self.cells.no_capacity(cell, said(error))
        elif isinstance(error, OverQuota):
            self.cells.over_quota(cell, said(error))

    def _answer(
        self, ref: AttemptRef, spec: JobSpec, launch: Launch, error: AtemporalError
    ) -> Launch | None:
        """What a failed call means for its attempt; return a candidate to be asked at once."""
        if isinstance(error, (TokenSpent, TokenMismatch)):
            self._books.adopt(ref, error)
        elif isinstance(error, (NoCapacity, OverQuota)):
            if not self._books.launched_earlier(ref, launch):
                return self._place(ref, spec, launch)
        elif isinstance(error, Refused):
            if not self._books.launched_earlier(ref, launch):
                self._books.refuse(ref, str(error))
        elif isinstance(error, Forbidden):
            return self._forbidden(ref, spec, launch, error)
        elif isinstance(error, Unauthorized):
            self._await_circuit(ref, launch)
        elif isinstance(error, Throttled):
            self._books.wait(
                ref, launch, BlockedReason.THROTTLE, said(error), self.budget.ready_in()
            )
        else:
            # The outcome is not known: nothing but the identical call may follow.
            self._books.wait(ref, launch, BlockedReason.ANSWER, said(error), REPEAT_S)
        return None

    def _forbidden(
        self, ref: AttemptRef, spec: JobSpec, launch: Launch, error: Forbidden
    ) -> Launch | None:
        """A policy forbids this cell or everything: close the cell while another may be open to us.

        What one job wants must not stop the others, whose cells are allowed.
        """
        cell = cell_of(launch)
        untried = any(
            other != cell and self.cells.closed(other) is None for other in self._candidates(spec)
        )
        if not untried and not self.cells.admitted_elsewhere(cell):
            self._trip(error)
            self._await_circuit(ref, launch)
            return None
        self.circuit.unsure()
        self.cells.forbidden(cell, said(error))
        if self._books.launched_earlier(ref, launch):
            return None
        return self._place(ref, spec, launch)

    def _place(self, ref: AttemptRef, spec: JobSpec, launch: Launch) -> Launch | None:
        """Commit the first open candidate as the one to ask, or wait until one opens.

        Only for a launch that was never asked for, or has just been refused definitely.
        """
        cells = self._candidates(spec)
        closed = closures(cells, self.cells, self._broken_pools(spec), self._shortages())
        first_open = next((cell for cell in cells if cell not in closed), None)
        wanted = first_open or cells[0]
        if launch.calls or wanted != cell_of(launch):
            before, launch = launch, placed(launch, wanted)
            with self._database.begin() as tx:
                if not launches.replace(tx, ref, before, launch):
                    STALE.labels("launch").inc()
                    return None
        if first_open:
            return launch
        shut = summary(closed)
        self._books.wait(ref, launch, shut.wait, shut.why, shut.for_s)
        return None

    def _plan(self, spec: JobSpec, image_id: str, ours: UUID | None) -> Launch:
        """The intent at first: which candidate is open is looked at before it is asked for."""
        settings = self._settings
        cell = self._candidates(spec)[0]
        return Launch(
            **cell._asdict(),
            calls=0,
            image_id=image_id,
            security_group_ids=settings.security_groups,
            key_name=settings.key_name,
            instance_profile=settings.instance_profile,
            disk_gb=spec.machine.disk_gb,
            callback_base=settings.callback_url,
            key_id=self._key_id,
            installation=ours,
            deadline_s=(
                settings.boot_deadline_s
                + settings.pull_deadline_s
                + spec.timeout_s
                + settings.machine_slack_s
            ),
        )

    def _candidates(self, spec: JobSpec) -> tuple[Cell, ...]:
        return candidates(
            spec.machine,
            instance_types=(self._settings.instance_type,),
            subnets=self._settings.subnets,
        )

    def _broken_pools(self, spec: JobSpec) -> Mapping[Pool, Closed]:
        if spec.machine.capacity_type == "on-demand":
            return {}
        with self._database.begin() as tx:
            happened = launches.spot_interruptions(tx, within_s=self._breaker.memory_s)
        return self._breaker.broken(happened)

    def _shortages(self) -> Mapping[Cell, Closed]:
        """The cells where EC2 granted an instance lately and then had no room for it."""
        capacity_s = self._settings.capacity_cooldown_s
        quota_s = self._settings.quota_cooldown_s
        with self._database.begin() as tx:
            happened = launches.shortages(tx, within_s=max(capacity_s, quota_s))
        return short(happened, capacity_s=capacity_s, quota_s=quota_s)

    def _await_circuit(self, ref: AttemptRef, launch: Launch) -> None:
        seconds = self.circuit.ready_in()
        self._books.wait(ref, launch, BlockedReason.AUTHORIZATION, self.circuit.why, seconds)

    def _trip(self, error: Unauthorized) -> None:
        if self.circuit.trip(said(error)):
            self._log.error("EC2 refuses this process: launches wait", error=str(error))
        CIRCUIT_BREAKER_OPEN.set(1)
