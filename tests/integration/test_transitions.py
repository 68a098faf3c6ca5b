"""The products of all states: a transition that the tables do not have changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, text, update

from atemporal.model import AttemptRef, JobSpec
from atemporal.states import ATTEMPT_TRANSITIONS, JOB_TRANSITIONS, AttemptState, JobState
from atemporal.store import jobs
from atemporal.store.database import Database
from atemporal.store.transitions import (
    transition_attempt,
    transition_attempts,
    transition_job,
    transition_jobs,
)
from atemporal.tables import attempts as attempt_table
from atemporal.tables import jobs as job_table


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events CASCADE"))


def submitted(tx: Connection) -> UUID:
    return jobs.submit_one(tx, JobSpec(image="busybox"), actor="test").job_id


def test_no_move_outside_the_tables_is_possible(database: Database) -> None:
    with database.begin() as tx:
        for before in JobState:
            for after in JobState:
                finished = {"outcome": "failed", "finished_at": datetime.now(UTC)}
                job_id = submitted(tx)
                tx.execute(
                    update(job_table)
                    .where(job_table.c.id == job_id)
                    .values(
                        state=before,
                        attempt=1,
                        **(finished if before is JobState.FINISHED else {}),
                    )
                )
                values = (
                    finished
                    if after is JobState.FINISHED
                    else {"outcome": None, "finished_at": None}
                )
                ref = AttemptRef(job_id, 1)
                moved = transition_job(tx, ref, after, actor="t", values=values)
                assert moved == ((before, after) in JOB_TRANSITIONS), (before, after)


# What a job begins with again, or ends with, needs values of its own.
AT_ONCE = [
    to
    for to in JobState
    if to is not JobState.FINISHED and (JobState.FINISHED, to) not in JOB_TRANSITIONS
]


@pytest.mark.parametrize("after", AT_ONCE)
def test_of_many_jobs_those_move_that_the_table_lets(database: Database, after: JobState) -> None:
    with database.begin() as tx:
        refs = {before: AttemptRef(submitted(tx), 1) for before in JobState}
        for before, ref in refs.items():
            finished = {"outcome": "failed", "finished_at": datetime.now(UTC)}
            own = finished if before is JobState.FINISHED else {}
            tx.execute(
                update(job_table)
                .where(job_table.c.id == ref.job_id)
                .values(state=before, attempt=1, **own)
            )
        stale = [AttemptRef(ref.job_id, 2) for ref in refs.values()]
        moved = transition_jobs(tx, [*refs.values(), *stale], after, actor="t")
        assert set(moved) == {refs[before] for before, to in JOB_TRANSITIONS if to is after}


def test_no_attempt_moves_outside_the_tables(database: Database) -> None:
    now = datetime.now(UTC)
    over = {"reason": "completed", "exited_at": now}
    closed = {**over, "closed_at": now}
    values: dict[AttemptState, dict[str, Any]] = {
        state: {"reason": None, "exited_at": None, "closed_at": None} for state in AttemptState
    }
    values[AttemptState.EXITED] = {**over, "closed_at": None}
    values[AttemptState.CLOSED] = closed
    with database.begin() as tx:
        for after in AttemptState:
            for before in AttemptState:
                ref = AttemptRef(submitted(tx), 1)
                tx.execute(
                    insert(attempt_table).values(
                        job_id=ref.job_id, number=1, state=before, launch={}, **values[before]
                    )
                )
                moved = transition_attempt(tx, ref, after, actor="t", values=values[after])
                assert moved == ((before, after) in ATTEMPT_TRANSITIONS), (before, after)
            refs = {before: AttemptRef(submitted(tx), 1) for before in AttemptState}
            for before, ref in refs.items():
                tx.execute(
                    insert(attempt_table).values(
                        job_id=ref.job_id, number=1, state=before, launch={}, **values[before]
                    )
                )
            of_many = transition_attempts(
                tx,
                {ref: {} for ref in refs.values()},
                after,
                actor="t",
                values=values[after],
                launch={},
            )
            assert set(of_many) == {refs[b] for b, to in ATTEMPT_TRANSITIONS if to is after}
