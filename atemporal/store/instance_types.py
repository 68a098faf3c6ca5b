"""Instance types and their vCPUs, as EC2 says: for the limit on vCPUs.

Promise: a type is here once somebody needs to know its vCPUs; they are NULL until a launcher has asked
EC2. One that EC2 does not have counts as 0, because it can not be launched, and is asked for again after
an hour.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from atemporal.store.transitions import notify_scheduler

_UNKNOWN = text(
    """
    SELECT name FROM instance_types
    WHERE vcpus IS NULL OR vcpus = 0 AND asked_at < now() - interval '1 hour'
    ORDER BY name LIMIT :limit
    """
)
_WRITE = text(
    """
    INSERT INTO instance_types (name, vcpus, asked_at)
    SELECT name, vcpus, now() FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(name text, vcpus int)
    ON CONFLICT (name) DO UPDATE SET vcpus = excluded.vcpus, asked_at = excluded.asked_at
    """
)


def unknown(tx: Connection, *, limit: int) -> Sequence[str]:
    """The types whose vCPUs somebody needs and nobody knows."""
    return list(tx.scalars(_UNKNOWN, {"limit": limit}))


def write(tx: Connection, vcpus: Mapping[str, int]) -> None:
    """Write what EC2 said; who waited for it may start at once."""
    rows = [{"name": name, "vcpus": many} for name, many in vcpus.items()]
    tx.execute(_WRITE, {"rows": json.dumps(rows)})
    notify_scheduler(tx)
