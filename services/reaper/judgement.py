"""What the sweep concludes from one look at the cloud and the books: pure, so that every case of it
can be read in one place and tested without either.

Promise: an instance is ended only on positive evidence (its attempt has ended, another instance has
its attempt, its deadline is over, or nobody has known it for two looks), an attempt only when EC2
itself shows that its instance is gone. That something is missing from a listing proves nothing until
it is `grace_s` old: EC2's answers lag behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from atemporal.cloud import Instance
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState, Reason

# The machine stops its container itself at `timeout_s` and reports; the reaper steps in after this.
RUN_GRACE_S = 120


@dataclass(frozen=True)
class Limits:
    """Seconds: how long each phase may take, and how old a thing must be to count as missing."""

    launch_s: float
    boot_s: float
    pull_s: float
    stop_s: float
    queue_s: float
    grace_s: float


@dataclass
class Findings:
    """What to do. `terminate` says why for each instance id; `lost` are to be looked up once more."""

    terminate: dict[str, str] = field(default_factory=dict)
    adopt: dict[AttemptRef, Instance] = field(default_factory=dict)
    close: dict[AttemptRef, str] = field(default_factory=dict)
    lost: dict[AttemptRef, str | None] = field(default_factory=dict)
    overdue: dict[AttemptRef, Reason] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    overstaying: set[AttemptRef] = field(default_factory=set)


def judge(
    instances: Iterable[Instance],
    attempts: Mapping[AttemptRef, Attempt],
    *,
    timeouts: Mapping[AttemptRef, int],
    now: datetime,
    limits: Limits,
    unknown_before: set[str],
) -> Findings:
    """Compare the cloud's listing with the books, read after it.

    `attempts` holds every attempt that is open or is named by an instance's tags; `timeouts` the
    run limits, in seconds, of those that run.
    """
    found = Findings()
    by_id: dict[str, Instance] = {}
    by_ref: dict[AttemptRef, list[Instance]] = {}
    for instance in instances:
        by_id[instance.id] = instance
        if instance.ref is not None:
            by_ref.setdefault(instance.ref, []).append(instance)
        if not instance.gone:
            _judge_instance(instance, attempts, found, now, limits, unknown_before)
    for ref, attempt in attempts.items():
        if attempt.state is AttemptState.CLOSED:
            continue
        if attempt.instance_id is not None:
            instance_of = by_id.get(attempt.instance_id)
        else:
            instance_of = next(iter(by_ref.get(ref, ())), None)
        if attempt.state is AttemptState.EXITED:
            _judge_ended(attempt, instance_of, found, now, limits)
        else:
            _judge_live(attempt, instance_of, found, now, limits, timeouts.get(ref))
    return found


def _judge_instance(
    instance: Instance,
    attempts: Mapping[AttemptRef, Attempt],
    found: Findings,
    now: datetime,
    limits: Limits,
    unknown_before: set[str],
) -> None:
    attempt = attempts.get(instance.ref) if instance.ref else None
    if attempt is None:
        # Its intent was committed before its launch, so this is no young attempt of ours; a
        # restored database or a second installation with our name is likelier. Be slow.
        if _older(instance.launched_at, now, limits.grace_s):
            found.unknown.add(instance.id)
            if instance.id in unknown_before:
                found.terminate[instance.id] = "no attempt accounts for it"
    elif attempt.state in (AttemptState.EXITED, AttemptState.CLOSED):
        if attempt.instance_id is None and attempt.state is AttemptState.EXITED:
            # Cancelled between the call and its commit: the books are to show it all the same.
            found.adopt[attempt.ref] = instance
        found.terminate[instance.id] = "its attempt has ended"
    elif attempt.instance_id is None:
        found.adopt[attempt.ref] = instance
    elif attempt.instance_id != instance.id:
        found.terminate[instance.id] = f"its attempt belongs to {attempt.instance_id}"


def _judge_ended(
    attempt: Attempt, instance: Instance | None, found: Findings, now: datetime, limits: Limits
) -> None:
    if instance is not None:
        if instance.gone and attempt.instance_id is None:
            # Written down first: the books are to show whatever was launched.
            found.adopt[attempt.ref] = instance
        elif instance.gone:
            found.close[attempt.ref] = f"{instance.id} is {instance.state}"
        elif _older(attempt.exited_at, now, limits.stop_s):
            found.overstaying.add(attempt.ref)
    elif _older(attempt.launched_at or attempt.created_at, now, limits.grace_s) and _older(
        attempt.exited_at, now, limits.grace_s
    ):
        found.close[attempt.ref] = "EC2 does not list an instance of it any more"


def _judge_live(
    attempt: Attempt,
    instance: Instance | None,
    found: Findings,
    now: datetime,
    limits: Limits,
    timeout_s: int | None,
) -> None:
    if instance is not None and instance.state in ("terminated", "stopped"):
        # Whoever stopped it: a second boot is never granted the claim.
        if not instance.gone:
            found.terminate[instance.id] = "it was stopped"
        if attempt.instance_id is None:
            # Written down first: the next sweep asks its console.
            found.adopt[attempt.ref] = instance
        else:
            found.lost[attempt.ref] = instance.state_reason
        return
    if instance is None and attempt.instance_id is not None:
        if _older(attempt.launched_at or attempt.running_at, now, limits.grace_s):
            found.lost[attempt.ref] = "EC2 does not list it any more"
        return
    if attempt.state is AttemptState.RUNNING:
        if timeout_s is not None and _older(attempt.running_at, now, timeout_s + RUN_GRACE_S):
            found.overdue[attempt.ref] = Reason.TIMED_OUT
    elif attempt.instance_id is not None:
        if attempt.booted_at is None:
            if _older(attempt.launched_at, now, limits.boot_s):
                found.overdue[attempt.ref] = Reason.BOOT_DEADLINE
        elif _older(attempt.booted_at, now, limits.pull_s):
            found.overdue[attempt.ref] = Reason.PULL_DEADLINE
    elif instance is None and _older(attempt.created_at, now, limits.launch_s):
        found.overdue[attempt.ref] = Reason.LAUNCH_DEADLINE


def _older(instant: datetime | None, now: datetime, seconds: float) -> bool:
    return instant is not None and (now - instant).total_seconds() > seconds
