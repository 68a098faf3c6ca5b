"""Webhooks, and the events that are on their way to their receivers.

Two new tables: a release before knows nothing of them, and its retention may delete a job of which a
webhook has not heard yet.
"""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the tables."""
    op.execute(
        "CREATE TABLE webhooks ("
        " id uuid CONSTRAINT pk_webhooks PRIMARY KEY DEFAULT gen_random_uuid(),"
        " name text NOT NULL CONSTRAINT uq_webhooks_name UNIQUE,"
        " url text NOT NULL,"
        " labels jsonb NOT NULL DEFAULT '{}',"
        " types text[] NOT NULL DEFAULT '{}',"
        " secret text NOT NULL,"
        " old_secret text,"
        " old_secret_until timestamptz,"
        " position bigint NOT NULL,"
        " failures integer NOT NULL DEFAULT 0,"
        " failing_since timestamptz,"
        " try_at timestamptz NOT NULL DEFAULT now(),"
        " accepted_at timestamptz,"
        " last_error text,"
        " last_error_at timestamptz,"
        " paused_at timestamptz,"
        " disabled_at timestamptz,"
        " disabled_why text,"
        " test_id uuid,"
        " test_accepted boolean,"
        " test_result text,"
        " tested_at timestamptz,"
        " created_at timestamptz NOT NULL DEFAULT now(),"
        " updated_at timestamptz NOT NULL DEFAULT now(),"
        " CONSTRAINT ck_webhooks_failures"
        "  CHECK (failures >= 0 AND (failures = 0) = (failing_since IS NULL)),"
        " CONSTRAINT ck_webhooks_old_secret"
        "  CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),"
        " CONSTRAINT ck_webhooks_disabled"
        "  CHECK ((disabled_at IS NULL) = (disabled_why IS NULL)))"
    )
    op.execute(
        "CREATE TABLE webhook_deliveries ("
        " webhook_id uuid NOT NULL CONSTRAINT fk_webhook_deliveries_webhook_id"
        "  REFERENCES webhooks (id) ON DELETE CASCADE,"
        " event_id bigint NOT NULL,"
        " job_id uuid NOT NULL,"
        " type text NOT NULL,"
        " at timestamptz NOT NULL,"
        " body text NOT NULL,"
        " next_at timestamptz,"
        " failures integer NOT NULL DEFAULT 0,"
        " last_error text,"
        " dead_at timestamptz,"
        " CONSTRAINT pk_webhook_deliveries PRIMARY KEY (webhook_id, event_id),"
        " CONSTRAINT ck_webhook_deliveries_dead_is_over"
        "  CHECK (next_at IS NULL OR dead_at IS NULL))"
        " WITH (autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01)"
    )
    op.execute(
        "CREATE UNIQUE INDEX uq_webhook_deliveries_first"
        " ON webhook_deliveries (webhook_id, job_id) WHERE next_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_webhook_deliveries_next"
        " ON webhook_deliveries (webhook_id, next_at) WHERE next_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_webhook_deliveries_pending"
        " ON webhook_deliveries (webhook_id, job_id, event_id) WHERE dead_at IS NULL"
    )
    op.execute(
        "CREATE INDEX ix_webhook_deliveries_dead"
        " ON webhook_deliveries (webhook_id, event_id) WHERE dead_at IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX ix_webhook_deliveries_dead_at"
        " ON webhook_deliveries (dead_at) WHERE dead_at IS NOT NULL"
    )
