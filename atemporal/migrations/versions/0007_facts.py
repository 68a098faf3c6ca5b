"""Facts get columns of their own: what blocks an attempt, and EC2's code for its instance's end."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

_BLOCKED = """
    'authorization', 'key', 'quota', 'capacity', 'interruptions', 'answer', 'throttle'
"""


def upgrade() -> None:
    """Add the columns; the next step fills them."""
    op.execute("ALTER TABLE attempts ADD COLUMN blocked_on text, ADD COLUMN end_code text")
    # NOT VALID keeps the lock short; `env` validates when the step is committed.
    op.execute(
        "ALTER TABLE attempts ADD CONSTRAINT ck_attempts_blocked_on "
        f"CHECK (blocked_on IN ({_BLOCKED})) NOT VALID"
    )
