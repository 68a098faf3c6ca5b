"""The index of what is due leaves out what waits for a limit. A step of its own, as in 0015."""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Drop the former, and give its name to the new one."""
    # A scheduler of the release before looks without an index, for as long as the upgrade takes.
    op.execute("DROP INDEX ix_jobs_due_by_priority")
    op.execute("ALTER INDEX ix_jobs_due_and_free RENAME TO ix_jobs_due_by_priority")
