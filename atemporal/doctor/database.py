"""Checks of Postgres: it answers and takes writes, its tables are of this release, we may use them."""

from __future__ import annotations

from atemporal.doctor.check import Check, Result, ok, unchecked, warning, wrong
from atemporal.doctor.instruments import Instruments
from atemporal.doctor.settings import VALUES
from atemporal.errors import Unavailable
from atemporal.store import server
from atemporal.tables import REVISION

REACHABLE, MIGRATIONS = "database.reachable", "database.migrations"
_UPGRADE = "run `atemporal db upgrade` with this release, then restart what is older"
_NAMED = 5


def reachable(instruments: Instruments) -> Result:
    """It answers, and takes writes."""
    with instruments.database.begin() as tx:
        found = server.facts(tx)
    who = f"Postgres {found.version}, database {found.database}, role {found.role}"
    if found.standby:
        return wrong(
            f"{who}: it is a standby and takes no writes",
            "let ATEMPORAL_DATABASE_URL name the primary (target_session_attrs=read-write)",
        )
    if found.read_only:
        return wrong(
            f"{who}: default_transaction_read_only is on, nothing can be written",
            "switch it off for the role or the database, once the server has room on its disk",
        )
    return ok(who)


def migrations(instruments: Instruments) -> Result:
    """Its tables are those of this release."""
    try:
        with instruments.database.begin() as tx:
            found = server.step(tx)
    except Unavailable as error:
        if error.service is None:
            raise
        return unchecked(str(error), "GRANT SELECT ON alembic_version to this role")
    if found is None:
        return wrong("there are no tables of ours in this database", _UPGRADE)
    if found < REVISION:
        return wrong(
            f"the tables are at step {found}, this release needs {REVISION}: its daemons wait",
            _UPGRADE,
        )
    if found > REVISION:
        return warning(
            f"the tables are at step {found}, newer than this release's {REVISION}: it works on them, "
            "as an older release beside newer ones",
            "finish the upgrade: install on this host the release that the database has",
        )
    return ok(f"at step {found}, that of this release")


def rights(instruments: Instruments) -> Result:
    """Our role may read and write every table."""
    with instruments.database.begin() as tx:
        missing = server.missing_rights(tx)
        role = server.facts(tx).role
    if not missing:
        return ok(f"{role} may read and write every table")
    named = [f"{', '.join(lacks)} on {table}" for table, lacks in list(missing.items())[:_NAMED]]
    more = f" and on {len(missing) - _NAMED} more tables" if len(missing) > _NAMED else ""
    return wrong(
        f"role {role} lacks {'; '.join(named)}{more}",
        f"GRANT {', '.join(server.RIGHTS)} ON ALL TABLES IN SCHEMA public TO {role}, or what a daemon "
        "with a role of its own needs (docs/security.md)",
    )


CHECKS = (
    Check(REACHABLE, reachable, (VALUES,)),
    Check(MIGRATIONS, migrations, (REACHABLE,)),
    Check("database.rights", rights, (MIGRATIONS,)),
)
