"""Which process sweeps: the others leave it to that one, for as long as it comes again in time.

Promise: a lease saves calls and protects nothing; two may hold one by turns when a sweep takes long.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

_HOLD = text(
    """
    INSERT INTO sweep_leases (name, holder, until)
    VALUES (:name, :holder, clock_timestamp() + make_interval(secs => :for_s))
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE sweep_leases.holder = excluded.holder OR sweep_leases.until < clock_timestamp()
    RETURNING name
    """
)
_GIVE_UP = text(
    "UPDATE sweep_leases SET until = clock_timestamp() - interval '1 s'"
    " WHERE name = :name AND holder = :holder"
)


def hold(each: Connection, name: str, *, holder: str, for_s: float) -> bool:
    """Take or keep the lease for so many seconds; False while another has it."""
    values = {"name": name, "holder": holder, "for_s": for_s}
    return each.execute(_HOLD, values).one_or_none() is not None


def give_up(each: Connection, name: str, *, holder: str) -> None:
    """Let the next that asks have it."""
    each.execute(_GIVE_UP, {"name": name, "holder": holder})
