"""Facts get columns of their own: what blocks an attempt, and EC2's code for its instance's end.

Until now both stood in the sentence `detail`. This is the one place that still cuts them out of it, for
the rows that earlier releases wrote; the sentence stays as it is.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

_BLOCKED = """
    'authorization', 'key', 'quota', 'capacity', 'interruptions', 'answer', 'throttle'
"""
# A bare code, or one behind the instance's id and state, as the closing of an attempt wrote it.
_CODE = r"'((Client|Server)\.[A-Za-z.]+)$'"


def upgrade() -> None:
    """Add the columns, fill them, and index spot instances that were lost under the new name."""
    op.execute("ALTER TABLE attempts ADD COLUMN blocked_on text, ADD COLUMN end_code text")
    op.execute(
        f"""
        UPDATE attempts SET blocked_on = split_part(detail, ':', 1)
        WHERE instance_id IS NULL AND split_part(detail, ':', 1) IN ({_BLOCKED})
        """
    )
    op.execute(
        f"""
        UPDATE attempts SET end_code = substring(detail FROM {_CODE})
        WHERE reason IN ('instance_lost', 'spot_interrupted', 'no_capacity')
          AND detail ~ {_CODE}
        """
    )
    # NOT VALID keeps the lock short; `env` validates when the step is committed.
    op.execute(
        "ALTER TABLE attempts ADD CONSTRAINT ck_attempts_blocked_on "
        f"CHECK (blocked_on IN ({_BLOCKED})) NOT VALID"
    )
    op.execute(
        """
        CREATE INDEX ix_attempts_spot_lost ON attempts (exited_at)
        WHERE coalesce(launch ->> 'capacity_type', launch ->> 'market', 'on-demand') = 'spot'
          AND reason IN ('instance_lost', 'spot_interrupted')
        """
    )
    # It holds no data of its own: an earlier release that still runs is a little slower without.
    op.execute("DROP INDEX ix_attempts_spot_ended")
