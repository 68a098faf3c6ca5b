"""Reasons for an image that the registry surely does not have, and for a granted instance that EC2
had no room for after all; the launcher asks often for the latest of those."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

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
        # NOT VALID keeps the lock short; `env` validates when the step is committed.
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} CHECK (reason IN ({_REASONS})) NOT VALID"
        )
    op.execute(
        "CREATE INDEX ix_attempts_no_capacity ON attempts (exited_at) WHERE reason = 'no_capacity'"
    )
