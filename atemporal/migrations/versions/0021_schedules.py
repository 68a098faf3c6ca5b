"""Recurring schedules, and what became of each of their fires.

Two new tables: a release before knows nothing of them, and runs the jobs that are made for fires as any
others. A fire has no foreign key to its job, which an older release's retention deletes without it.
"""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the tables."""
    op.execute(
        "CREATE TABLE schedules ("
        " id uuid CONSTRAINT pk_schedules PRIMARY KEY DEFAULT gen_random_uuid(),"
        " name text NOT NULL CONSTRAINT uq_schedules_name UNIQUE,"
        " cron text NOT NULL,"
        " zone text NOT NULL,"
        " spec jsonb NOT NULL,"
        " catch_up text NOT NULL,"
        " window_s integer NOT NULL,"
        " overlap text NOT NULL,"
        " start_deadline_s integer,"
        " version integer NOT NULL DEFAULT 1,"
        " paused_at timestamptz,"
        " next_fire_at timestamptz,"
        " rules_version text NOT NULL,"
        " look_at timestamptz,"
        " problem text,"
        " created_at timestamptz NOT NULL DEFAULT now(),"
        " updated_at timestamptz NOT NULL DEFAULT now(),"
        " CONSTRAINT ck_schedules_catch_up CHECK (catch_up IN ('skip', 'one', 'all')),"
        " CONSTRAINT ck_schedules_overlap CHECK (overlap IN ('allow', 'skip', 'cancel')),"
        " CONSTRAINT ck_schedules_seconds"
        "  CHECK (window_s > 0 AND coalesce(start_deadline_s, 1) > 0))"
    )
    op.execute("CREATE INDEX ix_schedules_look ON schedules (look_at) WHERE paused_at IS NULL")
    op.execute(
        "CREATE INDEX ix_schedules_rules ON schedules (rules_version) WHERE paused_at IS NULL"
    )
    op.execute(
        "CREATE TABLE fires ("
        " schedule_id uuid NOT NULL CONSTRAINT fk_fires_schedule_id"
        "  REFERENCES schedules (id) ON DELETE CASCADE,"
        " fire_time timestamptz NOT NULL,"
        " outcome text NOT NULL,"
        " reason text,"
        " job_id uuid,"
        " count integer NOT NULL DEFAULT 1,"
        " until timestamptz,"
        " settled boolean NOT NULL,"
        " decided_at timestamptz NOT NULL DEFAULT now(),"
        " CONSTRAINT pk_fires PRIMARY KEY (schedule_id, fire_time),"
        " CONSTRAINT ck_fires_outcome CHECK (outcome IN ('ran', 'skipped', 'missed')),"
        " CONSTRAINT ck_fires_reason CHECK (reason IN ('overlap', 'start_deadline', 'paused',"
        "  'edited', 'key_taken', 'catch_up', 'window')),"
        " CONSTRAINT ck_fires_says_what CHECK ((outcome = 'ran') = (job_id IS NOT NULL)"
        "  AND (outcome = 'ran') = (reason IS NULL) AND (outcome = 'ran' OR settled)))"
        " WITH (autovacuum_vacuum_scale_factor = 0.01,"
        " autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01)"
    )
    op.execute("CREATE INDEX ix_fires_open ON fires (schedule_id, fire_time) WHERE NOT settled")
    op.execute("CREATE INDEX ix_fires_settled ON fires (fire_time) WHERE settled")
