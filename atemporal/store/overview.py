"""The whole at a glance: what is waited for, what runs, what is due next, what has ended last.

Promise: it costs the same however many jobs are scheduled or have finished.
Mechanism: attempts whose instance is there are counted through the index of these; what comes next is
the first of each priority by the index of what is due; what ended last by that of what has finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, text

from atemporal.model import Job
from atemporal.store import attempts as attempt_rows
from atemporal.store import counts, due
from atemporal.store.jobs import READ_AT, read
from atemporal.store.limit_waits import COUNTED_EACH, explained
from atemporal.store.rows import readable
from atemporal.tables import DISPATCH_AT, PRIORITY, jobs
from atemporal.waiting import Phase

_PHASES = text(
    """
    SELECT CASE state
             WHEN 'launching' THEN 'launch' WHEN 'ready' THEN 'hold' WHEN 'running' THEN 'run'
             WHEN 'exited' THEN 'stop'
             ELSE CASE WHEN booted_at IS NULL THEN 'boot' ELSE 'pull' END
           END AS phase,
           count(*) AS many,
           extract(epoch FROM now() - min(CASE state
             WHEN 'launching' THEN created_at WHEN 'ready' THEN ready_at
             WHEN 'running' THEN running_at WHEN 'exited' THEN exited_at
             ELSE coalesce(booted_at, launched_at, created_at)
           END)) AS oldest_s
    FROM attempts WHERE state <> 'closed' GROUP BY 1
    """
)
_RUNNING = text(
    "SELECT job_id FROM attempts WHERE state = 'running' AND state <> 'closed'"
    " ORDER BY running_at, job_id LIMIT :limit"
)
_NEXT = text(
    f"""
    SELECT first.id FROM unnest(CAST(:priorities AS integer[])) AS known(priority)
    CROSS JOIN LATERAL (
        SELECT id, {DISPATCH_AT} AS at FROM jobs
        WHERE {due.DUE} AND {PRIORITY} = known.priority
        ORDER BY {DISPATCH_AT}, id LIMIT :limit
    ) AS first
    ORDER BY first.at, first.id LIMIT :limit
    """
)
_ENDED = text(
    "SELECT id FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT :limit"
)


class InPhase(NamedTuple):
    """How many jobs or attempts are in a phase, and for how long the oldest, in seconds."""

    phase: Phase
    many: int
    oldest_s: float


class Overview(NamedTuple):
    """The whole at a glance; without `time`, whose jobs wait for another day."""

    phases: list[InPhase]
    running: list[Job]
    next: list[Job]
    ended: list[Job]


def overview(tx: Connection, *, limit: int) -> Overview:
    """Look at the whole, with up to `limit` jobs of each kind.

    Those that run come longest first, those that are due next by their launch, the latest ends first.
    """
    phases = {phase: InPhase(phase, *found) for phase, found in counts.oldest_waiting(tx).items()}
    for row in tx.execute(_PHASES):
        phase = Phase(row.phase)
        phases[phase] = InPhase(phase, row.many, max(0.0, float(row.oldest_s or 0)))
    priorities = [level.priority for level in due.survey(tx)]
    return Overview(
        phases=[phases[phase] for phase in Phase if phase in phases],
        running=_jobs(tx, tx.scalars(_RUNNING, {"limit": limit}).all()),
        next=_jobs(tx, tx.scalars(_NEXT, {"priorities": priorities, "limit": limit}).all()),
        ended=_jobs(tx, tx.scalars(_ENDED, {"limit": limit}).all()),
    )


def _jobs(tx: Connection, ids: Sequence[UUID]) -> list[Job]:
    """The jobs of these ids, in their order, without logs; but for what can not be read."""
    if not ids:
        return []
    query: Any = select(jobs, READ_AT).where(jobs.c.id.in_(ids))
    tries = attempt_rows.of_jobs(tx, list(ids))
    found = readable(tx, tx.execute(query).all(), lambda row: read(row, tries.get(row.id, ())))
    by_id = {job.id: job for job in explained(tx, found, counted=COUNTED_EACH)}
    return [by_id[one] for one in ids if one in by_id]
