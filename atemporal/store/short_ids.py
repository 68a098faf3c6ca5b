"""Ids as people write them: a beginning or an end of one, which means the only one that fits.

Mechanism: each is looked up in an index: ids that begin so are a range, ids that end so are those whose
reverse begins so. The table needs an index of `reverse(id::text)` with `text_pattern_ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Connection, Text, cast, false, func, select

from atemporal.errors import NotFound

_MATCHES = 5
_ID_LENGTH = 36


def resolve(tx: Connection, column: Column[UUID], text_id: str, noun: str) -> UUID:
    """Find the one id of a table that is, begins with, or (if none does) ends with the given text.

    `noun` is what the table holds one of in each row, for the messages.

    Raises:
        NotFound: none or more than one does; the message says which.
    """
    part = text_id.strip().lower()
    if not part or set(part) - set("0123456789abcdef-") or len(part) > _ID_LENGTH:
        raise NotFound(f"{text_id!r} is not a {noun} id, nor the beginning or the end of one")
    few = select(column).limit(_MATCHES + 1)
    beginning = few.where(_begins_with(column, part)).order_by(column.desc())
    found: Sequence[UUID] = tx.scalars(beginning).all()
    if not found and len(part) < _ID_LENGTH:
        # Not in order: the database would rather go through all ids in that order than sort a few.
        end = few.where(func.reverse(cast(column, Text)).like(f"{part[::-1]}%"))
        found = sorted(tx.scalars(end), reverse=True)
    if len(found) == 1:
        return found[0]
    if found:
        matches = ", ".join(map(str, found[:_MATCHES]))
        more = ", and more" if len(found) > _MATCHES else ""
        raise NotFound(f"{part!r} fits more than one {noun}: {matches}{more}")
    raise NotFound(f"there is no {noun} whose id is {part!r}, or begins or ends so")


def _begins_with(column: Column[UUID], part: str) -> ColumnElement[bool]:
    """Ids from the smallest to the largest with this beginning; none when no id is written so."""
    digits = part.replace("-", "")
    low, high = (UUID(digits.ljust(32, filler)[:32]) for filler in "0f")
    return column.between(low, high) if str(low).startswith(part) else false()
