"""Slots: who counts against which concurrency limit.

Promise: a job that is dispatched under a limit holds a slot of it, written in the transaction that
dispatches it. It holds it until its container is known to have ended: by its report, or because EC2
confirmed that its instance is gone. Slots of `instances` and `vcpus` are held until EC2 confirmed that
whatever was reported. A job that was dispatched and left the queue without an attempt holds none.
Mechanism: a slot's row says who may hold one; whether it still does is read off the rows of the job and
its attempt (`HELD`), so no transition has to give anything back, and no crash can forget to. Whoever
counts deletes what is not held any more.
Failure: where rows of slots are missing, which is a mistake of ours or of a scheduler of an older
release, the audit says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, text

from atemporal.concurrency import LONGEST_VALUE, OF_INSTANCES, VCPUS, Room, Rules

_OF_INSTANCES = ", ".join(f"'{name}'" for name in OF_INSTANCES)

# By the keys alone: an index of what is open or queued would be read from end to end for each slot.
HELD = f"""
    coalesce(
        (SELECT state <> 'closed' AND (slots.name IN ({_OF_INSTANCES}) OR exit_code IS NULL)
         FROM attempts WHERE job_id = slots.job_id AND number = slots.attempt),
        (SELECT state = 'queued' AND attempt = slots.attempt FROM jobs WHERE id = slots.job_id),
        false)
"""
"""Whether a row of `slots` counts, as SQL."""

_RELEASE = text(f"DELETE FROM slots WHERE NOT ({HELD})")
_CLEAR = text("DELETE FROM slots")
_USED = """
    SELECT name, instance_types, count(*) AS many FROM slots {held} GROUP BY name, instance_types
"""
_USED_OF_ALL, _USED_OF_HELD = text(_USED.format(held="")), text(_USED.format(held=f"WHERE {HELD}"))
_LANES = text(
    """
    WITH RECURSIVE lane AS (
        (SELECT waits_for AS name FROM jobs WHERE state = 'scheduled' AND waits_for IS NOT NULL
         ORDER BY waits_for LIMIT 1)
        UNION ALL
        SELECT next.name FROM lane CROSS JOIN LATERAL (
            SELECT waits_for AS name FROM jobs
            WHERE state = 'scheduled' AND waits_for > lane.name ORDER BY waits_for LIMIT 1) AS next
    )
    SELECT name FROM lane
    """
)
_TAKE = text(
    """
    INSERT INTO slots (name, job_id, attempt, instance_types, taken_at)
    SELECT name, job_id, attempt, instance_types, clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r(name text, job_id uuid, attempt int, instance_types text[])
    """
)

TYPES_ASKED = """
    CASE WHEN jsonb_typeof(spec #> '{machine,instance_types}') = 'array'
    THEN ARRAY(SELECT one FROM jsonb_array_elements_text(spec #> '{machine,instance_types}') AS one
               WHERE one IS NOT NULL)
    ELSE CAST('{}' AS text[]) END
"""
"""The instance types that a job names, as SQL; a hand may have written anything there."""

COUNTED = f"""
    jsonb_typeof(spec -> 'labels' -> {{key}}) = 'string'
    AND length(spec -> 'labels' ->> {{key}}) <= {LONGEST_VALUE}
"""
"""`is_counted` as SQL: a hand may have written anything there."""

# Their begin is before the limit: it does not say that anybody exceeded it.
_UNDER_WAY = text(
    f"""
    WITH active AS (
        SELECT id AS job_id, attempt AS number, spec, NULL AS instance_type, NULL AS exit_code,
               NULL AS instance_id
        FROM jobs WHERE state = 'queued'
        UNION ALL
        SELECT job_id, number, (SELECT spec FROM jobs WHERE id = job_id OFFSET 0),
               launch ->> 'instance_type', exit_code, instance_id
        FROM attempts WHERE state <> 'closed'
    )
    INSERT INTO slots (name, job_id, attempt, instance_types, taken_at)
    SELECT CASE WHEN :key = '' THEN :name ELSE :key || '=' || (spec -> 'labels' ->> :key) END,
           job_id, number,
           CASE WHEN :name <> '{VCPUS}' THEN NULL
                -- Before it has an instance it may get one of another type than it asks for now.
                WHEN instance_id IS NOT NULL THEN ARRAY[instance_type]
                WHEN asked.types <> '{{}}' THEN asked.types
                ELSE ARRAY[coalesce(instance_type, :instance_type)] END,
           now()
    FROM active CROSS JOIN LATERAL (SELECT {TYPES_ASKED} AS types) AS asked
    WHERE (:name IN ({_OF_INSTANCES}) OR exit_code IS NULL)
      AND (:key = '' OR {COUNTED.format(key=":key")}
           AND spec -> 'labels' ->> :key = coalesce(:value, spec -> 'labels' ->> :key))
    ON CONFLICT DO NOTHING
    """
)

_KNOWN_TYPES = text("SELECT name, vcpus FROM instance_types WHERE vcpus IS NOT NULL")
_NEEDED_TYPES = text(
    """
    INSERT INTO instance_types (name) SELECT unnest(CAST(:names AS text[])) ON CONFLICT DO NOTHING
    """
)
_TYPES_OF_SLOTS = text(
    f"""
    INSERT INTO instance_types (name)
    SELECT DISTINCT unnest(instance_types) FROM slots WHERE name = '{VCPUS}' ON CONFLICT DO NOTHING
    """
)


def release(tx: Connection) -> None:
    """Delete the slots that are not held any more."""
    tx.execute(_RELEASE)


def clear(tx: Connection) -> None:
    """Delete all slots: there is no limit any more."""
    tx.execute(_CLEAR)


def room(tx: Connection, rules: Rules, *, released: bool = False) -> Room:
    """What is left under each limit, by what is held now; `released`: this transaction did `release`."""
    used: Counter[str] = Counter()
    held_types: list[tuple[Sequence[str], int]] = []
    for row in tx.execute(_USED_OF_ALL if released else _USED_OF_HELD):
        used[row.name] += row.many
        if row.name == VCPUS:
            held_types.append((row.instance_types or (), row.many))
    vcpus: Mapping[str, int] = {}
    if VCPUS in rules:
        vcpus = {row.name: row.vcpus for row in tx.execute(_KNOWN_TYPES)}
    return Room(rules, used, held_types if VCPUS in rules else (), vcpus)


def lanes(tx: Connection) -> list[str]:
    """The lanes in which anybody waits, one step of the index for each."""
    return list(tx.scalars(_LANES))


def take(tx: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Write slots: `name`, `job_id`, `attempt`, and `instance_types` where they matter."""
    if rows:
        tx.execute(_TAKE, {"rows": json.dumps(rows)})


def take_of_those_under_way(tx: Connection, name: str, *, instance_type: str) -> None:
    """Write the slots of a new limit for what is under way; a job that names no type has this one."""
    key, _, value = name.partition("=")
    given = {"name": name, "key": "", "value": None, "instance_type": instance_type}
    if "=" in name:
        given |= {"key": key, "value": None if value == "*" else value}
    tx.execute(_UNDER_WAY, given)
    if name == VCPUS:
        tx.execute(_TYPES_OF_SLOTS)


def need_types(tx: Connection, names: Iterable[str]) -> None:
    """Write down types whose vCPUs somebody has to look up."""
    tx.execute(_NEEDED_TYPES, {"names": sorted(names)})
