"""The tables, and the rules about money and safety that hold even against our own mistakes.

Promise: whatever code runs, a job has at most one live attempt, an instance belongs to at most one
attempt, a finished job says how it ended, and no job exceeds its budget of attempts: the database
refuses. The migrations build exactly these tables (a test compares the two).
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    false,
    func,
    insert,
    literal_column,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.recurrence import CatchUp, FireOutcome, FireReason, Overlap
from atemporal.states import (
    LIVE_ATTEMPT,
    AttemptState,
    BlockedReason,
    JobState,
    Outcome,
    Reason,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


REVISION = "0021"
"""The last step of the migrations, which makes these tables."""


DISPATCH_AT = "coalesce(dispatch_at, due_at)"
"""When a job's launch begins, as SQL."""

STATUS = "coalesce(outcome, state)"
"""A job's outcome once it has finished, else its state, as SQL."""

PRIORITY = r"coalesce(substring(spec ->> 'priority', '^-?\d\d?\d?')::integer, 0)"
"""A job's priority, as SQL: a number whatever a hand wrote there, so that no row spoils the index."""


# A fifth, the default, of a large table is too much to be left dead, or unknown to the planner.
_VACUUMED = {
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_insert_scale_factor": "0.01",
    "autovacuum_analyze_scale_factor": "0.01",
}


def _one_of(column: str, values: type[StrEnum]) -> str:
    listed = ", ".join(f"'{value.value}'" for value in values)
    return f"{column} IN ({listed})"


