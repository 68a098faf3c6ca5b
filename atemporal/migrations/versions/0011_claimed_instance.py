"""The instance id that a machine claimed with, beside the one that EC2 gave.

It is no evidence of whose the instance is, so it may be anything and anybody's: no rule holds for it.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE attempts ADD COLUMN claimed_instance_id text")
