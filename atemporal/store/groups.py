"""Launch groups: attempts that one RunInstances call asks for, and which instance each of them gets.

Promise: a group's intent is committed before its call, with the attempts that are in it, and of all who
read its row one may call. What the call launched is given to the group's attempts, each instance to one
of them and none to two; those that got none leave, and are as if they had never been asked for. Which
instances there are, EC2 alone says.
Mechanism: an attempt in a group is leased through the group's row, and its own row keeps `calls` 0. All
that changes who has what locks the group's row first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, select, text, update

from atemporal.errors import NotFound
from atemporal.model import Attempt, AttemptRef, JobSpec, Launch, LaunchGroup
from atemporal.states import AttemptState, BlockedReason
from atemporal.store import rows
from atemporal.store.attempts import UNBLOCKED
from atemporal.store.database import server_time
from atemporal.store.launches import lease_begin
from atemporal.store.transitions import record_many, rows_of, transition_attempts
from atemporal.tables import attempts, jobs, launch_groups

_LEASE = text(
    """
    UPDATE launch_groups SET called_at = now() WHERE id IN (
        SELECT id FROM launch_groups
        WHERE settled_at IS NULL AND called_at < now() - make_interval(secs => :stale_s)
        ORDER BY called_at LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id
    """
)
# A launcher of the release before does not know of groups, and leases attempts by this.
_FAR_AHEAD = func.now() + func.make_interval(100)

_WAITS = and_(attempts.c.state == AttemptState.LAUNCHING, attempts.c.instance_id.is_(None))
"""It is still to get an instance."""

# What the group's walk may have exchanged.
_PLACED = {
    *("image_id", "instance_type", "capacity_type", "subnet_id"),
    *("tags", "label_tags"),
    *("hour_price", "gb_month_price"),
}


def form(tx: Connection, group_id: UUID, launch: Launch, refs: Sequence[AttemptRef]) -> int:
    """Make a group of those of the attempts that nobody has asked for; returns how many they are.

    Fewer than two are no group: then nothing is written.
    """
    free = and_(
        _WAITS,
        attempts.c.group_id.is_(None),
        func.coalesce(attempts.c.launch["calls"].as_integer(), 1) == 0,
    )
    members = [ref for ref in _locked(tx, free, refs) if ref in set(refs)]
    if len(members) < 2:
        return 0
    tx.execute(
        insert(launch_groups).values(
            id=group_id, launch=launch.model_dump(mode="json"), size=len(members)
        )
    )
    tx.execute(
        update(attempts).where(_one_of(members)).values(group_id=group_id, called_at=_FAR_AHEAD)
    )
    return len(members)


def lease(tx: Connection, *, stale_s: float, limit: int) -> list[UUID]:
    """Take over groups whose call nobody has repeated for `stale_s` seconds."""
    return [row.id for row in tx.execute(_LEASE, {"stale_s": stale_s, "limit": limit})]


def with_specs(
    tx: Connection, group_ids: Collection[UUID]
) -> list[tuple[LaunchGroup, list[JobSpec]]]:
    """Return groups that are not settled, each with what one of its attempts' machines has to run.

    The list is empty where of none of those that wait it can be read, or where none waits: `waiting`
    says which. Groups that this release can not read are left out.
    """
    found = []
    open_ = launch_groups.c.settled_at.is_(None)
    query = select(launch_groups).where(launch_groups.c.id == func.any(list(group_ids)), open_)
    query = query.order_by(launch_groups.c.created_at, launch_groups.c.id)
    for group in rows.readable(tx, tx.execute(query).all(), _group):
        each = (_specs(tx, ref) for ref in waiting(tx, group.id))
        found.append((group, next((specs for specs in each if specs), [])))
    return found


def get(tx: Connection, group_id: UUID) -> LaunchGroup:
    """Return a group.

    Raises:
        NotFound: there is none.
        Unreadable: this release can not read it.
    """
    row = tx.execute(select(launch_groups).where(launch_groups.c.id == group_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no launch group {group_id}")
    return _group(row)


def ask(
    tx: Connection, group_id: UUID, launch: Launch, *, at_most: int | None
) -> tuple[Launch, int] | None:
    """Take the right to send one RunInstances call, before sending it; lease the group anew.

    For the first call with a placement the group's size is how many of its attempts wait, `at_most`
    of them: the others leave. A repeated call is the same call. Returns the launch as it is recorded
    now, and the size; None when somebody else has called or moved on since `launch` was read, or none
    of the attempts needs an instance any more: then nothing may be sent.
    """
    group = _lock(tx, _still(group_id, launch))
    if group is None:
        return None
    waiting = _waiting(tx, group_id)
    if not waiting:
        settle(tx, group_id)
        return None
    size = group.size
    if launch.calls == 0:
        size = min(len(waiting), at_most or len(waiting))
        _leave(tx, waiting[size:])
    now = {"calls": launch.calls + 1, "unsure_at": server_time(tx)}
    asked = launch.model_copy(update=now)
    _write(tx, group_id, launch=asked.model_dump(mode="json"), size=size, called_at=func.now())
    return asked, size


def replace(
    tx: Connection, group_id: UUID, launch: Launch, by: Launch, *, keep: int | None = None
) -> bool:
    """Exchange the offering that is to be asked; False when the caller's view is stale.

    Only for one that was never asked, or was definitely refused: the caller knows. Of the attempts
    that wait, more than `keep` leave.
    """
    if _lock(tx, _still(group_id, launch)) is None:
        return False
    if keep is not None:
        _leave(tx, _waiting(tx, group_id)[keep:])
    _write(tx, group_id, launch=by.model_dump(mode="json"), called_at=func.now())
    return True


def release(
    tx: Connection, group_id: UUID, launch: Launch, *, delay_s: float, stale_s: float
) -> bool:
    """Leave the group to a sweep in `delay_s` seconds; False when stale."""
    if _lock(tx, _still(group_id, launch)) is None:
        return False
    _write(tx, group_id, called_at=lease_begin(delay_s, stale_s))
    return True


def postpone(
    tx: Connection,
    group_id: UUID,
    launch: Launch,
    *,
    blocked_on: BlockedReason,
    detail: str,
    delay_s: float,
    stale_s: float,
    actor: str,
) -> bool:
    """Leave the group to a sweep in `delay_s` seconds, and write what blocks its attempts.

    The history of each gets one row when `blocked_on` changes. False when stale.
    """
    if not release(tx, group_id, launch, delay_s=delay_s, stale_s=stale_s):
        return False
    of_group = and_(attempts.c.group_id == group_id, _WAITS)
    changed = _locked(tx, and_(of_group, attempts.c.blocked_on.is_distinct_from(blocked_on)))
    words = {"blocked_on": blocked_on, "detail": detail}
    tx.execute(update(attempts).where(of_group).values(**words))
    record_many(tx, dict.fromkeys(changed, words), "attempt.blocked", actor=actor)
    return True


def launched(
    tx: Connection, group_id: UUID, launch: Launch, instance_ids: Collection[str], *, actor: str
) -> dict[AttemptRef, str]:
    """Give the instances that EC2 launched for the group to its attempts; returns who got which.

    Those that wait come first. Then those that have ended without an instance, so that it can be
    terminated as theirs. Who waits and gets none leaves the group. An instance that is some
    attempt's already stays that one's.
    """
    group = _lock(tx, launch_groups.c.id == group_id)
    if group is None:
        return {}
    taken = select(attempts.c.instance_id).where(
        attempts.c.instance_id == func.any(list(instance_ids))
    )
    free = sorted(set(instance_ids) - set(tx.scalars(taken)))
    waiting = _waiting(tx, group_id)
    given = dict(zip(waiting, free, strict=False))
    facts = {name: getattr(launch, name) for name in sorted(_PLACED)}
    moved = transition_attempts(
        tx,
        {ref: {"instance_id": instance_id} for ref, instance_id in given.items()},
        AttemptState.WARMING,
        actor=actor,
        values={"launched_at": func.now(), **UNBLOCKED},
        launch={**facts, "calls": 1},
    )
    ended = _locked(
        tx,
        and_(
            attempts.c.group_id == group_id,
            attempts.c.state == AttemptState.EXITED,
            attempts.c.instance_id.is_(None),
        ),
    )
    late = dict(zip(ended, free[len(given) :], strict=False))
    for ref, instance_id in late.items():
        tx.execute(
            update(attempts)
            .where(_is(ref))
            .values(instance_id=instance_id, launched_at=func.now())
        )
    record_many(
        tx,
        {ref: {"instance_id": instance_id} for ref, instance_id in late.items()},
        "attempt.instance",
        actor=actor,
    )
    if group.settled_at is None and group.launch.placement == launch.placement:
        _leave(tx, [ref for ref in waiting if ref not in given])
        settle(tx, group_id)
    return {ref: given[ref] for ref in moved} | late


def lock_group_of(tx: Connection, ref: AttemptRef) -> None:
    """Lock the group that an attempt is in, if it is in one: so that nobody gives an instance twice."""
    group_id = select(attempts.c.group_id).where(_is(ref)).scalar_subquery()
    tx.execute(
        select(launch_groups.c.id)
        .where(launch_groups.c.id == group_id)
        .with_for_update(key_share=True)
    )


def settle(tx: Connection, group_id: UUID) -> None:
    """Write that there is nothing left to ask for."""
    _write(tx, group_id, settled_at=func.now())


def waiting(tx: Connection, group_id: UUID) -> list[AttemptRef]:
    """The group's attempts that still need an instance.

    They are not locked: who ends them locks their jobs first.
    """
    query = select(attempts.c.job_id, attempts.c.number).where(
        attempts.c.group_id == group_id, _WAITS
    )
    return sorted(AttemptRef(*row) for row in tx.execute(query))


def owners(tx: Connection, instance_ids: Collection[str]) -> dict[str, AttemptRef]:
    """Whose these instances are, also where this release can not read the attempt."""
    having = attempts.c.instance_id == func.any(list(instance_ids))
    query = select(attempts.c.instance_id, attempts.c.job_id, attempts.c.number).where(having)
    return {row.instance_id: AttemptRef(row.job_id, row.number) for row in tx.execute(query)}


def of_instances(
    tx: Connection, group_ids: Collection[UUID], instance_ids: Collection[str]
) -> list[Attempt]:
    """The attempts that have these instances, and those of the groups that ended without one."""
    ended = and_(
        attempts.c.group_id == func.any(list(group_ids)),
        attempts.c.state.in_((AttemptState.EXITED, AttemptState.CLOSED)),
        attempts.c.instance_id.is_(None),
    )
    having = attempts.c.instance_id == func.any(list(instance_ids))
    columns = [column for column in attempts.c if column.name != "log_tail"]
    query = select(*columns).where(having | ended).order_by(attempts.c.job_id, attempts.c.number)
    return rows.readable(tx, tx.execute(query), rows.attempt)


def members(tx: Connection, group_ids: Collection[UUID]) -> dict[UUID, tuple[Attempt, ...]]:
    """The attempts of each of these groups."""
    if not group_ids:
        return {}
    columns = [column for column in attempts.c if column.name != "log_tail"]
    query = select(*columns).where(attempts.c.group_id == func.any(list(group_ids)))
    found: dict[UUID, tuple[Attempt, ...]] = {}
    for attempt in rows.readable(tx, tx.execute(query), rows.attempt):
        if attempt.group_id is not None:
            found[attempt.group_id] = (*found.get(attempt.group_id, ()), attempt)
    return found


def unsettled(tx: Connection) -> frozenset[UUID]:
    """The groups whose call may be under way."""
    return frozenset(
        tx.scalars(select(launch_groups.c.id).where(launch_groups.c.settled_at.is_(None)))
    )


def _still(group_id: UUID, launch: Launch) -> ColumnElement[bool]:
    """The guard of a group's changes: nobody has called, exchanged or settled it meanwhile."""
    stored = launch_groups.c.launch
    return and_(
        launch_groups.c.id == group_id,
        launch_groups.c.settled_at.is_(None),
        stored["placement"].as_integer() == launch.placement,
        stored["calls"].as_integer() == launch.calls,
    )


def _lock(tx: Connection, guard: ColumnElement[bool]) -> LaunchGroup | None:
    row = tx.execute(
        select(launch_groups).where(guard).with_for_update(key_share=True)
    ).one_or_none()
    return _group(row) if row else None


def _write(tx: Connection, group_id: UUID, **values: Any) -> None:
    tx.execute(update(launch_groups).where(launch_groups.c.id == group_id).values(**values))


def _waiting(tx: Connection, group_id: UUID) -> list[AttemptRef]:
    return _locked(tx, and_(attempts.c.group_id == group_id, _WAITS))


def _leave(tx: Connection, refs: Sequence[AttemptRef]) -> None:
    """Let attempts go as if they had never been asked for; a sweep may take them at once."""
    if refs:
        tx.execute(
            update(attempts)
            .where(_one_of(refs), _WAITS)
            .values(group_id=None, called_at=func.to_timestamp(0))
        )


def _locked(
    tx: Connection, guard: ColumnElement[bool], refs: Sequence[AttemptRef] = ()
) -> list[AttemptRef]:
    """Lock the attempts that the guard holds for, in one order; those among `refs` if there are any."""
    query = select(attempts.c.job_id, attempts.c.number).where(guard)
    if refs:
        query = query.where(attempts.c.job_id == func.any([ref.job_id for ref in refs]))
    query = query.order_by(attempts.c.job_id, attempts.c.number)
    return [AttemptRef(*row) for row in tx.execute(query.with_for_update(key_share=True))]


def _is(ref: AttemptRef) -> ColumnElement[bool]:
    return and_(attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)


def _one_of(refs: Sequence[AttemptRef]) -> ColumnElement[bool]:
    pairs = rows_of(refs)
    return (
        select(1)
        .where(pairs.c.job_id == attempts.c.job_id, pairs.c.number == attempts.c.number)
        .exists()
    )


def _group(row: Row[Any]) -> LaunchGroup:
    try:
        return LaunchGroup.model_validate(
            {name: getattr(row, name) for name in LaunchGroup.model_fields}
        )
    except ValidationError as error:
        raise rows.unreadable_group(row.id, error) from None


def _specs(tx: Connection, ref: AttemptRef) -> list[JobSpec]:
    query = (
        select(attempts.c.job_id, attempts.c.number, jobs.c.spec, jobs.c.key)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(_is(ref))
    )
    return rows.readable(tx, tx.execute(query), _spec)


def _spec(row: Row[Any]) -> JobSpec:
    return rows.spec(AttemptRef(row.job_id, row.number), row)
