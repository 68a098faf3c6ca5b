"""An index for the end of a job's id, by which people call it: it is what differs between two ids."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the index."""
    op.execute("CREATE INDEX ix_jobs_end_of_id ON jobs (reverse(id::text) text_pattern_ops)")
