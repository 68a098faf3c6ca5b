"""How far the daemons have come, as their rows show it: for a reader who can not ask them.

Mechanism: each is read by an index of what is not done yet, up to `COUNTED` rows, or from a table with
a few rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Connection, text

COUNTED: Final = 1000

_UNRELAYED = text(
    """
    SELECT count(*) AS many, coalesce(extract(epoch FROM now() - min(at)), 0)::float AS oldest_s
    FROM (SELECT at FROM events WHERE NOT relayed ORDER BY id LIMIT :limit) AS first
    """
)
_SWEEPS = text(
    """
    SELECT name, holder, extract(epoch FROM clock_timestamp() - until)::float AS overdue_s
    FROM sweep_leases ORDER BY name
    """
)
_PACES = text("SELECT name, pace FROM rate_limits ORDER BY name")


class Unrelayed(NamedTuple):
    """How many events are to be sent, `COUNTED` for that many or more, and the age of the oldest."""

    many: int
    oldest_s: float


class Sweep(NamedTuple):
    """A sweep, the process that does it, and for how long it is overdue; negative while it is not."""

    name: str
    holder: str
    overdue_s: float


def unrelayed(tx: Connection) -> Unrelayed:
    """The events that no listener has been sent."""
    row = tx.execute(_UNRELAYED, {"limit": COUNTED}).one()
    return Unrelayed(row.many, row.oldest_s)


def sweeps(tx: Connection) -> list[Sweep]:
    """Each sweep that a process has done or does."""
    return [Sweep(*row) for row in tx.execute(_SWEEPS)]


def paces(tx: Connection) -> dict[str, float]:
    """The pace of each rate limit that has been used: 1 is its full rate."""
    return {row.name: row.pace for row in tx.execute(_PACES)}
