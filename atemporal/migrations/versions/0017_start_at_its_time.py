"""What a start on time needs: the plan of each launch, and what became of it.

A release before this one neither reads nor writes the new columns: its rows have no lead.
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"

_REASONS = """
    'completed', 'exit_nonzero', 'signalled', 'out_of_memory', 'start_failed', 'timed_out',
    'cancelled', 'unreported', 'launch_refused', 'queue_deadline', 'launch_deadline',
    'boot_deadline', 'pull_deadline', 'pull_failed', 'image_refused', 'create_failed',
    'spot_interrupted', 'instance_lost', 'no_capacity', 'claim_deadline', 'rescheduled'
"""


def upgrade() -> None:
    """Add the columns and their indexes, and widen the checks."""
    op.execute("ALTER TABLE jobs ADD COLUMN lead_s float, ADD COLUMN plan_at timestamptz")
    op.execute(
        "ALTER TABLE attempts ADD COLUMN dispatch_at timestamptz, ADD COLUMN lead_s float,"
        " ADD COLUMN start_at timestamptz, ADD COLUMN ready_at timestamptz,"
        " ADD COLUMN started_at timestamptz, ADD COLUMN clock_synchronised boolean,"
        " ADD COLUMN clock_offset_ms bigint"
    )
    for table in ("jobs", "attempts"):
        name = f"ck_{table}_reason"
        # NOT VALID keeps the lock short; `env` validates when the step is committed.
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} CHECK (reason IN ({_REASONS})) NOT VALID"
        )
    op.execute(
        "CREATE INDEX ix_jobs_plan ON jobs (plan_at)"
        " WHERE state = 'scheduled' AND plan_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_attempts_prepared ON attempts (coalesce(ready_at, running_at))"
        " WHERE coalesce(ready_at, running_at) IS NOT NULL"
    )
