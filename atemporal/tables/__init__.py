"""The tables, and the rules about money and safety that hold even against our own mistakes.

Promise: whatever code runs, a job has at most one live attempt, an instance belongs to at most one
attempt, a finished job says how it ended, and no job exceeds its budget of attempts: the database
refuses. The migrations build exactly these tables (a test compares the two).
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
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
from atemporal.tables.columns import VACUUMED, instant, metadata, one_of
from atemporal.tables.costs import costs
from atemporal.tables.dead_letters import dead_letters
from atemporal.tables.limits import concurrency_limits, instance_types, limit_changes, slots
from atemporal.tables.log_chunks import log_chunks
from atemporal.tables.pauses import pauses
from atemporal.tables.schedule_messages import schedule_messages
from atemporal.tables.sessions import sessions
from atemporal.tables.webhooks import webhook_deliveries, webhooks

__all__ = [
    "CAPACITY_TYPE",
    "DISPATCH_AT",
    "PRIORITY",
    "REVISION",
    "STATUS",
    "api_tokens",
    "attempts",
    "concurrency_limits",
    "costs",
    "dead_letters",
    "events",
    "fires",
    "installation",
    "instance_types",
    "jobs",
    "launch_groups",
    "limit_changes",
    "log_chunks",
    "metadata",
    "pauses",
    "rate_limits",
    "schedule_messages",
    "schedules",
    "sessions",
    "slots",
    "sweep_leases",
    "webhook_deliveries",
    "webhooks",
]


REVISION = "0032"
"""The last step of the migrations, which makes these tables."""


DISPATCH_AT = "coalesce(dispatch_at, due_at)"
"""When a job's launch begins, as SQL."""

STATUS = "coalesce(outcome, state)"
"""A job's outcome once it has finished, else its state, as SQL."""

