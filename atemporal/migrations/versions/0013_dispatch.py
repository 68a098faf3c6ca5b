"""When a job's launch begins, which can be before the job is due."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column, and exchange the index by which the scheduler finds what is to be dispatched."""
    op.execute("ALTER TABLE jobs ADD COLUMN dispatch_at timestamptz")
    op.execute(
        "CREATE INDEX ix_jobs_dispatch ON jobs (coalesce(dispatch_at, due_at))"
        " WHERE state = 'scheduled'"
    )
    # A scheduler of the release before looks without an index, for as long as the upgrade takes.
    op.execute("DROP INDEX ix_jobs_due")
