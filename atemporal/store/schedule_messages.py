"""Messages that change recurring schedules: each is applied once, and none after a later one.

Promise: a message whose key was applied before changes nothing, however often and however late it
comes; with a serial one changes nothing once another of its schedule with the same or a higher serial
was applied, also when that deleted the schedule. What was refused is not remembered: sent again it may
be applied.
Mechanism: whoever applies a message of a schedule's name does so alone, by an advisory lock; its row is
written in the transaction of the change.
Failure: rows go with the retention. A message that comes later than that is taken for a new one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from atemporal.errors import Invalid, Unavailable
from atemporal.tables import schedule_messages

_ALONE = text("SELECT pg_advisory_xact_lock(hashtext('schedule_messages'), hashtext(:name))")
_LATEST = text(
    "SELECT serial FROM schedule_messages WHERE name = :name AND serial IS NOT NULL"
    " ORDER BY serial DESC LIMIT 1"
)


class Kind(StrEnum):
    """What a message is, before it is applied."""

    NEW = "new"
    DUPLICATE = "duplicate"
    OUTDATED = "outdated"


@dataclass(frozen=True)
class Identity:
    """What tells a message about a schedule from others; `digest` is of all that it says."""

    key: str
    name: str
    serial: int | None
    digest: str


@dataclass(frozen=True)
class Seen:
    """What a message is; of one that was applied the job that it made, if it made one."""

    kind: Kind
    job_id: UUID | None = None


def seen(tx: Connection, one: Identity) -> Seen:
    """Lock the messages of the schedule of that name, and say what this one is.

    Raises:
        Invalid: the key was that of another message.
    """
    tx.execute(_ALONE, {"name": one.name})
    found = select(schedule_messages).where(schedule_messages.c.key == one.key)
    known = tx.execute(found).first()
    if known is not None:
        if known.digest != one.digest:
            why = f"{one.key!r} was that of another message, for {known.name!r}: take a new one"
            raise Invalid({"key": why})
        return Seen(Kind.DUPLICATE, known.job_id)
    latest = None if one.serial is None else tx.scalar(_LATEST, {"name": one.name})
    late = one.serial is not None and latest is not None and one.serial <= latest
    return Seen(Kind.OUTDATED if late else Kind.NEW)


def applied(tx: Connection, one: Identity, *, job_id: UUID | None) -> None:
    """Remember a message in the transaction that applied it.

    Raises:
        Unavailable: its key was taken in this moment, for a schedule of another name.
    """
    row = {**asdict(one), "job_id": job_id}
    written = tx.execute(insert(schedule_messages).values(**row).on_conflict_do_nothing())
    if not written.rowcount:
        raise Unavailable(f"another message has the key {one.key!r} since a moment ago")
