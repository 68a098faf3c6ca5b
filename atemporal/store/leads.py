"""Leads: when the launch of a job begins that is due later, and what recent launches took.

Promise: a job with a time in the future has a `dispatch_at` from its submit on, by the default estimate;
so a plan that is never made costs precision and no job. A plan changes only a job that still waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from atemporal.lead import AGAIN_S, DAYS, DEFAULT_S, LIMIT_S, Kind, Plan, Sample
from atemporal.model import JobSpec
from atemporal.tables import CAPACITY_TYPE

# Of a row with `due_at`, and `ahead_s`: the lead that was asked for, NULL for the estimate's.
_AHEAD = f"make_interval(secs => coalesce(ahead_s, {DEFAULT_S}))"
_IS_AHEAD = f"due_at > now() AND coalesce(ahead_s, {DEFAULT_S}) > 0"
DISPATCH_AT = f"CASE WHEN {_IS_AHEAD} THEN greatest(due_at - {_AHEAD}, now()) END"
LEAD_S = f"CASE WHEN {_IS_AHEAD} THEN {DEFAULT_S} END"
PLAN_AT = (
    f"CASE WHEN {_IS_AHEAD} AND due_at - {_AHEAD} > now() THEN greatest(now(), due_at - make_interval("
    f"secs => coalesce(ahead_s + {AGAIN_S}, {LIMIT_S}))) END"
)
"""What a new row, or one with a new time, begins with; SQL expressions."""

_DUE_FOR_PLAN = text(
    """
    SELECT id, spec, extract(epoch FROM due_at - clock_timestamp()) AS due_in_s FROM jobs
    WHERE state = 'scheduled' AND plan_at <= now()
    ORDER BY plan_at LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
    """
)
_PLAN = text(
    """
    UPDATE jobs SET lead_s = plan.lead_s,
        dispatch_at = greatest(due_at - make_interval(secs => plan.ahead_s), clock_timestamp()),
        plan_at = clock_timestamp() + make_interval(secs => plan.again_in_s)
    FROM jsonb_to_recordset(CAST(:plans AS jsonb)) AS plan(
        id uuid, lead_s float, ahead_s float, again_in_s float)
    WHERE jobs.id = plan.id AND jobs.state = 'scheduled'
    """
)
# So much between a launch's time and EC2's answer, in seconds, is the way through schedulers, broker and
# launchers. More is an outage or a backlog of theirs, or a shortage, and says nothing of machines.
_OUR_DELAY_S = 30
_SAMPLES = text(
    f"""
    SELECT spec ->> 'image' AS image, launch ->> 'instance_type' AS instance_type,
           {CAPACITY_TYPE} AS capacity_type,
           extract(epoch FROM ready - greatest(coalesce(dispatch_at, created_at),
               least(coalesce(launched_at, created_at), ready) - interval '{_OUR_DELAY_S} s')) AS took_s,
           extract(epoch FROM ready) AS at
    FROM (
        SELECT job_id, launch, created_at, dispatch_at, launched_at,
               coalesce(ready_at, running_at) AS ready
        FROM attempts
        WHERE coalesce(ready_at, running_at)
            > greatest(now() - make_interval(days => {DAYS}), to_timestamp(:since))
        ORDER BY coalesce(ready_at, running_at) DESC LIMIT :limit) AS latest
    JOIN (SELECT id, spec FROM jobs) AS job ON job.id = latest.job_id
    ORDER BY ready
    """
)
SAMPLES_LIMIT = 20_000
"""So many machines are read at once: the latest."""


class Unplanned(NamedTuple):
    """A job whose plan is due: what its machine will be like, and when it is due, in seconds.

    `ahead_s` is the lead that was asked for; None for the estimate's.
    """

    job_id: UUID
    image: str
    instance_types: tuple[str, ...]
    capacity_type: str
    due_in_s: float
    ahead_s: float | None


class Planned(NamedTuple):
    """What was decided for a job; `lead_s` is the estimate."""

    job_id: UUID
    lead_s: float
    plan: Plan


def ahead_s(spec: JobSpec) -> float | None:
    """The lead that was asked for, in seconds; None for the estimate's."""
    return None if spec.lead == "auto" else float(spec.lead)


def unplanned(tx: Connection, *, limit: int) -> list[Unplanned]:
    """Lock the jobs whose plan is due, the most urgent first; another scheduler's are passed over."""
    rows = tx.execute(_DUE_FOR_PLAN, {"limit": limit})
    return [_unplanned(row.id, row.spec, float(row.due_in_s)) for row in rows]


def write(tx: Connection, plans: Sequence[Planned]) -> None:
    """Write down what was decided, for those that still wait."""
    rows = [
        {
            "id": str(one.job_id),
            "lead_s": one.lead_s,
            "ahead_s": one.plan.ahead_s,
            "again_in_s": one.plan.again_in_s,
        }
        for one in plans
    ]
    tx.execute(_PLAN, {"plans": json.dumps(rows)})


def samples(tx: Connection, *, since: float = 0.0) -> list[Sample]:
    """What the machines took that were ready after `since`, from the time their launch was due.

    `since` is in seconds since the epoch. The oldest comes first. Of what passed before EC2 had launched
    the instance at most half a minute counts.
    """
    rows = tx.execute(_SAMPLES, {"since": since, "limit": SAMPLES_LIMIT})
    return [
        Sample(
            Kind.of(row.image, row.instance_type, row.capacity_type),
            float(row.took_s),
            float(row.at),
        )
        for row in rows
        if isinstance(row.image, str) and row.instance_type and row.took_s is not None
    ]


def _unplanned(job_id: UUID, spec: Mapping[str, Any], due_in_s: float) -> Unplanned:
    """Read what is needed of a specification, whichever release wrote it; the rest says nothing."""
    machine = spec.get("machine")
    machine = machine if isinstance(machine, Mapping) else {}
    types, lead = machine.get("instance_types"), spec.get("lead")
    return Unplanned(
        job_id,
        str(spec.get("image", "")),
        tuple(map(str, types)) if isinstance(types, list) else (),
        str(machine.get("capacity_type") or machine.get("market") or "on-demand"),
        due_in_s,
        float(lead) if isinstance(lead, int | float) else None,
    )
