"""EC2's limits on calls, shared by all processes; who sweeps; what proves whose an instance is."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Make the two tables, and add the column."""
    op.execute(
        """
        CREATE TABLE rate_limits (
            name text CONSTRAINT pk_rate_limits PRIMARY KEY,
            requests double precision NOT NULL,
            instances double precision NOT NULL,
            pace double precision NOT NULL DEFAULT 1,
            updated_at timestamptz NOT NULL,
            shrunk_at timestamptz,
            waiting jsonb NOT NULL DEFAULT '{}',
            CONSTRAINT ck_rate_limits_pace CHECK (pace > 0 AND pace <= 1)
        ) WITH (fillfactor = 20)
        """
    )
    op.execute(
        """
        CREATE TABLE sweep_leases (
            name text CONSTRAINT pk_sweep_leases PRIMARY KEY,
            holder text NOT NULL,
            until timestamptz NOT NULL
        )
        """
    )
    op.execute("ALTER TABLE attempts ADD COLUMN instance_proof text")
