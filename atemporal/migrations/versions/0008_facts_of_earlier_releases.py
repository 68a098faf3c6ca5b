"""The facts that earlier releases wrote into the sentence `detail`, in the columns they have now.

This is the one place that still cuts them out; the sentence stays as it is. A step of its own, because
it reads the whole table: it locks only the rows that it changes.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

_BLOCKED = """
    'authorization', 'key', 'quota', 'capacity', 'interruptions', 'answer', 'throttle'
"""
# A bare code, or one behind the instance's id and state, as the closing of an attempt wrote it.
_CODE = r"'((Client|Server)\.[A-Za-z.]+)$'"


def upgrade() -> None:
    """Fill what is still empty."""
    op.execute(
        f"""
        UPDATE attempts SET blocked_on = split_part(detail, ':', 1)
        WHERE blocked_on IS NULL AND instance_id IS NULL
          AND split_part(detail, ':', 1) IN ({_BLOCKED})
        """
    )
    op.execute(
        f"""
        UPDATE attempts SET end_code = substring(detail FROM {_CODE})
        WHERE end_code IS NULL AND reason IN ('instance_lost', 'spot_interrupted', 'no_capacity')
          AND detail ~ {_CODE}
        """
    )
