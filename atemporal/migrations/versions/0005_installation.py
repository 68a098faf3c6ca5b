"""Who we are: one row, made here, with an id that everything we launch carries."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table and its row."""
    op.execute(
        """
        CREATE TABLE installation (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            single BOOLEAN DEFAULT true NOT NULL,
            CONSTRAINT pk_installation PRIMARY KEY (single),
            CONSTRAINT ck_installation_single CHECK (single)
        )
        """
    )
    op.execute("INSERT INTO installation DEFAULT VALUES")
