"""What is to be done about the fleet: one pure decision, so that every case of it can be read in one
place and tested without EC2 and without a database.

Promise: an instance is ended only on positive evidence (its attempt has ended, another instance has
its attempt, its deadline is over, or no attempt has accounted for it in two snapshots), an attempt
only when EC2 itself shows that its instance is gone. That something is missing from a listing proves
nothing by itself: `absence` says when it does. What EC2 shows by its id counts always. One that powered
itself off before its boot callback never ran anything: that is its boot deadline, and not a loss. A run
that is over its time while EC2 knows nothing of its instance is lost and not timed out: nobody can say
that the program is to blame.
An instance that is ending already is not ended again, but for one that does not come to its end: that
one is forced. What is ended at once and what may stop in order, `ending` says.
An attempt's instance is one that EC2 shows as its own, also after the attempt was closed: then it is
written down before anything else is concluded. What a machine claims to be counts only to choose among
those.
Mechanism: what one decision has to remember for the next is its `Memory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from atemporal.cloud.instance import Instance
from atemporal.end_code import (
    SHORTAGES,
    is_ec2s_fault,
    is_own_shutdown,
    is_spot_interruption,
)
from atemporal.fleet.absence import Absence, absence_in
from atemporal.fleet.ending import ENDING, TerminationCause, nothing_runs
from atemporal.fleet.snapshot import Snapshot
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState, Reason

# The machine stops its container itself at `timeout_s` and reports; the reaper steps in after this.
RUN_GRACE_S = 120
# A machine that is ready asks every few seconds, and claims at its time: its callbacks are repeated with
# pauses of half a minute at most, and an API that is away for some minutes is no fault of it.
CLAIM_GRACE_S = 900
# A machine that never calls costs money until it is given up. One that takes so many times what hardly
# any took lately will not come; a quick kind has at least so many seconds.
BOOT_FACTOR, BOOT_LEAST_S = 3.0, 180.0
# EC2 posts a machine's last console output some time after it shows the machine gone: more than three
# minutes have been seen, and to give up earlier runs a program again that has ended.
CONSOLE_S = 300
_BEFORE_BOOT = (
    "without a boot callback: can it reach ATEMPORAL_CALLBACK_URL? Its console (EC2, "
    "`get-console-output`) says how far it came"
)
# What was seen gone so long ago somebody else has dealt with: a process that never sweeps, because
# another does, must not remember it for ever.
REMEMBERED_S = 3600


@dataclass(frozen=True)
class Limits:
    """Seconds: how long each phase may take, and how old a thing must be to count as missing."""

    launch_s: float
    boot_s: float
    pull_s: float
    stop_s: float
    queue_s: float
    grace_s: float


@dataclass(frozen=True)
class Close:
    """An ended attempt whose instance is gone: a sentence for people, and EC2's code for its end."""

    sentence: str
    end_code: str | None = None


@dataclass(frozen=True)
class Loss:
    """An instance gone under its live attempt; `final`: a console without a record stays so."""

    reason: Reason
    final: bool
    end_code: str | None = None
    sentence: str | None = None


@dataclass(frozen=True)
class Shortage:
    """A launch that EC2 granted and then had no room for; `patience_s` is how long to try again."""

    end_code: str
    patience_s: float


@dataclass(frozen=True)
class Memory:
    """What one decision leaves to the next.

    `orphaned` and `missing` are marks: such a thing counts when it is seen again. `listing_empty`
    says that the last listing showed none of ours. `gone_since` is when instances were first seen
    gone under live attempts, `forced` when instances were last forced to their end.
    """

    orphaned: frozenset[str] = frozenset()
    missing: frozenset[AttemptRef] = frozenset()
    listing_empty: bool = False
    gone_since: Mapping[AttemptRef, datetime] = field(default_factory=dict)
    forced: Mapping[str, datetime] = field(default_factory=dict)

    def without_marks(self) -> Memory:
        """The memory after a failure: a thing must be orphaned, or missing, twice in a row."""
        return replace(self, orphaned=frozenset(), missing=frozenset())


