"""Bringing a database to the shape in `tables`, step by step and for ever repeatable.

Promise: a released step is never edited; steps only expand what is there, so that the previous
release runs on the new shape. Two processes that upgrade at once take turns. An upgrade that was
interrupted goes on where it was when it is asked for again.
Mechanism: each step is a transaction of its own, so what it locks is free again before the next. A
step adds a constraint as NOT VALID, which looks at no row; what is not valid is validated after
the last step, under a lock that lets readers and writers work. The daemons go on meanwhile: a step that
waits for a table stands in the way of all that come after it, so it waits for seconds, lets them pass,
and begins anew; so does one that Postgres ends because of a deadlock.
Failure: a table that another transaction holds for minutes (a dump does) is told, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from atemporal.errors import Service, Unavailable

TURN = 7_403_197_415_926_535
"""The key of the advisory lock for which two upgrades at once wait."""
# Postgres' codes of a lock that was not to be had, and of a deadlock.
_LOCKED = ("55P03", "40P01")


def upgrade(
    url: str,
    revision: str = "head",
    *,
    lock_s: float = 5.0,
    patience_s: float = 300.0,
    clock: Callable[[], float] = monotonic,
) -> list[str]:
    """Apply all steps up to `revision`; what is applied already is passed over.

    Returns the steps that were applied, each as its number and what it is about. A step waits `lock_s`
    seconds for a table before it lets others pass, and is begun again; `patience_s` seconds after the
    first such wait of one step that is given up. `clock` gives seconds.

    Raises:
        Unavailable: for so long others held a table that a step needs; what was applied stays.
    """
    settings = config(url)
    settings.attributes["lock_s"] = lock_s
    until, done = 0.0, -1
    while True:
        try:
            command.upgrade(settings, revision)
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) not in _LOCKED:
                raise
            progress = sum(len(settings.attributes[name]) for name in ("applied", "valid"))
            if progress > done:
                until, done = clock() + patience_s, progress
            elif clock() >= until:
                raise Unavailable(
                    f"others have held a table that a step needs for {patience_s:.0f} s (a dump, or "
                    "a session that is idle in its transaction: pg_stat_activity shows it); let them "
                    "end and run it again: what was applied stays",
                    Service.POSTGRES,
                ) from error
        else:
            return list(settings.attributes["applied"])


def config(url: str) -> Config:
    """Alembic's configuration, without a file."""
    settings = Config()
    settings.set_main_option("script_location", "atemporal:migrations")
    settings.attributes["url"] = url
    settings.attributes["applied"] = []
    settings.attributes["valid"] = []
    settings.attributes["lock_s"] = 0.0
    return settings