PRIORITY = r"coalesce(substring(spec ->> 'priority', '^-?\d\d?\d?')::integer, 0)"
"""A job's priority, as SQL: a number whatever a hand wrote there, so that no row spoils the index."""


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
    instant("run_at", nullable=False),
    instant("due_at", nullable=False),
    instant("created_at", nullable=False, now=True),
    instant("updated_at", nullable=False, now=True),
    instant("finished_at"),
    # When the launch begins; `due_at` where it does not say, as in rows of older releases.
    instant("dispatch_at"),
    # How long the launch may take by the estimate that `dispatch_at` was made with, in seconds; and
    # when that is made anew, until the launch begins.
    Column("lead_s", Float),
    instant("plan_at"),
    # When it was dispatched last; and what it was put aside for: a lane of `atemporal.concurrency`.
    instant("queued_at"),
    Column("waits_for", Text),
    # By when its container has to have started; empty when there is no such time, or it has.
    instant("start_by"),
    # What its attempts may cost together, in billionths of a dollar.
    Column("max_cost", BigInteger),
    # A transaction's number grows; one that began later can not commit a smaller one.
    Column("submit_xid", BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint")),
    CheckConstraint(one_of("state", JobState), "state"),
    CheckConstraint(one_of("outcome", Outcome), "outcome"),
    CheckConstraint(one_of("reason", Reason), "reason"),
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
        postgresql_where=text("state = 'scheduled' AND waits_for IS NULL"),
    ),
    Index(
        "ix_jobs_waiting",
        "waits_for",
        literal_column(PRIORITY).desc(),
        text(DISPATCH_AT),
        "id",
        postgresql_where=text("state = 'scheduled' AND waits_for IS NOT NULL"),
    ),
    Index(
        "ix_jobs_plan",
        "plan_at",
        postgresql_where=text("state = 'scheduled' AND plan_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_start_by",
        "start_by",
        postgresql_where=text(
            "start_by IS NOT NULL AND state IN ('scheduled', 'queued', 'warming')"
        ),
    ),
    Index(
        "ix_jobs_max_cost",
        "id",
        postgresql_where=text("max_cost IS NOT NULL AND attempt > 0 AND state <> 'finished'"),
    ),
    Index("ix_jobs_queued", "updated_at", postgresql_where=text("state = 'queued'")),
    Index("ix_jobs_status", text(STATUS), text("submit_xid NULLS FIRST"), "id"),
    Index("ix_jobs_time", text(STATUS), text("run_at NULLS FIRST"), "id"),
    Index("ix_jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index(
        "ix_jobs_end_of_id",
        literal_column("reverse(id::text)").label("end_of_id"),
        postgresql_ops={"end_of_id": "text_pattern_ops"},
    ),
    Index("ix_jobs_submit", text("submit_xid NULLS FIRST"), "id"),
    Index("ix_jobs_labels", text("(spec -> 'labels')"), postgresql_using="gin"),
    postgresql_with=VACUUMED,
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
    instant("created_at", nullable=False, now=True),
    instant("called_at", nullable=False, now=True),
    instant("settled_at"),
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
    instant("created_at", nullable=False, now=True),
    instant("called_at", nullable=False, now=True),
    instant("launched_at"),
    instant("booted_at"),
    instant("running_at"),
    instant("exited_at"),
    instant("closed_at"),
    Column("blocked_on", Text),
    Column("end_code", Text),
    Column("claimed_instance_id", Text),
    Column("instance_proof", Text),
    # What its job said when it was begun: when its launch was to begin and how long it may take; and,
    # only where that was ahead of it, the time of its start.
    instant("dispatch_at"),
    Column("lead_s", Float),
    instant("start_at"),
    instant("ready_at"),
    instant("started_at"),
    Column("clock_synchronised", Boolean),
    Column("clock_offset_ms", BigInteger),
    Column("group_id", Uuid, ForeignKey("launch_groups.id", name="fk_attempts_group_id")),
    # When the instance got the attempt's own tags, where its launch could not give them.
    instant("tagged_at"),
    # How many bytes its container wrote in all, where its machine knows.
    Column("log_bytes", BigInteger),
    # When EC2 began and ended to bill its instance, for how many seconds, and what that cost, in
    # billionths of a dollar. The
    # end is written when it is first seen, the others once it is confirmed.
    instant("billed_from"),
    instant("billed_until"),
    Column("billed_s", BigInteger),
    Column("booked", BigInteger),
    UniqueConstraint("instance_id"),
    CheckConstraint("number > 0", "number"),
    CheckConstraint(one_of("state", AttemptState), "state"),
    CheckConstraint(one_of("reason", Reason), "reason"),
    CheckConstraint(one_of("blocked_on", BlockedReason), "blocked_on"),
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
    postgresql_with=VACUUMED,
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("attempt", Integer, nullable=False),
    instant("at", nullable=False, now=True),
    Column("type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("relayed", Boolean, nullable=False, server_default=false()),
    Index("ix_events_job_id", "job_id", "id"),
    Index("ix_events_unrelayed", "id", postgresql_where=text("NOT relayed")),
    postgresql_with=VACUUMED,
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
    instant("paused_at"),
    # All fires before this one are decided; it was computed by these zone rules.
    instant("next_fire_at"),
    Column("rules_version", Text, nullable=False),
    # When something is to be done for it.
    instant("look_at"),
    # Why it can not be fired.
    Column("problem", Text),
    instant("created_at", nullable=False, now=True),
    instant("updated_at", nullable=False, now=True),
    CheckConstraint(one_of("catch_up", CatchUp), "catch_up"),
    CheckConstraint(one_of("overlap", Overlap), "overlap"),
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
    instant("fire_time", nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("job_id", Uuid),
    # How many fires the row stands for, and the last one of several.
    Column("count", Integer, nullable=False, server_default=text("1")),
    instant("until"),
    # Whether nothing more follows from it: it has no job, or one that has finished.
    Column("settled", Boolean, nullable=False),
    instant("decided_at", nullable=False, now=True),
    PrimaryKeyConstraint("schedule_id", "fire_time"),
    CheckConstraint(one_of("outcome", FireOutcome), "outcome"),
    CheckConstraint(one_of("reason", FireReason), "reason"),
    CheckConstraint(
        "(outcome = 'ran') = (reason IS NULL) AND (outcome = 'ran' OR settled) AND "
        "(job_id IS NULL OR outcome = 'ran' OR reason = 'start_deadline') AND "
        "(job_id IS NOT NULL OR outcome <> 'ran')",
        "says_what",
    ),
    Index("ix_fires_open", "schedule_id", "fire_time", postgresql_where=text("NOT settled")),
    Index("ix_fires_settled", "fire_time", postgresql_where=text("settled")),
    postgresql_with=VACUUMED,
)


api_tokens = Table(
    "api_tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    instant("created_at", nullable=False, now=True),
    CheckConstraint("scopes <@ ARRAY['submit', 'read', 'cancel', 'admin']", "scopes"),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("requests", Double, nullable=False),
    Column("instances", Double, nullable=False),
    Column("pace", Double, nullable=False, server_default=text("1")),
    instant("updated_at", nullable=False),
    instant("shrunk_at"),
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
    instant("until", nullable=False),
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
