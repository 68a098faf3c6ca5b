"""First tables: jobs, attempts, events, API tokens; the statements are in the file of the same name."""

from __future__ import annotations

from importlib.resources import files

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.execute(files(__package__).joinpath("0001_first_tables.sql").read_text())
