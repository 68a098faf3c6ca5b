"""What the sweep concludes from one look at the cloud and the books: pure, so that every case of it
can be read in one place and tested without either.

Promise: an instance is ended only on positive evidence (its attempt has ended, another instance has
its attempt, its deadline is over, or nobody has known it for two looks), an attempt only when EC2
itself shows that its instance is gone. That something is missing from a listing proves nothing by
itself: EC2's answers lag behind, and the listing goes by tags. It counts when the thing is `grace_s`
old, was missing in the listing before too, and EC2 does not know its id either; and never while the
listing is `blind`, which is what wrong credentials, a wrong region or a wrong deployment look like.
What no attempt accounts for and another installation launched is set `apart` before anything else.
What EC2 shows by its id counts always. A run that is over its time while EC2 knows nothing of its
instance is lost and not timed out: nobody can say that the program is to blame.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from atemporal.cloud import Instance
from atemporal.end_code import SHORTAGES, is_ec2s_fault, is_spot_interruption
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState, Reason

# The machine stops its container itself at `timeout_s` and reports; the reaper steps in after this.
RUN_GRACE_S = 120
# EC2 posts a machine's last console output some time after it shows the machine gone.
CONSOLE_S = 120


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
class Absence:
    """What is known about instances that the listing does not show.

    `strays` are instances that EC2 shows by their id: their tags are gone, they are not. `unknown`
    are the attempts whose instance's id it does not know, `proven` those of them that have no
    instance any more. Of the `unasked` nothing is known, for EC2 could not be asked.
    """

    proven: Collection[AttemptRef] = ()
    strays: Mapping[str, Instance] = field(default_factory=dict)
    unknown: Collection[AttemptRef] = ()
    unasked: Collection[AttemptRef] = ()


NOTHING_ABSENT = Absence()


@dataclass(frozen=True)
class Loss:
    """An instance gone under its live attempt; `final`: a console without a record stays so."""

    why: str
    end_code: str | None
    reason: Reason
    final: bool


@dataclass
class Findings:
    """What to do. `terminate` says why for each instance id; `lost` are to be looked up once more,
    `scarce` got no machine for want of room, with EC2's code for it.

    `gone_since` is to be handed to the next judgement.
    """

    terminate: dict[str, str] = field(default_factory=dict)
    adopt: dict[AttemptRef, Instance] = field(default_factory=dict)
    close: dict[AttemptRef, str] = field(default_factory=dict)
    end_codes: dict[AttemptRef, str] = field(default_factory=dict)
    lost: dict[AttemptRef, Loss] = field(default_factory=dict)
    gone_since: dict[AttemptRef, datetime] = field(default_factory=dict)
    addresses: dict[AttemptRef, Instance] = field(default_factory=dict)
    overdue: dict[AttemptRef, Reason] = field(default_factory=dict)
    scarce: dict[AttemptRef, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    overstaying: set[AttemptRef] = field(default_factory=set)


def apart(
    instances: Iterable[Instance],
    attempts: Mapping[AttemptRef, Attempt],
    installation: UUID,
) -> tuple[list[Instance], list[Instance]]:
    """Set the instances of other installations apart from those that are to be judged.

    Only what carries another's id and that no attempt accounts for: whatever a machine claimed to
    be, and whichever database this is, what is in these books goes by them.
    """
    ours: list[Instance] = []
    others: list[Instance] = []
    for one in instances:
        theirs = one.ref not in attempts and one.foreign_to(installation)
        (others if theirs else ours).append(one)
    return ours, others


def missing(
    instances: Iterable[Instance],
    attempts: Mapping[AttemptRef, Attempt],
    *,
    now: datetime,
    limits: Limits,
) -> set[AttemptRef]:
    """The open attempts whose instance should be listed by now and is not."""
    instances = list(instances)
    ids = {one.id for one in instances}
    refs = {one.ref for one in instances}
    found = set()
    for ref, attempt in attempts.items():
        if attempt.state is AttemptState.CLOSED:
            continue
        since = attempt.launched_at or attempt.running_at
        if attempt.state is AttemptState.EXITED:
            old = _older(since or attempt.created_at, now, limits.grace_s) and _older(
                attempt.exited_at, now, limits.grace_s
            )
        else:
            old = attempt.instance_id is not None and _older(since, now, limits.grace_s)
        shown = attempt.instance_id in ids if attempt.instance_id else ref in refs
        if old and not shown:
            found.add(ref)
    return found


def blind(
    instances: Iterable[Instance],
    attempts: Mapping[AttemptRef, Attempt],
    missed: Collection[AttemptRef],
) -> bool:
    """Whether the listing shows none of the books' instances, though some should be there."""
    ids = {one.instance_id for one in attempts.values()}
    return any(attempts[ref].state is not AttemptState.EXITED for ref in missed) and not any(
        one.id in ids or one.ref in attempts for one in instances
    )


