"""A reason for instances that EC2 took on and had no room for after all, and an index on them: the
launcher asks often which cells are empty.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0005"

_REASONS = """
    'completed', 'exit_nonzero', 'signalled', 'out_of_memory', 'start_failed', 'timed_out',
    'cancelled', 'unreported', 'launch_refused', 'queue_deadline', 'launch_deadline',
    'boot_deadline', 'pull_deadline', 'pull_failed', 'image_refused', 'create_failed',
    'spot_interrupted', 'instance_lost', 'no_capacity'
"""


def upgrade() -> None:
    """Widen the checks and make the index."""
    for table in ("jobs", "attempts"):
        name = f"ck_{table}_reason"
        # NOT VALID keeps the lock short: every row passed the narrower check before.
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} CHECK (reason IN ({_REASONS})) NOT VALID"
        )
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
    op.execute(
        "CREATE INDEX ix_attempts_no_capacity ON attempts (exited_at) WHERE reason = 'no_capacity'"
    )
