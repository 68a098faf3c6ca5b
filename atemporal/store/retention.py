"""Retention: jobs that finished long ago are deleted, with their attempts and their history.

Promise: nothing is deleted that anybody still waits for: no job that has not finished, none with an
attempt whose instance is not known to be gone, none with an event that no listener has seen or that an
active webhook has yet to see, and not the newest job, at which whoever follows the listing may wait. A
job goes with all that is of it, or stays with all but its log chunks, which go by an age of their own.
Its key goes too: the same key makes a new job from then on. A launch group goes after the last of its
attempts. A recurring schedule's fire goes once its time is over, unless its job still lives. A dead
letter goes too, unless it is to be sent again, and what is remembered of a message about a schedule.
Mechanism: in the order of their ends, by an index; what somebody else has locked is left for later.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

JOB_MAY_GO = """
      NOT EXISTS (SELECT 1 FROM attempts WHERE job_id = jobs.id AND state <> 'closed')
      AND NOT EXISTS (SELECT 1 FROM events WHERE job_id = jobs.id AND (NOT relayed OR id > (
        SELECT coalesce(min(position), 9223372036854775807) FROM webhooks
        WHERE paused_at IS NULL AND disabled_at IS NULL)))
      AND jobs.id <> (SELECT id FROM jobs ORDER BY submit_xid DESC NULLS LAST, id DESC LIMIT 1)
"""
"""Whether nobody waits any more for a job that has finished, as SQL."""
NO_LIVING_JOB = "NOT EXISTS (SELECT 1 FROM jobs WHERE id = fires.job_id AND state <> 'finished')"
"""Whether nothing more follows from a fire, as SQL."""

_OVER = text(
    f"""
    SELECT id FROM jobs
    WHERE finished_at < now() - make_interval(secs => :keep_s) AND {JOB_MAY_GO}
    ORDER BY finished_at LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)
# What refers to a job goes before it.
_DELETE = [
    text(f"DELETE FROM {table} WHERE {column} = ANY(CAST(:jobs AS uuid[]))")
    for table, column in (
        *(("events", "job_id"), ("log_chunks", "job_id"), ("attempts", "job_id")),
        ("jobs", "id"),
    )
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
    f"""
    UPDATE fires SET settled = true WHERE (schedule_id, fire_time) IN (
        SELECT schedule_id, fire_time FROM fires
        WHERE NOT settled AND fire_time < now() - make_interval(secs => :keep_s)
          AND {NO_LIVING_JOB}
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


# The time that counts is that of the decision, where there is one.
_OLD_LETTERS = text(
    """
    DELETE FROM dead_letters WHERE id IN (
        SELECT id FROM dead_letters
        WHERE state <> 'replaying'
          AND coalesce(decided_at, received_at) < now() - make_interval(secs => :keep_s)
        ORDER BY coalesce(decided_at, received_at) LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    RETURNING state = 'kept' AS undecided
    """
)
_OLD_DELIVERIES = text(
    """
    DELETE FROM webhook_deliveries WHERE (webhook_id, event_id) IN (
        SELECT webhook_id, event_id FROM webhook_deliveries
        WHERE dead_at < now() - make_interval(secs => :keep_s)
        ORDER BY dead_at LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    """
)

_OLD_CHUNKS = text(
    """
    DELETE FROM log_chunks WHERE (job_id, attempt, start) IN (
        SELECT job_id, attempt, start FROM log_chunks
        WHERE at < now() - make_interval(secs => :keep_s)
        ORDER BY at LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    """
)

_OLD_SCHEDULE_MESSAGES = text(
    """
    DELETE FROM schedule_messages WHERE key = ANY(ARRAY(
        SELECT key FROM schedule_messages
        WHERE at < now() - make_interval(secs => :keep_s)
        ORDER BY at LIMIT :limit
        FOR UPDATE SKIP LOCKED))
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


def delete_old_letters(tx: Connection, *, keep_s: float, limit: int) -> tuple[int, int]:
    """Delete up to `limit` dead letters that were decided about, or kept, over `keep_s` seconds ago.

    One that is to be sent again stays. Returns how many went, and about how many of them nobody had
    decided.
    """
    undecided = list(tx.scalars(_OLD_LETTERS, {"keep_s": keep_s, "limit": limit}))
    return len(undecided), sum(undecided)


def delete_old_schedule_messages(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Forget up to `limit` messages about schedules that were applied over `keep_s` seconds ago."""
    return tx.execute(_OLD_SCHEDULE_MESSAGES, {"keep_s": keep_s, "limit": limit}).rowcount


def delete_old_deliveries(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Delete up to `limit` deliveries given up more than `keep_s` seconds ago; return how many."""
    return tx.execute(_OLD_DELIVERIES, {"keep_s": keep_s, "limit": limit}).rowcount


def delete_old_chunks(tx: Connection, *, keep_s: float, limit: int) -> int:
    """Delete up to `limit` log chunks that were sent more than `keep_s` seconds ago; return how many."""
    return tx.execute(_OLD_CHUNKS, {"keep_s": keep_s, "limit": limit}).rowcount