def _instant(name: str, *, nullable: bool = True, now: bool = False) -> Column[object]:
    default = func.now() if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("key", Text, unique=True),
    Column("spec", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("reason", Text),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("attempt_base", Integer, nullable=False, server_default=text("0")),
    Column("attempt_limit", Integer, nullable=False),
    _instant("run_at", nullable=False),
    _instant("due_at", nullable=False),
    _instant("created_at", nullable=False, now=True),
    _instant("updated_at", nullable=False, now=True),
    _instant("finished_at"),
    # When the launch begins; `due_at` where it does not say, as in rows of older releases.
    _instant("dispatch_at"),
    # How long the launch may take by the estimate that `dispatch_at` was made with, in seconds; and
    # when that is made anew, until the launch begins.
    Column("lead_s", Float),
    _instant("plan_at"),
    # A transaction's number grows; one that began later can not commit a smaller one.
    Column("submit_xid", BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint")),
    CheckConstraint(_one_of("state", JobState), "state"),
    CheckConstraint(_one_of("outcome", Outcome), "outcome"),
    CheckConstraint(_one_of("reason", Reason), "reason"),
    CheckConstraint(
        "(state = 'finished') = (outcome IS NOT NULL) AND "
        "(state = 'finished') = (finished_at IS NOT NULL)",
        "finished_says_how",
    ),
    CheckConstraint("attempt >= 0 AND attempt - attempt_base <= attempt_limit", "within_budget"),
    CheckConstraint("state IN ('scheduled', 'finished') OR attempt > 0", "active_has_attempt"),
    Index(
        "ix_jobs_due_by_priority",
        literal_column(PRIORITY).desc(),
        text(DISPATCH_AT),
        "id",
        postgresql_where=text("state = 'scheduled'"),
    ),
    Index(
        "ix_jobs_plan",
        "plan_at",
        postgresql_where=text("state = 'scheduled' AND plan_at IS NOT NULL"),
    ),
    Index("ix_jobs_queued", "updated_at", postgresql_where=text("state = 'queued'")),
    Index("ix_jobs_status", text(STATUS), text("submit_xid NULLS FIRST"), "id"),
    Index("ix_jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index(
        "ix_jobs_end_of_id",
        literal_column("reverse(id::text)").label("end_of_id"),
        postgresql_ops={"end_of_id": "text_pattern_ops"},
    ),
    Index("ix_jobs_submit", text("submit_xid NULLS FIRST"), "id"),
    Index("ix_jobs_labels", text("(spec -> 'labels')"), postgresql_using="gin"),
    postgresql_with=_VACUUMED,
)

CAPACITY_TYPE = "coalesce(launch ->> 'capacity_type', launch ->> 'market', 'on-demand')"
"""A launch's capacity type as SQL; the first releases called it by another name."""

_LIVE = ", ".join(f"'{state.value}'" for state in LIVE_ATTEMPT)

launch_groups = Table(
    "launch_groups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("launch", JSONB, nullable=False),
    Column("size", Integer, nullable=False),
    _instant("created_at", nullable=False, now=True),
    _instant("called_at", nullable=False, now=True),
    _instant("settled_at"),
    CheckConstraint("size > 0", "size"),
    Index("ix_launch_groups_open", "called_at", postgresql_where=text("settled_at IS NULL")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("launch", JSONB, nullable=False),
    Column("instance_id", Text),
    Column("public_dns", Text),
    Column("public_ip", Text),
    Column("claim", Text),
    Column("exit_code", SmallInteger),
    Column("oom_killed", Boolean),
    Column("log_tail", LargeBinary),
    Column("detail", Text),
    _instant("created_at", nullable=False, now=True),
    _instant("called_at", nullable=False, now=True),
    _instant("launched_at"),
    _instant("booted_at"),
    _instant("running_at"),
    _instant("exited_at"),
    _instant("closed_at"),
    Column("blocked_on", Text),
    Column("end_code", Text),
    Column("claimed_instance_id", Text),
    Column("instance_proof", Text),
    # What its job said when it was begun: when its launch was to begin and how long it may take; and,
    # only where that was ahead of it, the time of its start.
    _instant("dispatch_at"),
    Column("lead_s", Float),
    _instant("start_at"),
    _instant("ready_at"),
    _instant("started_at"),
    Column("clock_synchronised", Boolean),
    Column("clock_offset_ms", BigInteger),
    Column("group_id", Uuid, ForeignKey("launch_groups.id", name="fk_attempts_group_id")),
    # When the instance got the attempt's own tags, where its launch could not give them.
    _instant("tagged_at"),
    UniqueConstraint("instance_id"),
    CheckConstraint("number > 0", "number"),
    CheckConstraint(_one_of("state", AttemptState), "state"),
    CheckConstraint(_one_of("reason", Reason), "reason"),
    CheckConstraint(_one_of("blocked_on", BlockedReason), "blocked_on"),
    CheckConstraint(
        f"(state IN ({_LIVE})) = (reason IS NULL) AND (state IN ({_LIVE})) = (exited_at IS NULL)",
        "ended_says_why",
    ),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", "closed_at"),
    CheckConstraint("exit_code BETWEEN 0 AND 255", "exit_code"),
    Index(
        "uq_attempts_one_live_a_job",
        "job_id",
        unique=True,
        postgresql_where=text(f"state IN ({_LIVE})"),
    ),
    Index("ix_attempts_exited", "exited_at"),
    Index(
        "ix_attempts_prepared",
        text("coalesce(ready_at, running_at)"),
        postgresql_where=text("coalesce(ready_at, running_at) IS NOT NULL"),
    ),
    Index("ix_attempts_closed", "closed_at", postgresql_where=text("closed_at IS NOT NULL")),
    Index("ix_attempts_open", "state", postgresql_where=text("state <> 'closed'")),
    Index("ix_attempts_group_id", "group_id", postgresql_where=text("group_id IS NOT NULL")),
    Index(
        "ix_attempts_untagged",
        "launched_at",
        postgresql_where=text(
            "group_id IS NOT NULL AND instance_id IS NOT NULL AND tagged_at IS NULL"
            " AND state <> 'closed'"
        ),
    ),
    Index(
        "ix_attempts_spot_lost",
        "exited_at",
        postgresql_where=text(
            f"{CAPACITY_TYPE} = 'spot' AND reason IN ('instance_lost', 'spot_interrupted')"
        ),
    ),
    Index(
        "ix_attempts_no_capacity",
        "exited_at",
        postgresql_where=text("reason = 'no_capacity'"),
    ),
    postgresql_with=_VACUUMED,
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("attempt", Integer, nullable=False),
    _instant("at", nullable=False, now=True),
    Column("type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("relayed", Boolean, nullable=False, server_default=false()),
    Index("ix_events_job_id", "job_id", "id"),
    Index("ix_events_unrelayed", "id", postgresql_where=text("NOT relayed")),
    postgresql_with=_VACUUMED,
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("name", Text, nullable=False, unique=True),
    Column("cron", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("window_s", Integer, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("start_deadline_s", Integer),
    # Each change of a person's, so that two of them can not undo each other unseen.
    Column("version", Integer, nullable=False, server_default=text("1")),
    _instant("paused_at"),
    # All fires before this one are decided; it was computed by these zone rules.
    _instant("next_fire_at"),
    Column("rules_version", Text, nullable=False),
    # When something is to be done for it.
    _instant("look_at"),
    # Why it can not be fired.
    Column("problem", Text),
    _instant("created_at", nullable=False, now=True),
    _instant("updated_at", nullable=False, now=True),
    CheckConstraint(_one_of("catch_up", CatchUp), "catch_up"),
    CheckConstraint(_one_of("overlap", Overlap), "overlap"),
    CheckConstraint("window_s > 0 AND coalesce(start_deadline_s, 1) > 0", "seconds"),
    Index("ix_schedules_look", "look_at", postgresql_where=text("paused_at IS NULL")),
    Index("ix_schedules_rules", "rules_version", postgresql_where=text("paused_at IS NULL")),
)

fires = Table(
    "fires",
    metadata,
    Column(
        "schedule_id",
        Uuid,
        ForeignKey("schedules.id", name="fk_fires_schedule_id", ondelete="CASCADE"),
    ),
    _instant("fire_time", nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("job_id", Uuid),
    # How many fires the row stands for, and the last one of several.
    Column("count", Integer, nullable=False, server_default=text("1")),
    _instant("until"),
    # Whether nothing more follows from it: it has no job, or one that has finished.
    Column("settled", Boolean, nullable=False),
    _instant("decided_at", nullable=False, now=True),
    PrimaryKeyConstraint("schedule_id", "fire_time"),
    CheckConstraint(_one_of("outcome", FireOutcome), "outcome"),
    CheckConstraint(_one_of("reason", FireReason), "reason"),
    CheckConstraint(
        "(outcome = 'ran') = (job_id IS NOT NULL) AND (outcome = 'ran') = (reason IS NULL)"
        " AND (outcome = 'ran' OR settled)",
        "says_what",
    ),
    Index("ix_fires_open", "schedule_id", "fire_time", postgresql_where=text("NOT settled")),
    Index("ix_fires_settled", "fire_time", postgresql_where=text("settled")),
    postgresql_with=_VACUUMED,
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    _instant("created_at", nullable=False, now=True),
    CheckConstraint("scopes <@ ARRAY['submit', 'read', 'cancel', 'admin']", "scopes"),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("requests", Double, nullable=False),
    Column("instances", Double, nullable=False),
    Column("pace", Double, nullable=False, server_default=text("1")),
    _instant("updated_at", nullable=False),
    _instant("shrunk_at"),
    # Who got less than it wanted: since when, and until when it keeps its place.
    Column("waiting", JSONB, nullable=False, server_default=text("'{}'")),
    CheckConstraint("pace > 0 AND pace <= 1", "pace"),
    # It is written with each call: no page is to be searched for room.
    postgresql_with={"fillfactor": "20"},
)

sweep_leases = Table(
    "sweep_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    _instant("until", nullable=False),
)

# The key is the same for every row, so there can be only one.
installation = Table(
    "installation",
    metadata,
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("single", Boolean, primary_key=True, server_default=true()),
    CheckConstraint("single", "single"),
)


@event.listens_for(installation, "after_create")
def _make_its_row(_table: Table, connection: Connection, **_: object) -> None:
    connection.execute(insert(installation))
