"""By when a job's container has to have started, and the messages by which schedules were changed.

A release before this one neither reads nor writes the new column: what it submits has no deadline, and
what it reschedules keeps the old one.
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"

_REASONS = """
    'completed', 'exit_nonzero', 'signalled', 'out_of_memory', 'start_failed', 'timed_out',
    'cancelled', 'unreported', 'launch_refused', 'queue_deadline', 'launch_deadline',
    'boot_deadline', 'pull_deadline', 'pull_failed', 'image_refused', 'create_failed',
    'spot_interrupted', 'instance_lost', 'no_capacity', 'claim_deadline', 'rescheduled',
    'start_deadline'
"""


def upgrade() -> None:
    """Add the column, the table and the indexes; widen the checks: a skipped fire can keep its job."""
    op.execute("ALTER TABLE jobs ADD COLUMN start_by timestamptz")
    checks = [(table, "reason", f"reason IN ({_REASONS})") for table in ("jobs", "attempts")]
    says_what = (
        "(outcome = 'ran') = (reason IS NULL) AND (outcome = 'ran' OR settled) AND "
        "(job_id IS NULL OR outcome = 'ran' OR reason = 'start_deadline') AND "
        "(job_id IS NOT NULL OR outcome <> 'ran')"
    )
    for table, rule, condition in [*checks, ("fires", "says_what", says_what)]:
        name = f"ck_{table}_{rule}"
        # NOT VALID keeps the lock short; `env` validates when the step is committed.
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID"
        )
    op.execute(
        "CREATE INDEX ix_jobs_start_by ON jobs (start_by)"
        " WHERE start_by IS NOT NULL AND state IN ('scheduled', 'queued', 'warming')"
    )
    op.execute(
        "CREATE TABLE schedule_messages ("
        " key text CONSTRAINT pk_schedule_messages PRIMARY KEY,"
        " name text NOT NULL,"
        " serial bigint,"
        " digest text NOT NULL,"
        " job_id uuid,"
        " at timestamptz NOT NULL DEFAULT now())"
        " WITH (autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01)"
    )
    op.execute(
        "CREATE INDEX ix_schedule_messages_serial ON schedule_messages (name, serial)"
        " WHERE serial IS NOT NULL"
    )
    op.execute("CREATE INDEX ix_schedule_messages_at ON schedule_messages (at)")
