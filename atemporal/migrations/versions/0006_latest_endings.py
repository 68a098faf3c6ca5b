"""An index on the endings of attempts: the launcher looks whether the latest machines ever called."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX ix_attempts_exited ON attempts (exited_at)")
