"""How long machines take to boot, by the latest ones.

Mechanism: the slowest of a hundred, for each instance type and image, of the attempts that ended
last. One that was given up before it booted counts as slower than all, so where giving up early is
wrong it stops by itself: two such in the last hundred, and nothing is known any more.
Failure: of too few machines nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

LEAST = 30
"""Of fewer machines of a kind nothing is known."""


class MachineKind(NamedTuple):
    """What the time of a boot depends on."""

    instance_type: str
    image_id: str


_SLOWEST = text(
    """
    WITH latest AS (
        SELECT launch ->> 'instance_type' AS instance_type, launch ->> 'image_id' AS image_id,
               CASE WHEN booted_at IS NULL THEN 'infinity'::float8
                    ELSE extract(epoch FROM booted_at - launched_at) END AS seconds
        FROM attempts
        WHERE exited_at > now() - interval '7 days' AND launched_at IS NOT NULL
          AND (booted_at IS NOT NULL OR reason = 'boot_deadline')
        ORDER BY exited_at DESC LIMIT 1000)
    SELECT instance_type, image_id,
           percentile_disc(0.99) WITHIN GROUP (ORDER BY seconds) AS slowest_s
    FROM latest GROUP BY instance_type, image_id HAVING count(*) >= :least
    """
)


def slowest(tx: Connection) -> Mapping[tuple[str, str], float]:
    """The 99th percentile of the seconds from an instance to its boot callback, where it is known."""
    rows = tx.execute(_SLOWEST, {"least": LEAST})
    return {
        MachineKind(row.instance_type, row.image_id): row.slowest_s
        for row in rows
        if row.slowest_s != float("inf")
    }
