"""Jobs under way whose cost is bounded, found without a look at any other.

A step of its own: beside new columns of the table its readers would wait while the index is made.
"""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Add the index."""
    op.execute(
        "CREATE INDEX ix_jobs_max_cost ON jobs (id)"
        " WHERE max_cost IS NOT NULL AND attempt > 0 AND state <> 'finished'"
    )