@dataclass(frozen=True)
class Plan:
    """What to do, and what to tell.

    On those in `at_once` nothing runs that should stop in order; those in `forced` have been ending for
    too long.
    `lost` and `overdue` attempts that had an instance are ended by its console's record, if it has
    one. `leaked` are ended attempts whose instance does not end, `strays` instances that EC2 shows
    by their id alone, by the attempt that has them.
    """

    terminate: dict[str, TerminationCause] = field(default_factory=dict)
    at_once: set[str] = field(default_factory=set)
    forced: set[str] = field(default_factory=set)
    adopt: dict[AttemptRef, Instance] = field(default_factory=dict)
    addresses: dict[AttemptRef, Instance] = field(default_factory=dict)
    close: dict[AttemptRef, Close] = field(default_factory=dict)
    short: dict[AttemptRef, Shortage] = field(default_factory=dict)
    lost: dict[AttemptRef, Loss] = field(default_factory=dict)
    overdue: dict[AttemptRef, Reason] = field(default_factory=dict)
    orphaned: set[str] = field(default_factory=set)
    leaked: set[AttemptRef] = field(default_factory=set)
    strays: dict[AttemptRef, Instance] = field(default_factory=dict)


class Decision(NamedTuple):
    """A plan, and the memory for the next one."""

    plan: Plan
    memory: Memory


def decide(snapshot: Snapshot, limits: Limits, memory: Memory) -> Decision:
    """Decide what is to be done; `memory` is what the last decision left.

    A snapshot that is not whole proves no absence, so it leaves the marks as they are.
    """
    absence = absence_in(
        snapshot, limits.grace_s, missing_before=memory.missing, empty_before=memory.listing_empty
    )
    case = _Case(snapshot, limits, memory, absence)
    plan = case.decide()
    if not snapshot.whole:
        kept = {
            ref: since
            for ref, since in memory.gone_since.items()
            if not snapshot.is_older(since, REMEMBERED_S)
        }
        forced = {**memory.forced, **case.forced}
        return Decision(
            plan, replace(memory, gone_since={**kept, **case.gone_since}, forced=forced)
        )
    # What a listing shows that is empty of ours may be another deployment's.
    orphaned = frozenset() if absence.listing_empty else frozenset(plan.orphaned)
    return Decision(
        plan,
        Memory(orphaned, absence.missing, absence.listing_empty, case.gone_since, case.forced),
    )


