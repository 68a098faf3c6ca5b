"""Retention: jobs that finished long ago are deleted, with their attempts and their history.

Promise: nothing is deleted that anybody still waits for: no job that has not finished, none with an
attempt whose instance is not known to be gone, none with an event that no listener has seen, and not the
newest job, at which whoever follows the listing may wait. A job goes with all that is of it, or stays
with all. Its key goes too: the same key makes a new job from then on. A launch group goes after the last
of its attempts. A recurring schedule's fire goes once its time is over, unless its job still lives.
Mechanism: in the order of their ends, by an index; what somebody else has locked is left for later.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

_OVER = text(
    """
    SELECT id FROM jobs
    WHERE finished_at < now() - make_interval(secs => :keep_s)
      AND NOT EXISTS (SELECT 1 FROM attempts WHERE job_id = jobs.id AND state <> 'closed')
      AND NOT EXISTS (SELECT 1 FROM events WHERE job_id = jobs.id AND NOT relayed)
      AND id <> (SELECT id FROM jobs ORDER BY submit_xid DESC NULLS LAST, id DESC LIMIT 1)
    ORDER BY finished_at LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)
# What refers to a job goes before it.
_DELETE = [
    text(f"DELETE FROM {table} WHERE {column} = ANY(CAST(:jobs AS uuid[]))")
    for table, column in (("events", "job_id"), ("attempts", "job_id"), ("jobs", "id"))
]

# Group by group, with OFFSET: for all at once Postgres may read all attempts that ever were in a group.
_EMPTY_GROUPS = text(
    """
    DELETE FROM launch_groups WHERE id IN (
        SELECT id FROM launch_groups
        WHERE settled_at < now() - make_interval(secs => :keep_s)
          AND NOT EXISTS (SELECT 1 FROM attempts WHERE group_id = launch_groups.id OFFSET 0)
        ORDER BY settled_at LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    """
)

# Nobody settles the fires of a schedule that is paused, stuck or has no fire any more.
_SETTLE_OLD_FIRES = text(
    """
    UPDATE fires SET settled = true WHERE (schedule_id, fire_time) IN (
        SELECT schedule_id, fire_time FROM fires
        WHERE NOT settled AND fire_time < now() - make_interval(secs => :keep_s)
          AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = fires.job_id AND state <> 'finished')
        LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    """
)
_OLD_FIRES = text(
    """
    DELETE FROM fires WHERE (schedule_id, fire_time) IN (
        SELECT schedule_id, fire_time FROM fires
        WHERE settled AND fire_time < now() - make_interval(secs => :keep_s)
        ORDER BY fire_time LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    """
)


def delete_finished(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Delete up to `limit` jobs that finished more than `keep_s` seconds ago; return how many."""
    over = [str(job_id) for job_id in tx.scalars(_OVER, {"keep_s": keep_s, "limit": limit})]
    if over:
        for statement in _DELETE:
            tx.execute(statement, {"jobs": over})
    return len(over)


def delete_empty_groups(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Delete up to `limit` groups settled more than `keep_s` seconds ago that have no attempts any more.

    Returns how many.
    """
    return tx.execute(_EMPTY_GROUPS, {"keep_s": keep_s, "limit": limit}).rowcount


def delete_old_fires(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Delete up to `limit` fires that came more than `keep_s` seconds ago; return how many.

    One stays while its job has not finished.
    """
    tx.execute(_SETTLE_OLD_FIRES, {"keep_s": keep_s, "limit": limit})
    return tx.execute(_OLD_FIRES, {"keep_s": keep_s, "limit": limit}).rowcount
