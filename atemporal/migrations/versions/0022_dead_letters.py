"""Dead letters: messages that nobody could use, taken out of the broker's queue and kept here.

A new table: a release before knows nothing of it, and leaves the letters in the queue. A letter has no
foreign key to the one whose replay it is, which may be deleted before it.
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the table."""
    op.execute(
        "CREATE TABLE dead_letters ("
        " id uuid CONSTRAINT pk_dead_letters PRIMARY KEY,"
        " received_at timestamptz NOT NULL DEFAULT now(),"
        " dead_at timestamptz,"
        " queue text,"
        " exchange text,"
        " routing_key text,"
        " message_id text,"
        " correlation_id text,"
        " reply_to text,"
        " reason text NOT NULL,"
        " detail text NOT NULL,"
        " errors jsonb NOT NULL,"
        " deaths jsonb NOT NULL,"
        " properties jsonb NOT NULL,"
        " body bytea,"
        " body_size integer NOT NULL,"
        " digest text NOT NULL,"
        " replay_of uuid,"
        " state text NOT NULL DEFAULT 'kept',"
        " decided_at timestamptz,"
        " decided_by text,"
        " replayed_at timestamptz,"
        " CONSTRAINT ck_dead_letters_reason CHECK (reason IN ('invalid', 'unreadable',"
        "  'delivery_limit', 'rejected', 'expired', 'maxlen', 'unknown')),"
        " CONSTRAINT ck_dead_letters_state"
        "  CHECK (state IN ('kept', 'replaying', 'replayed', 'dropped')),"
        " CONSTRAINT ck_dead_letters_says_what CHECK ((state = 'kept') = (decided_at IS NULL)"
        "  AND (state = 'kept') = (decided_by IS NULL)"
        "  AND (state = 'dropped') = (body IS NULL)"
        "  AND (state = 'replayed') = (replayed_at IS NOT NULL)))"
    )
    for name, columns in (
        ("digest", "digest"),
        ("state", "state, id"),
        ("queue", "queue, id"),
        ("reason", "reason, id"),
        ("end_of_id", "reverse(id::text) text_pattern_ops"),
    ):
        op.execute(f"CREATE INDEX ix_dead_letters_{name} ON dead_letters ({columns})")
    op.execute(
        "CREATE INDEX ix_dead_letters_over ON dead_letters (coalesce(decided_at, received_at))"
        " WHERE state <> 'replaying'"
    )
