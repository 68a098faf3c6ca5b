"""An index on the endings of spot instances: the launcher asks often which pools interrupt."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the index."""
    op.execute(
        """
        CREATE INDEX ix_attempts_spot_ended ON attempts (exited_at)
        WHERE launch ->> 'market' = 'spot' AND reason IN ('instance_lost', 'spot_interrupted')
        """
    )
