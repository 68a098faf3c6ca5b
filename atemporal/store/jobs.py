"""Jobs: submitted once, claimed when due, cancelled in every phase, retried by an operator.

Promise: `submit` is idempotent by key; after a cancel that returned nothing leads to a new attempt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Row, TextClause, func, select, text

from atemporal.billing import amount
from atemporal.errors import Conflict, NotFound, Unavailable, Unreadable
from atemporal.model import Attempt, AttemptRef, Job, JobSpec
from atemporal.model.job_spec import with_values
from atemporal.model.schedule import LABEL
from atemporal.states import JobState, Outcome, Reason
from atemporal.store import attempts as attempt_rows
from atemporal.store import short_ids
from atemporal.store.job_ids import JobIds
from atemporal.store.leads import DISPATCH_AT, LEAD_S, PLAN_AT, ahead_s
from atemporal.store.limit_waits import explained
from atemporal.store.rows import LARGEST, readable, unreadable
from atemporal.store.rows import spec as spec_in
from atemporal.store.staging import may_stage, stage
from atemporal.store.start_deadlines import START_BY
from atemporal.store.transitions import (
    end_jobs,
    finish_job,
    notify_scheduler,
    transition_job,
)
from atemporal.tables import jobs
from atemporal.userdata import check_fits

# A scheduler looks at least this often, so only what is due sooner wants a notification of its own: a
# pending NOTIFY serialises commits over the whole server, and most jobs can do without.
NOTIFY_WITHIN_S = 1.0

_ids = JobIds()

# A transaction's now() is when it began, and a reader may have waited for a lock since.
READ_AT = func.statement_timestamp().label("read_at")

_ASKED = {
    "id": "uuid",
    "key": "text",
    "spec": "jsonb",
    "attempt_limit": "int",
    "asked": "timestamptz",
    "delay_s": "double precision",
    "ahead_s": "double precision",
    "start_deadline_s": "double precision",
    "max_cost": "bigint",
}
# From so many jobs on they are staged by COPY: below, the round trips cost more than is saved.
_STAGED_FROM = 100
_STAGED = "submitted"

# Stored specifications are large: so many are held at once. What is said of differences is bounded, by
# each value and by all of one submit, in characters.
_LOOKED_UP = 200
_SHOWN_OF_VALUE, _SHOWN = 90, 500_000


def _submit_from(source: str) -> TextClause:
    # In the order of the keys, or two batches that have some in common would wait for each other.
    return text(
        f"""
        WITH given AS (
            SELECT id, key, spec, attempt_limit, ahead_s, start_deadline_s, max_cost,
                   coalesce(asked, now() + make_interval(secs => delay_s)) AS run_at
            FROM {source}
        ), wanted AS (
            SELECT *, greatest(run_at, now()) AS due_at FROM given
        ), made AS (
            INSERT INTO jobs (id, key, spec, state, attempt_limit, run_at, due_at,
                              dispatch_at, lead_s, plan_at, start_by, max_cost)
            SELECT id, key, spec, 'scheduled', attempt_limit, run_at, due_at,
                   {DISPATCH_AT}, {LEAD_S}, {PLAN_AT},
                   {START_BY.format(time="run_at", seconds="start_deadline_s")}, max_cost
            FROM wanted ORDER BY key COLLATE "C", id
            ON CONFLICT (key) DO NOTHING
            RETURNING id, run_at, coalesce(dispatch_at, due_at) AS launch_at
        ), logged AS (
            INSERT INTO events (job_id, attempt, type, actor)
            SELECT id, 0, 'job.scheduled', :actor FROM made ORDER BY id
        )
        SELECT id, run_at, launch_at <= now() + make_interval(secs => :notify_within_s) AS soon
        FROM made
        """
    )


_COLUMNS = ", ".join(f"{name} {kind}" for name, kind in _ASKED.items())
_SUBMIT = _submit_from(f"jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({_COLUMNS})")
# What the same transaction staged before has smaller ids.
_SUBMIT_STAGED = _submit_from(f"pg_temp.{_STAGED} WHERE id >= CAST(:first AS uuid)")

_OVERLOOKED = text(
    """
    WITH found AS MATERIALIZED (
        SELECT id, updated_at, octet_length(spec::text) AS size FROM jobs
        WHERE state = 'queued' AND updated_at < now() - make_interval(secs => :stale_s)
        ORDER BY updated_at LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ), placed AS (
        SELECT id, sum(size) OVER (ORDER BY updated_at, id) - size AS before FROM found
    ), leased AS (
        UPDATE jobs SET updated_at = now() FROM placed
        WHERE jobs.id = placed.id AND before < :largest
        RETURNING jobs.id, attempt, before
    )
    SELECT id, attempt FROM leased ORDER BY before, id
    """
)
_ANY_OVERLOOKED = text(
    """
    SELECT EXISTS (
        SELECT FROM jobs
        WHERE state = 'queued' AND updated_at < now() - make_interval(secs => :stale_s))
    """
)
_SIZES = text("SELECT id, octet_length(spec::text) AS size FROM jobs WHERE id = ANY(:ids)")

# By the schedule that its label names: a schedule has few open fires, and an index of them.
_SETTLE = text(
    """
    UPDATE fires SET settled = true
    WHERE schedule_id = (SELECT id FROM schedules WHERE name = :schedule)
      AND job_id = :job AND NOT settled
    """
)


@dataclass(frozen=True)
class Submission:
    """What became of one specification: its job, and the time that this was asked for.

    `differs` says how the job that has its key is another.
    """

    job_id: UUID
    created: bool
    run_at: datetime
    differs: Mapping[str, str] = field(default_factory=dict)


def submit(tx: Connection, specs: Sequence[JobSpec], *, actor: str) -> list[Submission]:
    """Write new jobs; a key that is known gives the job that has it.

    Returns one `Submission` for each specification, in order. The ids grow in that order.

    Raises:
        Invalid: it can not be delivered to a machine.
        Unavailable: a job that has a key was deleted meanwhile: the same again makes it anew.
    """
    for spec in specs:
        check_fits(spec)
    ids = [_ids.new() for _ in specs]
    rows = [
        {
            "id": str(job_id),
            "key": spec.key,
            "spec": _stored(spec),
            "attempt_limit": spec.max_attempts + spec.infra_retries,
            "asked": spec.time.isoformat() if spec.time else None,
            "delay_s": spec.delay_s or 0,
            "ahead_s": ahead_s(spec),
            "start_deadline_s": spec.start_deadline_s,
            "max_cost": amount(spec.max_cost) if spec.max_cost else None,
        }
        for job_id, spec in zip(ids, specs, strict=True)
    ]
    how = {"actor": actor, "notify_within_s": NOTIFY_WITHIN_S}
    if len(rows) < _STAGED_FROM or not may_stage(tx):
        made = tx.execute(_SUBMIT, {"rows": json.dumps(rows), **how}).all()
    else:
        stage(tx, _STAGED, _ASKED, rows)
        made = tx.execute(_SUBMIT_STAGED, {"first": str(ids[0]), **how}).all()
    if any(row.soon for row in made):
        notify_scheduler(tx)
    created = {row.id: row.run_at for row in made}
    asked = zip(ids, specs, strict=True)
    known = _known(tx, [spec for job_id, spec in asked if job_id not in created])
    return [
        Submission(job_id, created=True, run_at=created[job_id])
        if job_id in created
        else next(known)
        for job_id in ids
    ]


def _known(tx: Connection, specs: Sequence[JobSpec]) -> Iterator[Submission]:
    """What became of those whose keys are known, in order."""
    reported = 0
    for begin in range(0, len(specs), _LOOKED_UP):
        piece = specs[begin : begin + _LOOKED_UP]
        jobs_of = _by_key(tx, [spec.key for spec in piece])
        for spec in piece:
            job = jobs_of.get(spec.key)
            if job is None:
                raise Unavailable(
                    f"the job with the key {spec.key!r} was deleted, being older than the retention, "
                    "while this was submitted: submit it again"
                )
            differs = _differences(job, spec)
            if differs and reported >= _SHOWN:
                differs = {"job": "how is not said, as too many others of this submit differ"}
            reported += sum(map(len, differs.values()))
            yield Submission(job.id, created=False, run_at=job.run_at, differs=differs)


def _by_key(tx: Connection, keys: Sequence[str | None]) -> dict[str | None, Any]:
    query = select(jobs.c.id, jobs.c.attempt, jobs.c.key, jobs.c.spec, jobs.c.run_at)
    return {row.key: row for row in tx.execute(query.where(jobs.c.key == func.any(keys)))}


def submit_one(tx: Connection, spec: JobSpec, *, actor: str) -> Submission:
    """Write one new job, or give the one with the same key and the same specification.

    Raises:
        Conflict: the key belongs to a job with another specification; the message says what differs.
        Invalid: it can not be delivered to a machine.
    """
    (submission,) = submit(tx, [spec], actor=actor)
    if submission.differs:
        raise Conflict(describe_difference(spec.key, submission))
    return submission


def describe_difference(key: str | None, submission: Submission) -> str:
    """Say for a reader how a job differs from the one that has its key."""
    differences = "; ".join(f"{name}: {how}" for name, how in submission.differs.items())
    return f"the key {key!r} belongs to job {submission.job_id}, which differs in {differences}"


def overlooked(
    tx: Connection, *, stale_s: float, limit: int, largest: int = LARGEST
) -> list[AttemptRef]:
    """Lease queued jobs that no message has brought to a launcher for `stale_s` seconds.

    The longest overlooked come first, up to the one with which specifications have `largest` bytes.
    """
    given = {"stale_s": stale_s, "limit": limit, "largest": largest}
    return [AttemptRef(row.id, row.attempt) for row in tx.execute(_OVERLOOKED, given)]


def any_overlooked(tx: Connection, *, stale_s: float) -> bool:
    """Whether `overlooked` would find one."""
    return bool(tx.execute(_ANY_OVERLOOKED, {"stale_s": stale_s}).scalar_one())


def sizes(tx: Connection, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many bytes the specification of each has."""
    return {row.id: row.size for row in tx.execute(_SIZES, {"ids": list(job_ids)})}


