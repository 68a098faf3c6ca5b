"""The index of states goes: listings have one by status and order. A step of its own, as in 0015."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Drop it."""
    # An API of the release before lists by state without an index, for as long as the upgrade takes.
    op.execute("DROP INDEX ix_jobs_state")
