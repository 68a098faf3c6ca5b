"""Jobs by their time: a listing from or to a time reads what it shows, however many there are."""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Add the index."""
    op.execute(
        "CREATE INDEX ix_jobs_time ON jobs (coalesce(outcome, state), run_at NULLS FIRST, id)"
    )
