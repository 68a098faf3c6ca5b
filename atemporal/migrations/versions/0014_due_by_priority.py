"""Due jobs in the order in which they are dispatched: by priority, time and id."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the index of what is due."""
    op.execute(
        "CREATE INDEX ix_jobs_due_by_priority ON jobs ("
        r"coalesce(substring(spec ->> 'priority', '^-?\d\d?\d?')::integer, 0) DESC, "
        "coalesce(dispatch_at, due_at), id) WHERE state = 'scheduled'"
    )
    # What an index computes has statistics only after this, and without any the index may not be used.
    op.execute("ANALYZE jobs")