def lock_queued(tx: Connection, refs: Sequence[AttemptRef]) -> dict[AttemptRef, JobSpec]:
    """Lock those of the given jobs that are queued for just this attempt, and return them.

    A scheduler publishes before it commits, so a message can be faster than its commit: the lock
    waits for the commit and then sees the row as it is.
    """
    # Of a job named twice the newest attempt counts: the other is a message that came late.
    wanted = {ref.job_id: ref for ref in sorted(refs, key=lambda ref: ref.number)}
    rows = tx.execute(
        select(jobs.c.id, jobs.c.key, jobs.c.spec, jobs.c.state, jobs.c.attempt)
        .where(jobs.c.id == func.any(list(wanted)))
        .order_by(jobs.c.id)
        .with_for_update(key_share=True)
    )
    queued: list[Any] = [
        row
        for row in rows
        if row.state == JobState.QUEUED and row.attempt == wanted[row.id].number
    ]
    return dict(readable(tx, queued, lambda row: (wanted[row.id], spec_in(wanted[row.id], row))))


def expire_queued(tx: Connection, *, deadline_s: float, actor: str) -> list[AttemptRef]:
    """Finish what waits for a launcher longer than this, from its dispatch or its time on."""
    since = func.greatest(jobs.c.due_at, jobs.c.queued_at)
    waiting = tx.execute(
        select(jobs.c.id, jobs.c.attempt)
        .where(
            jobs.c.state == JobState.QUEUED,
            func.now() - func.make_interval(0, 0, 0, 0, 0, 0, deadline_s) > since,
        )
        .limit(500)
        .with_for_update(skip_locked=True, key_share=True)
    )
    refs = [AttemptRef(row.id, row.attempt) for row in waiting]
    return [ref for ref in refs if finish_job(tx, ref, Reason.QUEUE_DEADLINE, actor=actor)]


