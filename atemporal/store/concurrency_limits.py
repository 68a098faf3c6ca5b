"""Concurrency limits: set and removed by people while everything runs, and who did it.

Promise: a change is a fact when it returns, for every job that is dispatched afterwards, by whichever
scheduler; nothing that was dispatched before is ended by it. Each change is kept with its time and its
actor. Where no limit is set and nobody waits for one a claim costs two short questions more.
Mechanism: every claim holds a shared advisory lock until it is committed, and a change holds that lock
alone: so it begins when all claims that did not know of it are over, and counts what they dispatched.
Among claims that have to keep a limit a second lock lets one count at a time (`count_alone`).
Failure: a change that has to wait for a claim longer than ten seconds is refused, and may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from atemporal.concurrency import Rules
from atemporal.errors import NotFound
from atemporal.store import slots
from atemporal.store.transitions import notify_scheduler

# Of two numbers, so that they are none of the locks by name, which have one.
_LOCK = 0x6C696D
_CHANGES, _COUNTS = 1, 2

_OPEN = text(f"SELECT pg_try_advisory_xact_lock_shared({_LOCK}, {_CHANGES})")
_ALONE = text(f"SELECT pg_try_advisory_xact_lock({_LOCK}, {_COUNTS})")
_CHANGE = text(f"SELECT pg_advisory_xact_lock({_LOCK}, {_CHANGES})")

_WAITS = "SELECT FROM jobs WHERE state = 'scheduled' AND waits_for IS NOT NULL"
_IN_FORCE = text(
    f"""
    SELECT name, most FROM concurrency_limits
    UNION ALL SELECT NULL, NULL WHERE EXISTS ({_WAITS})
    UNION ALL SELECT '', NULL FROM pauses WHERE active
    """
)
_ANYBODY_WAITS = text(f"SELECT EXISTS ({_WAITS})")
_RULES = text("SELECT name, most FROM concurrency_limits")

_GET = text("SELECT name, most, changed_at, changed_by FROM concurrency_limits WHERE name = :name")
_LISTING = text(
    "SELECT name, most, changed_at, changed_by FROM concurrency_limits"
    " ORDER BY strpos(name, '='), name"
)
_SET = text(
    """
    INSERT INTO concurrency_limits (name, most, changed_at, changed_by)
    VALUES (:name, :most, clock_timestamp(), :actor)
    ON CONFLICT (name) DO UPDATE
    SET most = excluded.most, changed_at = excluded.changed_at, changed_by = excluded.changed_by
    """
)
_REMOVE = text("DELETE FROM concurrency_limits WHERE name = :name")
_RECORD = text(
    """
    INSERT INTO limit_changes (name, before, after, actor, at)
    VALUES (:name, :before, :after, :actor, clock_timestamp())
    """
)
_CHANGES_OF = text(
    """
    SELECT name, before, after, actor, at FROM limit_changes
    WHERE name = coalesce(:name, name) ORDER BY id DESC LIMIT :limit
    """
)


class ConcurrencyLimit(NamedTuple):
    """A limit as it is recorded."""

    name: str
    most: int
    changed_at: datetime
    changed_by: str


class LimitChange(NamedTuple):
    """One change of a limit: how many it allowed before and after, None where there was none."""

    name: str
    before: int | None
    after: int | None
    actor: str
    at: datetime


class InForce(NamedTuple):
    """What a claim has to keep: the limits, and whether anybody waits for one that there may not be.

    While the installation is `paused` nothing may be claimed.
    """

    rules: Rules
    anybody_waits: bool
    paused: bool

    @property
    def limited(self) -> bool:
        """Whether a claim has to count."""
        return bool(self.rules) or self.anybody_waits


def in_force(tx: Connection) -> InForce | None:
    """The limits for a claim in this transaction, which do not change until it ends.

    None while somebody changes them: then nothing may be claimed, and it is worth a try in a moment.
    """
    if not tx.scalar(_OPEN):
        return None
    # A statement of its own: what was committed before the lock was got is seen by it.
    rows = tx.execute(_IN_FORCE).all()
    names = [row.name for row in rows]
    most = {row.name: row.most for row in rows if row.name}
    return InForce(Rules(most), anybody_waits=None in names, paused="" in names)


def hold_claims(tx: Connection) -> None:
    """Wait until all claims are over; the next ones begin when this transaction has ended."""
    tx.execute(_CHANGE)


def count_alone(tx: Connection) -> bool:
    """Become the only one that counts, until this transaction ends; False while another one does."""
    return bool(tx.scalar(_ALONE))


def rules(tx: Connection) -> Rules:
    """The limits that are set."""
    return Rules({row.name: row.most for row in tx.execute(_RULES)})


def anybody_waits(tx: Connection) -> bool:
    """Whether a job was put aside for a limit."""
    return bool(tx.scalar(_ANYBODY_WAITS))


def listing(tx: Connection) -> Sequence[ConcurrencyLimit]:
    """The limits that are set: those of all jobs first, then those of labels by name."""
    return [ConcurrencyLimit(*row) for row in tx.execute(_LISTING)]


def changes(tx: Connection, *, name: str | None = None, limit: int = 100) -> Sequence[LimitChange]:
    """The latest changes, the latest first; of one limit or of all."""
    rows = tx.execute(_CHANGES_OF, {"name": name, "limit": limit})
    return [LimitChange(*row) for row in rows]


def put(
    tx: Connection, name: str, most: int, *, actor: str, instance_type: str
) -> ConcurrencyLimit:
    """Set a limit, new or not; the same again changes nothing.

    What is under way and fits the name is counted from then on, also where it is more than `most`.
    `instance_type` is the type of jobs that name none.
    """
    hold_claims(tx)
    before = _get(tx, name)
    if before is not None and before.most == most:
        return before
    if before is None:
        slots.take_of_those_under_way(tx, name, instance_type=instance_type)
    tx.execute(_SET, {"name": name, "most": most, "actor": actor})
    _record(tx, name, before, most, actor=actor)
    made = _get(tx, name)
    assert made is not None
    return made


def remove(tx: Connection, name: str, *, actor: str) -> ConcurrencyLimit:
    """Remove a limit; return what it was. Who waited for it may start at once.

    Raises:
        NotFound: there is no limit of just this name.
    """
    hold_claims(tx)
    before = _get(tx, name)
    if before is None:
        raise NotFound(f"there is no limit {name!r}")
    tx.execute(_REMOVE, {"name": name})
    if not rules(tx):
        slots.clear(tx)
    _record(tx, name, before, None, actor=actor)
    return before


def _get(tx: Connection, name: str) -> ConcurrencyLimit | None:
    row = tx.execute(_GET, {"name": name}).one_or_none()
    return ConcurrencyLimit(*row) if row else None


def _record(
    tx: Connection, name: str, before: ConcurrencyLimit | None, after: int | None, *, actor: str
) -> None:
    values = {"name": name, "before": before and before.most, "after": after, "actor": actor}
    tx.execute(_RECORD, values)
    notify_scheduler(tx)
