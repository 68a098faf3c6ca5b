"""Log chunks: what a container writes while it runs. And how much it wrote in all.

A release before does not know the table: its retention leaves the chunks of a job that it deletes, which
then go by their own age.
"""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add the table and the column."""
    op.execute("ALTER TABLE attempts ADD COLUMN log_bytes bigint")
    op.execute(
        "CREATE TABLE log_chunks ("
        " job_id uuid NOT NULL,"
        " attempt integer NOT NULL,"
        " start bigint NOT NULL CONSTRAINT ck_log_chunks_start CHECK (start >= 0),"
        " data bytea NOT NULL,"
        " at timestamptz NOT NULL,"
        " CONSTRAINT pk_log_chunks PRIMARY KEY (job_id, attempt, start))"
        " WITH (autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01)"
    )
    op.execute("CREATE INDEX ix_log_chunks_at ON log_chunks (at)")
