"""The id of this installation: whose database this is.

Promise: made by the database together with its table, never changed, and part of every backup; so
whoever works on this database, now or after a restore, is the same installation.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select

from atemporal.errors import Unavailable
from atemporal.tables import installation


def identity(tx: Connection) -> UUID:
    """Return the installation's id; asked anew each time, for a database can be exchanged.

    Raises:
        Unavailable: somebody has deleted it.
    """
    found: UUID | None = tx.scalar(select(installation.c.id))
    if found is None:
        raise Unavailable(
            "the table installation has lost its row: put back the id that our instances carry in"
            " the tag atemporal:installation"
        )
    return found
