"""The table of dead letters."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.model.dead_letter import DeadReason, LetterState
from atemporal.tables.columns import instant, metadata, one_of

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Uuid, primary_key=True),
    instant("received_at", nullable=False, now=True),
    instant("dead_at"),
    # Where its message came from, as far as that is known.
    Column("queue", Text),
    Column("exchange", Text),
    Column("routing_key", Text),
    Column("message_id", Text),
    Column("correlation_id", Text),
    Column("reply_to", Text),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("errors", JSONB, nullable=False),
    Column("deaths", JSONB, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("body", LargeBinary),
    Column("body_size", Integer, nullable=False),
    # The same for one that the broker delivers twice; also for two messages that are alike.
    Column("digest", Text, nullable=False),
    Column("replay_of", Uuid),
    Column("state", Text, nullable=False, server_default=text("'kept'")),
    instant("decided_at"),
    Column("decided_by", Text),
    instant("replayed_at"),
    CheckConstraint(one_of("reason", DeadReason), "reason"),
    CheckConstraint(one_of("state", LetterState), "state"),
    CheckConstraint(
        "(state = 'kept') = (decided_at IS NULL) AND (state = 'kept') = (decided_by IS NULL)"
        " AND (state = 'dropped') = (body IS NULL)"
        " AND (state = 'replayed') = (replayed_at IS NOT NULL)",
        "says_what",
    ),
    Index("ix_dead_letters_digest", "digest"),
    Index("ix_dead_letters_state", "state", "id"),
    Index("ix_dead_letters_queue", "queue", "id"),
    Index("ix_dead_letters_reason", "reason", "id"),
    Index(
        "ix_dead_letters_end_of_id",
        literal_column("reverse(id::text)").label("end_of_id"),
        postgresql_ops={"end_of_id": "text_pattern_ops"},
    ),
    Index(
        "ix_dead_letters_over",
        text("coalesce(decided_at, received_at)"),
        postgresql_where=text("state <> 'replaying'"),
    ),
)