def get(tx: Connection, job_id: UUID, *, lock: bool = False) -> Job:
    """Return a job with its attempts; unless it is locked to be changed, with the limit it waits for.

    Raises:
        NotFound: there is no such job.
        Unreadable: it, or an attempt of it, can not be read.
    """
    query = select(jobs, READ_AT).where(jobs.c.id == job_id)
    row = tx.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    job = read(row, attempt_rows.of_job(tx, job_id))
    return job if lock else explained(tx, [job])[0]


def resolve(tx: Connection, text_id: str) -> UUID:
    """Find the one job whose id is, begins with, or (if none does) ends with the given text.

    Raises:
        NotFound: none or more than one does; the message says which.
    """
    return short_ids.resolve(tx, jobs.c.id, text_id, "job")


def cancel(tx: Connection, job_id: UUID, *, actor: str) -> AttemptRef | None:
    """Finish a job as cancelled, in whatever phase it is; cancelling it again changes nothing.

    Returns the attempt whose instance has to go, if there may be one.

    Raises:
        NotFound: there is no such job.
        Conflict: it has finished otherwise.
    """
    job = get(tx, job_id, lock=True)
    ref = AttemptRef(job_id, job.attempt)
    if job.state is JobState.FINISHED:
        if job.outcome is Outcome.CANCELLED:
            return None
        raise Conflict(f"job {job_id} has finished already ({job.outcome}): nothing to cancel")
    ended = end_jobs(tx, [ref], Reason.CANCELLED, actor=actor).attempts
    return ref if ended else None


