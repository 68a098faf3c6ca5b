"""What the database server says of itself and of us: for whoever looks why something does not work.

Promise: nothing is changed and no row of a job is read. A database without any of our tables is answered
too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from atemporal.tables import metadata

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_FACTS = text(
    """
    SELECT current_setting('server_version') AS version, current_user AS role,
           current_database() AS database, pg_is_in_recovery() AS standby,
           current_setting('default_transaction_read_only') = 'on' AS read_only
    """
)
_HAS_STEPS = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_STEP = text("SELECT max(version_num) FROM alembic_version")
# A table that is not there has no rights to be missing.
_MISSING = text(
    """
    SELECT found.name, wanted.privilege
    FROM unnest(CAST(:tables AS text[])) AS found(name),
         unnest(CAST(:rights AS text[])) WITH ORDINALITY AS wanted(privilege, place)
    WHERE to_regclass(found.name) IS NOT NULL
      AND NOT has_table_privilege(to_regclass(found.name), wanted.privilege)
    ORDER BY found.name, wanted.place
    """
)
_SESSIONS = text(
    """
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'atemporal %'
    """
)


@dataclass(frozen=True)
class ServerFacts:
    """A server: its version, who we are there, whether it takes no writes."""

    version: str
    role: str
    database: str
    standby: bool
    read_only: bool


def facts(tx: Connection) -> ServerFacts:
    """Ask the server who it is."""
    row = tx.execute(_FACTS).one()
    return ServerFacts(row.version, row.role, row.database, row.standby, row.read_only)


def step(tx: Connection) -> str | None:
    """The last step of the migrations that was made; None when there are no tables of ours."""
    if not tx.scalar(_HAS_STEPS):
        return None
    found: str | None = tx.scalar(_STEP)
    return found


def missing_rights(tx: Connection) -> dict[str, tuple[str, ...]]:
    """The rights that our role lacks on the tables that are there, by table."""
    values = {"tables": sorted(metadata.tables), "rights": list(RIGHTS)}
    found: dict[str, tuple[str, ...]] = {}
    for name, privilege in tx.execute(_MISSING, values):
        found[name] = (*found.get(name, ()), privilege)
    return found


def clock(tx: Connection) -> datetime:
    """What the server's clock shows at this moment, not at the begin of the transaction."""
    now: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def sessions(tx: Connection) -> Counter[str]:
    """How many sessions our processes have on this database, by the name of each: `atemporal api`."""
    return Counter(tx.scalars(_SESSIONS))
