"""How long machines take to boot, by the latest ones, and when one was last heard.

Mechanism: the slowest of a hundred, for each instance type and image, of the last hundred attempts
that ended. One that was given up before it booted counts as slower than all, so where giving up early
is wrong it stops by itself: two such in the last hundred, and nothing is known of that kind any more.
A boot is known by its callback, so while the API hears nobody nobody is known to be late.
Failure: of too few machines nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

LEAST = 30
"""Of fewer machines of a kind nothing is known."""

_SLOWEST = text(
    """
    WITH ended AS (
        SELECT launch ->> 'instance_type' AS instance_type, launch ->> 'image_id' AS image_id,
               launched_at, booted_at, exited_at
        FROM attempts
        WHERE exited_at > now() - interval '7 days' AND launched_at IS NOT NULL
          AND (booted_at IS NOT NULL OR reason = 'boot_deadline')
        ORDER BY exited_at DESC LIMIT 2000),
    numbered AS (
        SELECT *, row_number() OVER (PARTITION BY instance_type, image_id ORDER BY exited_at DESC) AS n
        FROM ended)
    SELECT instance_type, image_id,
           percentile_disc(0.99) WITHIN GROUP (ORDER BY
               coalesce(extract(epoch FROM booted_at - launched_at), 'infinity'::float8)) AS slowest_s
    FROM numbered WHERE n <= 100
    GROUP BY instance_type, image_id
    HAVING count(*) >= :least AND count(*) FILTER (WHERE booted_at IS NULL) < 2
    """
)
_LAST_HEARD = text(
    """
    SELECT greatest(
        (SELECT max(booted_at) FROM attempts WHERE state <> 'closed'),
        (SELECT max(booted_at) FROM attempts WHERE exited_at > now() - interval '1 hour'))
    """
)


class Boots(NamedTuple):
    """What is known of boots.

    `slowest_s` are the seconds that hardly a machine took, by instance type and image; `last_at` is
    when the API last heard of one.
    """

    slowest_s: Mapping[tuple[str, str], float]
    last_at: datetime | None


NOTHING = Boots({}, None)


def lately(tx: Connection) -> Boots:
    """Read it."""
    rows = tx.execute(_SLOWEST, {"least": LEAST})
    slowest_s = {
        (row.instance_type, row.image_id): float(row.slowest_s)
        for row in rows
        if row.slowest_s != float("inf")
    }
    return Boots(slowest_s, tx.scalar(_LAST_HEARD))
