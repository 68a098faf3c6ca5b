"""The tables of webhooks, and of the events that are on their way to their receivers."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.tables.columns import VACUUMED, instant, metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("name", Text, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'")),
    Column("types", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("secret", Text, nullable=False),
    # The one before signs as well, until then.
    Column("old_secret", Text),
    instant("old_secret_until"),
    # All events up to this one have become deliveries.
    Column("position", BigInteger, nullable=False),
    # In a row, of whatever deliveries; since when; and when it may be tried next.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    instant("failing_since"),
    instant("try_at", nullable=False, now=True),
    instant("accepted_at"),
    Column("last_error", Text),
    instant("last_error_at"),
    instant("paused_at"),
    instant("disabled_at"),
    Column("disabled_why", Text),
    Column("test_id", Uuid),
    Column("test_accepted", Boolean),
    Column("test_result", Text),
    instant("tested_at"),
    instant("created_at", nullable=False, now=True),
    instant("updated_at", nullable=False, now=True),
    CheckConstraint("failures >= 0 AND (failures = 0) = (failing_since IS NULL)", "failures"),
    CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", "old_secret"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_why IS NULL)", "disabled"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column(
        "webhook_id",
        Uuid,
        ForeignKey("webhooks.id", name="fk_webhook_deliveries_webhook_id", ondelete="CASCADE"),
    ),
    Column("event_id", BigInteger, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    instant("at", nullable=False),
    Column("body", Text, nullable=False),
    # When it is sent next; only of the first one of each job, behind which the others wait.
    instant("next_at"),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    # When it was given up.
    instant("dead_at"),
    PrimaryKeyConstraint("webhook_id", "event_id"),
    CheckConstraint("next_at IS NULL OR dead_at IS NULL", "dead_is_over"),
    Index(
        "uq_webhook_deliveries_first",
        "webhook_id",
        "job_id",
        unique=True,
        postgresql_where=text("next_at IS NOT NULL"),
    ),
    Index(
        "ix_webhook_deliveries_next",
        "webhook_id",
        "next_at",
        postgresql_where=text("next_at IS NOT NULL"),
    ),
    Index(
        "ix_webhook_deliveries_pending",
        "webhook_id",
        "job_id",
        "event_id",
        postgresql_where=text("dead_at IS NULL"),
    ),
    Index(
        "ix_webhook_deliveries_dead",
        "webhook_id",
        "event_id",
        postgresql_where=text("dead_at IS NOT NULL"),
    ),
    Index(
        "ix_webhook_deliveries_dead_at",
        "dead_at",
        postgresql_where=text("dead_at IS NOT NULL"),
    ),
    postgresql_with=VACUUMED,
)
