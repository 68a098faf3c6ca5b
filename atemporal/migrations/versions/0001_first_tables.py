"""First tables: jobs, attempts, events, API tokens; the statements are in the file of the same name."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.execute(Path(__file__).with_suffix(".sql").read_text())
