"""When a machine came up, and the reasons of endings that are told apart by phase."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_REASONS = """
    'completed', 'exit_nonzero', 'signalled', 'out_of_memory', 'start_failed', 'timed_out',
    'cancelled', 'unreported', 'launch_refused', 'queue_deadline', 'launch_deadline',
    'boot_deadline', 'pull_deadline', 'pull_failed', 'create_failed', 'spot_interrupted',
    'instance_lost'
"""


def upgrade() -> None:
    """Add a column, widen two checks."""
    op.execute("ALTER TABLE attempts ADD COLUMN booted_at timestamptz")
    for table in ("jobs", "attempts"):
        name = f"ck_{table}_reason"
        # NOT VALID keeps the lock short; `env` validates when the step is committed.
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}, "
            f"ADD CONSTRAINT {name} CHECK (reason IN ({_REASONS})) NOT VALID"
        )
