"""What attempts cost, what a job may cost, and the sums that outlive both.

A release before this one neither reads nor writes the new columns and the table: the cost of an attempt
that its reaper closes is not booked, and a bound on a job's cost is not held by its schedulers.
"""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"

_REASONS = """
    'completed', 'exit_nonzero', 'signalled', 'out_of_memory', 'start_failed', 'timed_out',
    'cancelled', 'unreported', 'launch_refused', 'queue_deadline', 'launch_deadline',
    'boot_deadline', 'pull_deadline', 'pull_failed', 'image_refused', 'create_failed',
    'spot_interrupted', 'instance_lost', 'no_capacity', 'claim_deadline', 'rescheduled',
    'start_deadline', 'max_cost'
"""


def upgrade() -> None:
    """Add the columns and the table; widen the checks of reasons."""
    op.execute("ALTER TABLE jobs ADD COLUMN max_cost bigint")
    op.execute(
        "ALTER TABLE attempts ADD COLUMN billed_from timestamptz,"
        " ADD COLUMN billed_until timestamptz, ADD COLUMN billed_s bigint,"
        " ADD COLUMN booked bigint"
    )
    for table in ("jobs", "attempts"):
        name = f"ck_{table}_reason"
        # NOT VALID keeps the lock short; `env` validates when the step is committed.
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} CHECK (reason IN ({_REASONS})) NOT VALID"
        )
    op.execute(
        "CREATE TABLE costs ("
        " hour timestamptz NOT NULL,"
        " instance_type text NOT NULL,"
        " capacity_type text NOT NULL,"
        " labels_digest bytea NOT NULL,"
        " labels jsonb NOT NULL,"
        " attempts bigint NOT NULL,"
        " unpriced bigint NOT NULL,"
        " seconds bigint NOT NULL,"
        " cost bigint NOT NULL,"
        " CONSTRAINT pk_costs PRIMARY KEY (hour, instance_type, capacity_type, labels_digest),"
        " CONSTRAINT ck_costs_unpriced CHECK (attempts >= unpriced AND unpriced >= 0),"
        " CONSTRAINT ck_costs_not_negative CHECK (seconds >= 0 AND cost >= 0))"
        " WITH (autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_insert_scale_factor = 0.01,"
        " autovacuum_analyze_scale_factor = 0.01, fillfactor = 70)"
    )
