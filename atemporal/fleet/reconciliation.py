"""Reconciliation: every instance that EC2 shows against every attempt that is recorded.

Promise: pure, over one snapshot. Nothing is rounded in our favour: an orphaned instance, a second one
for the same attempt, an attempt whose instance EC2 should show and does not, an instance that outlived
its attempt, and one that another installation launched under our name are drift, each by name, until
EC2 has forgotten them. What is too young to prove anything is shown as such and is no drift.
Limits: EC2 forgets an instance about an hour after its end; an attempt closed before that is in sync
by the records alone (`Settled`), for it was closed on EC2's word. EC2 does not say when an instance
that powered itself off ended; then the recorded end of its attempt counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import inf

from atemporal.cloud.instance import Instance
from atemporal.fleet.snapshot import Settled, Snapshot
from atemporal.model import Attempt
from atemporal.states import AttemptState

# EC2 says "about an hour" of how long it shows an ended instance; half of it is sure enough.
SHOWN_FOR_S = 1800
SHARED_NAME = (
    "another installation uses this deployment's name in this account: give one of them another "
    "ATEMPORAL_DEPLOYMENT; or this is not the database that launched it: check ATEMPORAL_DATABASE_URL"
)


class Status(StrEnum):
    """How one row stands."""

    MATCHED = "matched"
    FORGOTTEN = "forgotten"
    YOUNG = "young"
    ORPHANED = "orphaned"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    LEAKED = "leaked"
    FOREIGN = "foreign"

    @property
    def is_drift(self) -> bool:
        """Whether EC2 and the records differ because of it."""
        return self not in (Status.MATCHED, Status.FORGOTTEN, Status.YOUNG)


@dataclass(frozen=True)
class Row:
    """One instance beside its attempt; one of the two may be lacking.

    `ec2_s` and `recorded_s` are the instance's seconds by either side; `leak_s` is by how many it
    outlived its attempt or its own deadline, allowed or not.
    """

    status: Status
    instance: Instance | None = None
    attempt: Attempt | None = None
    why: str = ""
    ec2_s: float = 0.0
    recorded_s: float = 0.0
    leak_s: float = 0.0


@dataclass(frozen=True)
class Reconciliation:
    """The result: a row for each instance, and for each attempt that names one."""

    at: datetime
    rows: tuple[Row, ...]
    settled: Settled

    @property
    def drift(self) -> tuple[Row, ...]:
        """The rows in which EC2 and the records differ."""
        return tuple(row for row in self.rows if row.status.is_drift)

    @property
    def in_sync(self) -> bool:
        """The verdict: there is no drift."""
        return not self.drift

    @property
    def counts(self) -> dict[Status, int]:
        """How many rows have which status; every status is there."""
        counted = Counter(row.status for row in self.rows)
        return {status: counted[status] for status in Status}

    @property
    def ec2_s(self) -> float:
        """Instance-seconds of what EC2 shows."""
        return sum(row.ec2_s for row in self.rows)

    @property
    def recorded_s(self) -> float:
        """Instance-seconds of the same attempts by the records."""
        return sum(row.recorded_s for row in self.rows)

    @property
    def worst_leak_s(self) -> float:
        """The longest that an instance outlived its attempt or its deadline, allowed or not."""
        return max((row.leak_s for row in self.rows), default=0.0)


def reconcile(snapshot: Snapshot, *, grace_s: float, stop_s: float) -> Reconciliation:
    """Compare both sides of a snapshot, which holds the attempts closed lately too.

    Below `grace_s` seconds of age nothing is missing; `stop_s` is how many seconds an instance may
    need to end. An instance whose attempt can not be read is an orphan here: somebody has to see it.
    """
    now = snapshot.now
    owners = {one.instance_id: one for one in snapshot.attempts.values() if one.instance_id}
    rows: list[Row] = []
    for instance in (*snapshot.instances, *snapshot.unreadable):
        owner = owners.get(instance.id)
        if owner is not None:
            rows.append(_matched(instance, owner, now, stop_s))
        else:
            named = snapshot.attempts.get(instance.ref) if instance.ref else None
            launching = instance.group_id in snapshot.launching
            rows.append(_unmatched(instance, named, now, inf if launching else grace_s))
    rows += [_foreign(one, owners.get(one.id), now) for one in snapshot.foreign]
    shown = {one.id for one in snapshot.listed}
    shown_for = {one.ref for one in snapshot.listed}
    for one in snapshot.attempts.values():
        # One that runs has an instance, also when nobody has written down which.
        runs = one.state is AttemptState.RUNNING and one.ref not in shown_for
        if one.instance_id not in shown if one.instance_id else runs:
            rows.append(_absent(one, now, grace_s))
    return Reconciliation(now, tuple(rows), snapshot.settled)


def _matched(instance: Instance, attempt: Attempt, now: datetime, allowed_s: float) -> Row:
    if instance.gone:
        until = instance.ended_at or attempt.closed_at or attempt.exited_at or now
    else:
        until = instance.ended_at or now
    status, why, leak_s = Status.MATCHED, "", 0.0
    # An instance that is gone at a time nobody knows is not accused.
    if instance.ended_at or not instance.gone:
        for limit, beyond in (
            (_end(instance, attempt), "after its attempt had ended"),
            (_deadline(instance, attempt), "after its own deadline"),
        ):
            late_s = (until - limit).total_seconds() if limit else 0.0
            leak_s = max(leak_s, late_s)
            if late_s > allowed_s:
                status, why = Status.LEAKED, f"it lived {late_s:.0f} s {beyond}"
    return Row(
        status,
        instance,
        attempt,
        why,
        ec2_s=_seconds(instance.launched_at, until),
        recorded_s=_recorded_s(attempt, now),
        leak_s=leak_s,
    )


def _unmatched(instance: Instance, attempt: Attempt | None, now: datetime, grace_s: float) -> Row:
    if attempt is None:
        why = "no attempt is known by its tags" if instance.ref else "its tags name no attempt"
        if instance.group_id and not instance.ref:
            why = "no attempt of its launch group has it"
    elif attempt.instance_id is None:
        why = f"its attempt is {attempt.state} and has no instance written down"
    else:
        why = f"its attempt has another instance, {attempt.instance_id}"
    if attempt is not None and attempt.instance_id is not None:
        status = Status.DUPLICATE
    elif instance.launched_at and (now - instance.launched_at).total_seconds() <= grace_s:
        status = Status.YOUNG
    else:
        status = Status.ORPHANED
    until = instance.ended_at or now
    return Row(status, instance, attempt, why, ec2_s=_seconds(instance.launched_at, until))


def _foreign(instance: Instance, attempt: Attempt | None, now: datetime) -> Row:
    until = instance.ended_at or now
    ec2_s = _seconds(instance.launched_at, until)
    return Row(Status.FOREIGN, instance, attempt, SHARED_NAME, ec2_s=ec2_s)


def _absent(attempt: Attempt, now: datetime, grace_s: float) -> Row:
    began = _began(attempt)
    if attempt.closed_at and (now - attempt.closed_at).total_seconds() > SHOWN_FOR_S:
        status, why = Status.FORGOTTEN, "EC2 has forgotten it"
    elif not attempt.closed_at and (now - began).total_seconds() <= grace_s:
        status, why = Status.YOUNG, "EC2 does not show its instance yet"
    else:
        no = "no such instance" if attempt.instance_id else "no instance of it"
        status, why = Status.MISSING, f"it is {attempt.state} and EC2 shows {no}"
    return Row(status, None, attempt, why, recorded_s=_recorded_s(attempt, now))


def _end(instance: Instance, attempt: Attempt) -> datetime | None:
    """From when on the instance should not be; one that came later should never have been."""
    if attempt.exited_at is None or instance.launched_at is None:
        return attempt.exited_at
    return max(attempt.exited_at, instance.launched_at)


def _deadline(instance: Instance, attempt: Attempt) -> datetime | None:
    if instance.launched_at is None:
        return None
    return instance.launched_at + timedelta(seconds=attempt.launch.deadline_s)


def _began(attempt: Attempt) -> datetime:
    # A machine can claim before the launcher has written its instance down.
    return attempt.launched_at or attempt.running_at or attempt.created_at


def _recorded_s(attempt: Attempt, now: datetime) -> float:
    return _seconds(_began(attempt), attempt.closed_at or now)


def _seconds(since: datetime | None, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds()) if since else 0.0
