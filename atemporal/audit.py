"""Double entry: every instance that EC2 shows against every attempt in the books.

Promise: pure, one look. Nothing is rounded in our favour: an instance that no attempt accounts for,
an attempt whose instance EC2 should show and does not, a second instance for one attempt, an
instance that outlived its attempt, and one that another installation launched under our name are
faults, each by name, until EC2 has forgotten them. What is too young to prove anything is shown as
such and is no fault.
Limits: EC2 forgets an instance about an hour after its end; an attempt closed before that balances
by the books alone (`Settled`), for it was closed on EC2's word. EC2 does not say when an instance
that powered itself off ended; then its attempt's end in the books counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from atemporal.cloud import Instance
from atemporal.model import Attempt

# EC2 says "about an hour" of how long it shows an ended instance; half of it is sure enough.
SHOWN_FOR_S = 1800
SHARED_NAME = (
    "another installation uses this deployment's name in this account: give one of them another "
    "ATEMPORAL_DEPLOYMENT; or this is not the database that launched it: check ATEMPORAL_DATABASE_URL"
)


class Standing(StrEnum):
    """How one row stands."""

    MATCHED = "matched"
    FORGOTTEN = "forgotten"
    YOUNG = "young"
    UNACCOUNTED = "unaccounted"
    DOUBLED = "doubled"
    MISSING = "missing"
    OVERSTAYED = "overstayed"
    FOREIGN = "foreign"

    @property
    def fault(self) -> bool:
        """Whether the books do not balance because of it."""
        return self not in (Standing.MATCHED, Standing.FORGOTTEN, Standing.YOUNG)


@dataclass(frozen=True)
class Row:
    """One instance beside its attempt; one of the two may be lacking.

    `ec2_s` and `books_s` are the instance's seconds by either side; `overstay_s` is by how many it
    outlived its attempt or its own deadline, allowed or not.
    """

    standing: Standing
    instance: Instance | None = None
    attempt: Attempt | None = None
    why: str = ""
    ec2_s: float = 0.0
    books_s: float = 0.0
    overstay_s: float = 0.0


@dataclass(frozen=True)
class Settled:
    """Attempts closed so long ago that EC2 has forgotten them: how many, and their seconds."""

    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Audit:
    """The result: a row for each instance, and for each attempt that names one."""

    at: datetime
    rows: tuple[Row, ...]
    settled: Settled

    @property
    def faults(self) -> tuple[Row, ...]:
        """The rows that do not balance."""
        return tuple(row for row in self.rows if row.standing.fault)

    @property
    def balances(self) -> bool:
        """The verdict."""
        return not self.faults

    @property
    def counts(self) -> dict[Standing, int]:
        """How many rows stand how; every standing is there."""
        counted = Counter(row.standing for row in self.rows)
        return {standing: counted[standing] for standing in Standing}

    @property
    def ec2_s(self) -> float:
        """Instance-seconds of what EC2 shows."""
        return sum(row.ec2_s for row in self.rows)

    @property
    def books_s(self) -> float:
        """Instance-seconds of the same attempts by the books."""
        return sum(row.books_s for row in self.rows)

    @property
    def worst_overstay_s(self) -> float:
        """The longest that an instance outlived its attempt or its deadline, allowed or not."""
        return max((row.overstay_s for row in self.rows), default=0.0)


def audit(
    instances: Iterable[Instance],
    attempts: Iterable[Attempt],
    *,
    installation: UUID,
    now: datetime,
    grace_s: float,
    overstay_s: float,
    settled: Settled = Settled(),
) -> Audit:
    """Compare EC2's listing with the books, read after it; `now` is from before it.

    `attempts` are those that are open, were closed while EC2 still shows their instances, or are
    named by the listing; an instance of which none is, and whose tags name another `installation`,
    is foreign. Below `grace_s` seconds of age nothing is missing; `overstay_s` is how many
    seconds an instance may need to end.
    """
    books = list(attempts)
    by_instance = {one.instance_id: one for one in books if one.instance_id}
    by_ref = {one.ref: one for one in books}
    rows: list[Row] = []
    shown: set[str] = set()
    for instance in instances:
        shown.add(instance.id)
        owner = by_instance.get(instance.id)
        named = by_ref.get(instance.ref) if instance.ref else None
        if named is None and instance.foreign_to(installation):
            rows.append(_foreign(instance, owner, now))
        elif owner is not None:
            rows.append(_matched(instance, owner, now, overstay_s))
        else:
            rows.append(_unmatched(instance, named, now, grace_s))
    rows += [
        _absent(one, now, grace_s)
        for one in books
        if one.instance_id and one.instance_id not in shown
    ]
    return Audit(now, tuple(rows), settled)


def _matched(instance: Instance, attempt: Attempt, now: datetime, allowed_s: float) -> Row:
    if instance.gone:
        until = instance.ended_at or attempt.closed_at or attempt.exited_at or now
    else:
        until = instance.ended_at or now
    standing, why, overstay_s = Standing.MATCHED, "", 0.0
    # An instance that is gone at a time nobody knows is not accused.
    if instance.ended_at or not instance.gone:
        for limit, beyond in (
            (attempt.exited_at, "after its attempt had ended"),
            (_deadline(instance, attempt), "after its own deadline"),
        ):
            late_s = (until - limit).total_seconds() if limit else 0.0
            overstay_s = max(overstay_s, late_s)
            if late_s > allowed_s:
                standing, why = Standing.OVERSTAYED, f"it lived {late_s:.0f} s {beyond}"
    return Row(
        standing,
        instance,
        attempt,
        why,
        ec2_s=_seconds(instance.launched_at, until),
        books_s=_by_the_books(attempt, now),
        overstay_s=overstay_s,
    )


def _unmatched(instance: Instance, attempt: Attempt | None, now: datetime, grace_s: float) -> Row:
    if attempt is None:
        why = "no attempt is known by its tags" if instance.ref else "its tags name no attempt"
    elif attempt.instance_id is None:
        why = f"its attempt is {attempt.state} and has no instance written down"
    else:
        why = f"its attempt has another instance, {attempt.instance_id}"
    if attempt is not None and attempt.instance_id is not None:
        standing = Standing.DOUBLED
    elif instance.launched_at and (now - instance.launched_at).total_seconds() <= grace_s:
        standing = Standing.YOUNG
    else:
        standing = Standing.UNACCOUNTED
    until = instance.ended_at or now
    return Row(standing, instance, attempt, why, ec2_s=_seconds(instance.launched_at, until))


def _foreign(instance: Instance, attempt: Attempt | None, now: datetime) -> Row:
    until = instance.ended_at or now
    ec2_s = _seconds(instance.launched_at, until)
    return Row(Standing.FOREIGN, instance, attempt, SHARED_NAME, ec2_s=ec2_s)


def _absent(attempt: Attempt, now: datetime, grace_s: float) -> Row:
    began = _began(attempt)
    if attempt.closed_at and (now - attempt.closed_at).total_seconds() > SHOWN_FOR_S:
        standing, why = Standing.FORGOTTEN, "EC2 has forgotten it"
    elif not attempt.closed_at and (now - began).total_seconds() <= grace_s:
        standing, why = Standing.YOUNG, "EC2 does not show its instance yet"
    else:
        standing, why = Standing.MISSING, f"it is {attempt.state} and EC2 shows no such instance"
    return Row(standing, None, attempt, why, books_s=_by_the_books(attempt, now))


def _deadline(instance: Instance, attempt: Attempt) -> datetime | None:
    if instance.launched_at is None:
        return None
    return instance.launched_at + timedelta(seconds=attempt.launch.deadline_s)


def _began(attempt: Attempt) -> datetime:
    # A machine can claim before the launcher has written its instance down.
    return attempt.launched_at or attempt.running_at or attempt.created_at


def _by_the_books(attempt: Attempt, now: datetime) -> float:
    return _seconds(_began(attempt), attempt.closed_at or now)


def _seconds(since: datetime | None, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds()) if since else 0.0
