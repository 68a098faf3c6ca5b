"""Concurrency limits, who holds a slot of one, and who waits for one.

A scheduler of the release before knows of no limit and dispatches who waits: limits are kept from when
the last of these has stopped.
"""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"

_PRIORITY = r"coalesce(substring(spec ->> 'priority', '^-?\d\d?\d?')::integer, 0) DESC"
_ORDER = f"{_PRIORITY}, coalesce(dispatch_at, due_at), id"


def upgrade() -> None:
    """Add the tables, what jobs wait for, and the indexes of those that do and do not."""
    op.execute("ALTER TABLE jobs ADD COLUMN queued_at timestamptz, ADD COLUMN waits_for text")
    op.execute(
        "CREATE TABLE concurrency_limits ("
        " name text CONSTRAINT pk_concurrency_limits PRIMARY KEY,"
        " most integer NOT NULL CONSTRAINT ck_concurrency_limits_most CHECK (most >= 0),"
        " changed_at timestamptz NOT NULL,"
        " changed_by text NOT NULL)"
    )
    op.execute(
        "CREATE TABLE limit_changes ("
        " id bigserial CONSTRAINT pk_limit_changes PRIMARY KEY,"
        " name text NOT NULL,"
        " before integer,"
        " after integer,"
        " actor text NOT NULL,"
        " at timestamptz NOT NULL)"
    )
    op.execute(
        "CREATE TABLE slots ("
        " name text NOT NULL,"
        " job_id uuid NOT NULL,"
        " attempt integer NOT NULL,"
        " instance_types text[],"
        " taken_at timestamptz NOT NULL,"
        " CONSTRAINT pk_slots PRIMARY KEY (name, job_id, attempt))"
        " WITH (autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01)"
    )
    op.execute(
        "CREATE TABLE instance_types ("
        " name text CONSTRAINT pk_instance_types PRIMARY KEY,"
        " vcpus integer CONSTRAINT ck_instance_types_vcpus CHECK (vcpus >= 0),"
        " asked_at timestamptz)"
    )
    op.execute(
        f"CREATE INDEX ix_jobs_waiting ON jobs (waits_for, {_ORDER})"
        " WHERE state = 'scheduled' AND waits_for IS NOT NULL"
    )
    op.execute(
        f"CREATE INDEX ix_jobs_due_and_free ON jobs ({_ORDER})"
        " WHERE state = 'scheduled' AND waits_for IS NULL"
    )
    # What an index computes has statistics only after this, and without any the index may not be used.
    op.execute("ANALYZE jobs")