class _Case:
    """One decision in the making: what is known, and the plan so far."""

    def __init__(
        self, snapshot: Snapshot, limits: Limits, memory: Memory, absence: Absence
    ) -> None:
        self._snapshot = snapshot
        self._now = snapshot.now
        self._limits = limits
        self._memory = memory
        self._absence = absence
        self._by_id = snapshot.by_id or {}
        self._listed: dict[str | None, Instance] = {one.id: one for one in snapshot.instances}
        self._own: dict[AttemptRef, list[Instance]] = {}
        for one in snapshot.instances:
            if one.ref is not None:
                self._own.setdefault(one.ref, []).append(one)
        self._plan = Plan()
        self.gone_since: dict[AttemptRef, datetime] = {}
        self.forced: dict[str, datetime] = {}

    def decide(self) -> Plan:
        for instance in self._snapshot.instances:
            if not instance.gone:
                self._of_instance(instance)
        for ref, attempt in self._snapshot.attempts.items():
            instance_of = self._instance_of(attempt)
            absent = ref in self._absence.proven
            if attempt.state is AttemptState.CLOSED:
                if attempt.instance_id is None and instance_of and instance_of.gone:
                    self._plan.adopt[ref] = instance_of
            elif attempt.state is AttemptState.EXITED:
                self._of_ended(attempt, instance_of, absent)
            elif _gone(instance_of, absent):
                self._of_gone(attempt, instance_of)
            else:
                self._of_live(attempt, instance_of)
        for instance_id in self._by_id.keys() - self._listed.keys():
            # What does not carry our tag is not ours to end.
            self._plan.terminate.pop(instance_id, None)
        for instance in self._snapshot.instances:
            if instance.state == ENDING and instance.id in self._plan.terminate:
                self._of_ending(instance)
        return self._plan

    def _of_ending(self, instance: Instance) -> None:
        """Its end has begun: asked again only when it does not come, and then by force."""
        attempt = self._snapshot.attempts.get(instance.ref) if instance.ref else None
        since = instance.ended_at or (attempt.exited_at if attempt else None)
        last = self._memory.forced.get(instance.id)
        stop_s = self._limits.stop_s
        is_older = self._snapshot.is_older
        if is_older(since, stop_s) and (last is None or is_older(last, stop_s)):
            self._plan.forced.add(instance.id)
            self.forced[instance.id] = self._now
            return
        if last is not None:
            self.forced[instance.id] = last
        del self._plan.terminate[instance.id]
        self._plan.at_once.discard(instance.id)

    def _instance_of(self, attempt: Attempt) -> Instance | None:
        """The attempt's instance as EC2 shows it; it may be another than the recorded one."""
        own = self._own.get(attempt.ref, ())
        claimant = next((one for one in own if one.id == attempt.claimed_instance_id), None)
        if claimant is not None and attempt.state is AttemptState.RUNNING:
            return claimant
        if attempt.instance_id in self._listed:
            return self._listed[attempt.instance_id]
        if attempt.instance_id is None and own:
            # One that lives, else the first.
            return min(own, key=lambda one: one.gone)
        stray = self._snapshot.looked_up(attempt)
        if stray is not None and attempt.state is not AttemptState.CLOSED:
            self._plan.strays[attempt.ref] = stray
        return stray

    def _of_instance(self, instance: Instance) -> None:
        attempt = self._snapshot.attempts.get(instance.ref) if instance.ref else None
        if attempt is None and instance.group_id in self._snapshot.launching:
            return  # the answer to its launch may be on its way into the records
        if attempt is None:
            # Its intent was committed before its launch, so this is no young attempt of ours; a
            # restored database or a second installation with our name is likelier. Be slow.
            if self._snapshot.is_older(instance.launched_at, self._limits.grace_s):
                self._plan.orphaned.add(instance.id)
                before = instance.id in self._memory.orphaned
                if self._snapshot.whole and before and not self._absence.listing_empty:
                    self._plan.terminate[instance.id] = TerminationCause.ORPHANED
        elif attempt.state in (AttemptState.EXITED, AttemptState.CLOSED):
            self._plan.terminate[instance.id] = TerminationCause.ATTEMPT_ENDED
            if nothing_runs(attempt):
                self._plan.at_once.add(instance.id)
        elif attempt.instance_id not in (None, instance.id) and not self._ran(attempt, instance):
            self._plan.terminate[instance.id] = TerminationCause.DUPLICATE

    def _ran(self, attempt: Attempt, instance: Instance) -> bool:
        """Whether the attempt's container runs on this one of its instances."""
        running = attempt.state is AttemptState.RUNNING
        return running and attempt.claimed_instance_id == instance.id

    def _of_ended(self, attempt: Attempt, instance: Instance | None, absent: bool) -> None:
        if instance is not None:
            if attempt.instance_id is None:
                # Its launch had no answer, or came with a cancel. Written down first: whatever was
                # launched is recorded.
                self._plan.adopt[attempt.ref] = instance
            elif instance.gone:
                code = instance.state_reason
                why = f": {code}" if code else ""
                sentence = f"{instance.id} is {instance.state}{why}"
                self._plan.close[attempt.ref] = Close(sentence, code)
            elif self._snapshot.is_older(attempt.exited_at, self._limits.stop_s):
                self._plan.leaked.add(attempt.ref)
        elif absent:
            self._plan.close[attempt.ref] = Close("EC2 does not list an instance of it any more")

    def _of_gone(self, attempt: Attempt, instance: Instance | None) -> None:
        if instance is not None and not instance.gone:
            self._plan.terminate[instance.id] = TerminationCause.STOPPED
        if instance is not None and attempt.instance_id != instance.id:
            # Written down first: the next sweep asks its console.
            self._plan.adopt[attempt.ref] = instance
            return
        code = instance.state_reason if instance else None
        is_spot = is_spot_interruption(code)
        never_booted = not (attempt.booted_at or attempt.ready_at or attempt.running_at)
        if never_booted and code in SHORTAGES:
            # There never was a machine, so there is no console either.
            self._plan.short[attempt.ref] = Shortage(code, self._limits.launch_s)
            return
        since = self._memory.gone_since.get(attempt.ref, self._now)
        self.gone_since[attempt.ref] = since
        never_ran = never_booted and is_ec2s_fault(code) and not is_spot
        # Without an instance there is no console.
        final = (
            never_ran
            or attempt.instance_id is None
            or self._snapshot.is_older(since, min(self._limits.grace_s, CONSOLE_S))
        )
        if instance is None:
            loss = Loss(Reason.INSTANCE_LOST, final, code, "EC2 does not list it any more")
        elif never_booted and is_own_shutdown(code):
            # It gave up before its deadline came, and the program is known never to have run.
            sentence = f"{instance.id} powered itself off {_BEFORE_BOOT}"
            loss = Loss(Reason.BOOT_DEADLINE, final, code, sentence)
        else:
            loss = Loss(Reason.SPOT_INTERRUPTED if is_spot else Reason.INSTANCE_LOST, final, code)
        self._plan.lost[attempt.ref] = loss

    def _of_live(self, attempt: Attempt, instance: Instance | None) -> None:
        if instance is not None and attempt.instance_id != instance.id:
            self._plan.adopt[attempt.ref] = instance
            return
        if instance is not None:
            news = (instance.public_dns, instance.public_ip)
            known = (attempt.public_dns, attempt.public_ip)
            if any(new and not old for new, old in zip(news, known, strict=True)):
                # The message that it runs was lost.
                self._plan.addresses[attempt.ref] = instance
        if reason := self._overdue(attempt, instance):
            self._plan.overdue[attempt.ref] = reason

    def _overdue(self, attempt: Attempt, instance: Instance | None) -> Reason | None:
        limits, absence = self._limits, self._absence
        if attempt.state is AttemptState.RUNNING:
            timeout_s = self._snapshot.timeouts.get(attempt.ref)
            if timeout_s is None or attempt.ref in absence.unasked:
                return None
            if not self._snapshot.is_older(attempt.running_at, timeout_s + RUN_GRACE_S):
                return None
            return Reason.INSTANCE_LOST if attempt.ref in absence.unknown else Reason.TIMED_OUT
        if attempt.state is AttemptState.READY:
            held_until = max(filter(None, (attempt.ready_at, attempt.start_at)), default=None)
            late = self._snapshot.is_older(held_until, CLAIM_GRACE_S)
            return Reason.CLAIM_DEADLINE if late else None
        if attempt.instance_id is None:
            late = instance is None and self._snapshot.is_older(
                attempt.created_at, limits.launch_s
            )
            return Reason.LAUNCH_DEADLINE if late else None
        if attempt.booted_at is None:
            late = self._snapshot.is_older(attempt.launched_at, self._boot_s(attempt))
            return Reason.BOOT_DEADLINE if late else None
        late = self._snapshot.is_older(attempt.booted_at, limits.pull_s)
        return Reason.PULL_DEADLINE if late else None

    def _boot_s(self, attempt: Attempt) -> float:
        """How long its machine may boot: less than the limit where its kind is known to be quick.

        Only if another machine was heard since this one was launched: else it may be the API that
        hears nobody.
        """
        launch, heard_at = attempt.launch, self._snapshot.last_boot_at
        if heard_at is None or attempt.launched_at is None or heard_at < attempt.launched_at:
            return self._limits.boot_s
        slowest_s = self._snapshot.slowest_boots.get((launch.instance_type, launch.image_id))
        if slowest_s is None:
            return self._limits.boot_s
        return min(self._limits.boot_s, max(BOOT_LEAST_S, BOOT_FACTOR * slowest_s))


def _gone(instance: Instance | None, absent: bool) -> bool:
    # Whoever stopped it: a second boot is never granted the claim.
    return absent if instance is None else instance.state in ("terminated", "stopped")
