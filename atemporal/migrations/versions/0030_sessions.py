"""Sessions: who is signed in to the page with which API token."""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Add the table."""
    op.execute(
        "CREATE TABLE sessions ("
        " hash text CONSTRAINT pk_sessions PRIMARY KEY,"
        " token_name text NOT NULL CONSTRAINT fk_sessions_token_name"
        " REFERENCES api_tokens (name) ON DELETE CASCADE,"
        " created_at timestamptz NOT NULL DEFAULT now(),"
        " expires_at timestamptz NOT NULL)"
    )
    op.execute("CREATE INDEX ix_sessions_expires_at ON sessions (expires_at)")
