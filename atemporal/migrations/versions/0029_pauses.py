"""Pauses of the whole installation.

A scheduler of a release before this one dispatches on while there is one.
"""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Add the table."""
    op.execute(
        "CREATE TABLE pauses ("
        " id bigserial CONSTRAINT pk_pauses PRIMARY KEY,"
        " active boolean DEFAULT true CONSTRAINT uq_pauses_active UNIQUE"
        " CONSTRAINT ck_pauses_active CHECK (active),"
        " at timestamptz NOT NULL,"
        " actor text NOT NULL,"
        " reason text NOT NULL,"
        " ended_at timestamptz,"
        " ended_by text)"
    )
