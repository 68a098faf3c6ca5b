"""Which transaction submitted a job, so that a listing can be followed without losing one.

Rows that are there already have none: they are older than any transaction that still runs.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column, empty, and then its default: so no row is written again."""
    op.execute("ALTER TABLE jobs ADD COLUMN submit_xid bigint")
    op.execute(
        "ALTER TABLE jobs ALTER COLUMN submit_xid SET DEFAULT (pg_current_xact_id()::text)::bigint"
    )
    op.execute("CREATE INDEX ix_jobs_submit ON jobs (submit_xid NULLS FIRST, id)")
