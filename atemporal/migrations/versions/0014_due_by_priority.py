"""Due jobs in the order in which they are dispatched: by priority, time and id."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Exchange the index by which the scheduler finds what is to be dispatched."""
    op.execute(
        "CREATE INDEX ix_jobs_due ON jobs ("
        r"coalesce(substring(spec ->> 'priority', '^-?\d\d?\d?')::integer, 0) DESC, "
        "coalesce(dispatch_at, due_at), id) WHERE state = 'scheduled'"
    )
    # A scheduler of the release before looks without an index, for as long as the upgrade takes.
    op.execute("DROP INDEX ix_jobs_dispatch")
