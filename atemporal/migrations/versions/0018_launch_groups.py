"""Launch groups: one RunInstances call for many attempts, and which attempts are in one.

An attempt in a group is leased through its group's row. A launcher of the release before knows nothing
of groups and leases by `called_at`; that is set far ahead while an attempt is in a group.
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the table and the columns."""
    op.execute(
        "CREATE TABLE launch_groups ("
        " id uuid CONSTRAINT pk_launch_groups PRIMARY KEY,"
        " launch jsonb NOT NULL,"
        " size integer NOT NULL,"
        " created_at timestamptz NOT NULL DEFAULT now(),"
        " called_at timestamptz NOT NULL DEFAULT now(),"
        " settled_at timestamptz,"
        " CONSTRAINT ck_launch_groups_size CHECK (size > 0))"
    )
    op.execute(
        "CREATE INDEX ix_launch_groups_open ON launch_groups (called_at) WHERE settled_at IS NULL"
    )
    op.execute(
        "ALTER TABLE attempts"
        " ADD COLUMN group_id uuid CONSTRAINT fk_attempts_group_id REFERENCES launch_groups (id),"
        " ADD COLUMN tagged_at timestamptz"
    )
    op.execute(
        "CREATE INDEX ix_attempts_group_id ON attempts (group_id) WHERE group_id IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_attempts_untagged ON attempts (launched_at)"
        " WHERE group_id IS NOT NULL AND instance_id IS NOT NULL AND tagged_at IS NULL"
        " AND state <> 'closed'"
    )