def judge(
    instances: Iterable[Instance],
    attempts: Mapping[AttemptRef, Attempt],
    *,
    timeouts: Mapping[AttemptRef, int],
    now: datetime,
    limits: Limits,
    unknown_before: set[str],
    absence: Absence = NOTHING_ABSENT,
    gone_before: Mapping[AttemptRef, datetime] | None = None,
) -> Findings:
    """Compare the cloud's listing with the books, read after it.

    `attempts` holds every attempt that is open or is named by an instance's tags; `timeouts` the
    run limits, in seconds, of those that run; `gone_before` since when instances were seen gone.
    """
    found = Findings(gone_since=dict(gone_before or {}))
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
            id_ = attempt.instance_id
            instance_of = by_id.get(id_) or absence.strays.get(id_)
        else:
            instance_of = next(iter(by_ref.get(ref, ())), None)
        if attempt.state is AttemptState.EXITED:
            _judge_ended(attempt, instance_of, found, now, limits, ref in absence.proven)
        elif _gone(instance_of, ref in absence.proven):
            _judge_gone(attempt, instance_of, found, now, limits)
        else:
            _judge_live(attempt, instance_of, found, now, limits, timeouts.get(ref), absence)
    for instance_id in absence.strays:
        # What does not carry our tag is not ours to end.
        found.terminate.pop(instance_id, None)
    found.gone_since = {ref: found.gone_since[ref] for ref in found.lost}
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
    attempt: Attempt,
    instance: Instance | None,
    found: Findings,
    now: datetime,
    limits: Limits,
    absent: bool,
) -> None:
    if instance is not None:
        if instance.gone and attempt.instance_id is None:
            # Written down first: the books are to show whatever was launched.
            found.adopt[attempt.ref] = instance
        elif instance.gone:
            why = f": {instance.state_reason}" if instance.state_reason else ""
            found.close[attempt.ref] = f"{instance.id} is {instance.state}{why}"
            if instance.state_reason:
                found.end_codes[attempt.ref] = instance.state_reason
        elif _older(attempt.exited_at, now, limits.stop_s):
            found.overstaying.add(attempt.ref)
    elif absent:
        found.close[attempt.ref] = "EC2 does not list an instance of it any more"


def _gone(instance: Instance | None, absent: bool) -> bool:
    # Whoever stopped it: a second boot is never granted the claim.
    return absent if instance is None else instance.state in ("terminated", "stopped")


def _judge_gone(
    attempt: Attempt, instance: Instance | None, found: Findings, now: datetime, limits: Limits
) -> None:
    if instance is not None and not instance.gone:
        found.terminate[instance.id] = "it was stopped"
    if instance is not None and attempt.instance_id is None:
        # Written down first: the next sweep asks its console.
        found.adopt[attempt.ref] = instance
        return
    code = instance.state_reason if instance else None
    spot = is_spot_interruption(code)
    no_word = attempt.booted_at is None and attempt.running_at is None
    if no_word and code in SHORTAGES:
        # There never was a machine, so there is no console either.
        found.scarce[attempt.ref] = code
        return
    never_ran = no_word and is_ec2s_fault(code) and not spot
    since = found.gone_since.setdefault(attempt.ref, now)
    found.lost[attempt.ref] = Loss(
        code or ("" if instance else "EC2 does not list it any more"),
        code,
        Reason.SPOT_INTERRUPTED if spot else Reason.INSTANCE_LOST,
        final=never_ran or _older(since, now, min(limits.grace_s, CONSOLE_S)),
    )


def _judge_live(
    attempt: Attempt,
    instance: Instance | None,
    found: Findings,
    now: datetime,
    limits: Limits,
    timeout_s: int | None,
    absence: Absence,
) -> None:
    if instance is not None and attempt.instance_id is not None:
        news = (instance.public_dns, instance.public_ip)
        known = (attempt.public_dns, attempt.public_ip)
        if any(new and not old for new, old in zip(news, known, strict=True)):
            # The message that it runs was lost.
            found.addresses[attempt.ref] = instance
    if attempt.state is AttemptState.RUNNING:
        over = timeout_s is not None and _older(attempt.running_at, now, timeout_s + RUN_GRACE_S)
        if over and attempt.ref not in absence.unasked:
            lost = attempt.ref in absence.unknown
            found.overdue[attempt.ref] = Reason.INSTANCE_LOST if lost else Reason.TIMED_OUT
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
