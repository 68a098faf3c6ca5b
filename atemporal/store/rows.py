"""Reading rows: one that can not be read is left out and reported, and nobody else's matter.

Promise: a reader of many rows gets all that this release understands. Another release, or a hand, may
have written one that it does not; that one is named, without its content, to whoever opened the
database, once a transaction, and `left_out` names it to a reader who would else conclude something
from its absence. A reader of one row gets `Unreadable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Row

from atemporal.clock import format_utc
from atemporal.errors import Unreadable
from atemporal.model import Attempt, AttemptRef, JobSpec, describe, read_spec
from atemporal.model.dead_letter import RecordedLetter
from atemporal.model.schedule import RecordedFire, Schedule, read_schedule

T = TypeVar("T")

Transaction: TypeAlias = Connection
"""What the store reads from, for those who do not know its library."""

LEFT_OUT = "left_out"

LARGEST = 16 * 1024 * 1024
"""So many bytes of specifications are read at once, and those of one job more."""


def attempt(row: Row[Any]) -> Attempt:
    """Read an attempt's row.

    Raises:
        Unreadable: a value of it means nothing to this release.
    """
    try:
        return Attempt.model_validate(
            {name: getattr(row, name) for name in Attempt.model_fields if hasattr(row, name)}
        )
    except ValidationError as error:
        raise unreadable(AttemptRef(row.job_id, row.number), error) from None


def spec(ref: AttemptRef, row: Row[Any]) -> JobSpec:
    """Read the specification in a row with `spec` and `key`, for the attempt `ref`.

    Raises:
        Unreadable: it has not the shape of one.
    """
    try:
        return read_spec(row.spec, row.key)
    except ValidationError as error:
        raise unreadable(ref, error) from None


def schedule(row: Row[Any]) -> Schedule:
    """Read a schedule's row.

    Raises:
        Unreadable: a value of it means nothing to this release.
    """
    try:
        return read_schedule(dict(row._mapping))
    except ValidationError as error:
        raise Unreadable(row.name, None, _why(error), kind="schedule") from None


def fire(name: str, row: Row[Any]) -> RecordedFire:
    """Read the row of a fire of the schedule of that name.

    Raises:
        Unreadable: a value of it means nothing to this release.
    """
    try:
        return RecordedFire.model_validate(dict(row._mapping))
    except ValidationError as error:
        which = f"{name} at {format_utc(row.fire_time)}"
        raise Unreadable(which, None, _why(error), kind="fire of schedule") from None


def dead_letter(row: Row[Any]) -> RecordedLetter:
    """Read the row of a dead letter.

    Raises:
        Unreadable: a value of it means nothing to this release.
    """
    try:
        return RecordedLetter.model_validate(dict(row._mapping))
    except ValidationError as error:
        raise Unreadable(str(row.id), None, _why(error), kind="dead letter") from None


def unreadable(ref: AttemptRef, error: ValidationError) -> Unreadable:
    """Say which row, and which of its fields; not the values: an environment may be among them."""
    return Unreadable(str(ref.job_id), ref.number, _why(error))


def unreadable_group(group_id: UUID, error: ValidationError) -> Unreadable:
    """The same of a launch group's row, which no attempt's number goes with."""
    return Unreadable(str(group_id), None, _why(error))


def readable(tx: Connection, rows: Iterable[Row[Any]], read: Callable[[Row[Any]], T]) -> list[T]:
    """Read all rows, in their order, but for those that can not be read."""
    found: list[T] = []
    for row in rows:
        try:
            found.append(read(row))
        except Unreadable as error:
            leave_out(tx, error)
    return found


def leave_out(tx: Connection, error: Unreadable) -> None:
    """Pass over what can not be read; whoever opened the database is told of it once."""
    _left_out(tx)[error.job, error.attempt] = error


def left_out(tx: Connection, ref: AttemptRef | None) -> bool:
    """Whether the attempt is recorded but was left out of what this transaction has read."""
    return ref is not None and (str(ref.job_id), ref.number) in _left_out(tx)


def _left_out(tx: Connection) -> dict[tuple[str, int | None], Unreadable]:
    errors: dict[tuple[str, int | None], Unreadable] = tx.get_execution_options()[LEFT_OUT]
    return errors


def _why(error: ValidationError) -> str:
    return "; ".join(f"{name}: {what}" for name, what in describe(error).items())
