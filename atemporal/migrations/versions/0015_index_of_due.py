"""What claims need no more: the index of what is due by time alone, and a look at each event's job.

A step of its own: to drop an index while the step holds the lock of one that it built can end in
a deadlock with the daemons, which go on meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Drop both."""
    # A scheduler of the release before looks without an index, for as long as the upgrade takes.
    op.execute("DROP INDEX ix_jobs_due")
    # It looked up the job of each event, whose row the same statement had just locked and written: an
    # eighth of the cost of a claim. No job is ever deleted without its events.
    op.execute("ALTER TABLE events DROP CONSTRAINT fk_events_job_id")