def retry(tx: Connection, job_id: UUID, *, actor: str) -> AttemptRef:
    """Schedule a finished job again, now and with fresh budgets.

    For a recurring schedule it has ended all the same: this is no earlier job that a fire minds.

    Raises:
        NotFound: there is no such job.
        Conflict: it has not finished.
    """
    job = get(tx, job_id, lock=True)
    if job.state is not JobState.FINISHED:
        raise Conflict(f"job {job_id} is {job.state}: only a finished job can be retried")
    ref = AttemptRef(job_id, job.attempt)
    transition_job(
        tx,
        ref,
        JobState.SCHEDULED,
        actor=actor,
        values={
            "outcome": None,
            "reason": None,
            "finished_at": None,
            "due_at": func.now(),
            "dispatch_at": None,
            "lead_s": None,
            "plan_at": None,
            "waits_for": None,
            "start_by": func.now() + timedelta(seconds=job.spec.start_deadline_s)
            if job.spec.start_deadline_s
            else None,
            "attempt_base": job.attempt,
            "attempt_limit": job.spec.max_attempts + job.spec.infra_retries,
        },
        detail={"retry": "operator"},
    )
    if LABEL in job.spec.labels:
        tx.execute(_SETTLE, {"schedule": job.spec.labels[LABEL], "job": job_id})
    notify_scheduler(tx)
    return ref


def _stored(spec: JobSpec) -> dict[str, Any]:
    stored = with_values(spec, exclude={"key"})
    # The release before knows the time by this name, and compares a repeated submit with it.
    return {**stored, "run_at": stored["time"]}


def _differences(row: Any, spec: JobSpec) -> dict[str, str]:
    """Compare field by field; the values of the environment and of secrets stay out of the text."""
    try:
        known = spec_in(AttemptRef(row.id, row.attempt), row)
    except Unreadable:
        return {"job": "what is stored of it can not be read by this release"}
    stored, asked = _stored(known), _stored(spec)
    differences: dict[str, str] = {}
    for name in sorted(asked.keys() | stored.keys()):
        old, new = stored.get(name), asked.get(name)
        if old == new:
            continue
        if name in ("env", "secrets"):
            changed = dict(old or {}).items() ^ dict(new or {}).items()
            names = ", ".join(sorted({key for key, _ in changed}))
            differences[name] = f"variables {_shortened(names, 2 * _SHOWN_OF_VALUE)}"
        else:
            there, here = (_shortened(json.dumps(one), _SHOWN_OF_VALUE) for one in (old, new))
            differences[name] = f"{there} there, {here} here"
    return differences


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def read(row: Row[Any], tries: Sequence[Attempt]) -> Job:
    """Read a job's row, with its attempts.

    Raises:
        Unreadable: a value of it means nothing to this release.
    """
    fields = {name: getattr(row, name) for name in Job.model_fields if hasattr(row, name)}
    ref = AttemptRef(row.id, row.attempt)
    fields["spec"] = spec_in(ref, row)
    try:
        return Job(**fields, attempts=tuple(tries))
    except ValidationError as error:
        raise unreadable(ref, error) from None
