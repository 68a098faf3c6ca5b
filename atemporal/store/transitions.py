"""The guarded updates: the only statements that change a state.

Promise: a transition names the job, the attempt and, from the tables in `states`, the states it may come
from; it happens together with its row in `events`, or it does not happen and returns False.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Connection,
    Integer,
    TableValuedAlias,
    Text,
    Uuid,
    cast,
    column,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from atemporal.model import AttemptRef
from atemporal.states import (
    AttemptState,
    JobState,
    Outcome,
    Reason,
    attempt_states_before,
    job_states_before,
)
from atemporal.tables import attempts, events, jobs

DUE_CHANNEL = "atemporal_due"

# After these a slot of a concurrency limit may be free.
_FREEING_JOB = (JobState.FINISHED, JobState.SCHEDULED)
_FREEING_ATTEMPT = (AttemptState.EXITED, AttemptState.CLOSED)
_NOTIFY_IF_LIMITED = text(
    f"SELECT pg_notify('{DUE_CHANNEL}', '') WHERE EXISTS (SELECT FROM concurrency_limits)"
)


def transition_job(
    tx: Connection,
    ref: AttemptRef,
    to: JobState,
    *,
    actor: str,
    values: Mapping[str, Any] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> bool:
    """Take a job whose current attempt is `ref.number` into `to`; False when that is stale."""
    changes = {"state": to, "updated_at": func.now(), **(values or {})}
    moved = tx.execute(
        update(jobs)
        .where(
            jobs.c.id == ref.job_id,
            jobs.c.attempt == ref.number,
            jobs.c.state.in_(job_states_before(to)),
        )
        .values(**changes)
    )
    if moved.rowcount == 0:
        return False
    outcome = changes.get("outcome")
    name = f"job.{to}.{Outcome(outcome)}" if outcome else f"job.{to}"
    record(tx, ref, name, actor=actor, detail=detail)
    if to in _FREEING_JOB:
        notify_if_limited(tx)
    return True


def transition_jobs(
    tx: Connection,
    refs: Sequence[AttemptRef],
    to: JobState,
    *,
    actor: str,
    values: Mapping[str, Any] | None = None,
) -> list[AttemptRef]:
    """Take many jobs, each with its current attempt, into `to`; returns those that were not stale.

    All get the same `values`.
    """
    if not refs:
        return []
    given = rows_of(refs)
    moved = tx.execute(
        update(jobs)
        .where(
            jobs.c.id == given.c.job_id,
            jobs.c.attempt == given.c.number,
            jobs.c.state.in_(job_states_before(to)),
        )
        .values(state=to, updated_at=func.now(), **(values or {}))
        .returning(jobs.c.id, jobs.c.attempt)
    )
    found = sorted(AttemptRef(*row) for row in moved)
    record_alike(tx, found, f"job.{to}", actor=actor)
    return found


def transition_attempt(
    tx: Connection,
    ref: AttemptRef,
    to: AttemptState,
    *,
    actor: str,
    values: Mapping[str, Any] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> bool:
    """Move an attempt into `to`; False when that is stale."""
    moved = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number == ref.number,
            attempts.c.state.in_(attempt_states_before(to)),
        )
        .values(state=to, **(values or {}))
    )
    if moved.rowcount == 0:
        return False
    record(tx, ref, f"attempt.{to}", actor=actor, detail=detail)
    if to in _FREEING_ATTEMPT:
        notify_if_limited(tx)
    return True


def transition_attempts(
    tx: Connection,
    changes: Mapping[AttemptRef, Mapping[str, str]],
    to: AttemptState,
    *,
    actor: str,
    values: Mapping[str, Any],
    launch: Mapping[str, Any],
) -> list[AttemptRef]:
    """Move many attempts into `to`, each with changes of its own to columns of text, all with `values`.

    `launch` is written into their launches. Returns those that were moved; the others are stale.
    """
    if not changes:
        return []
    names = sorted({name for own in changes.values() for name in own})
    texts = {name: [own.get(name) for own in changes.values()] for name in names}
    own = rows_of(list(changes), **texts)
    moved = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == own.c.job_id,
            attempts.c.number == own.c.number,
            attempts.c.state.in_(attempt_states_before(to)),
        )
        .values(
            state=to,
            launch=attempts.c.launch.concat(literal(dict(launch), JSONB)),
            **{name: own.c[name] for name in names},
            **values,
        )
        .returning(attempts.c.job_id, attempts.c.number)
    )
    refs = sorted(AttemptRef(*row) for row in moved)
    record_many(tx, {ref: changes[ref] for ref in refs}, f"attempt.{to}", actor=actor)
    return refs


def rows_of(refs: Sequence[AttemptRef], **texts: Sequence[str | None]) -> TableValuedAlias:
    """Attempts as rows of a statement: `job_id`, `number`, and a column for each of the `texts`."""
    columns: list[tuple[str, Sequence[Any], Any]] = [
        ("job_id", [ref.job_id for ref in refs], Uuid),
        ("number", [ref.number for ref in refs], Integer),
        *((name, text, Text) for name, text in texts.items()),
    ]
    given = [cast(literal(list(values), ARRAY(kind)), ARRAY(kind)) for _, values, kind in columns]
    typed = [column(name, kind) for name, _, kind in columns]
    return func.unnest(*given).table_valued(*typed).render_derived()


def finish_job(tx: Connection, ref: AttemptRef, reason: Reason, *, actor: str) -> bool:
    """Finish a job with the outcome that `reason` means; False when it has moved on."""
    return transition_job(
        tx,
        ref,
        JobState.FINISHED,
        actor=actor,
        values={
            "outcome": reason.outcome,
            "reason": reason,
            "finished_at": func.now(),
        },
        detail={"reason": reason},
    )


class Ended(NamedTuple):
    """The jobs that were finished, each by its last attempt; the attempts whose instances have to go."""

    jobs: Sequence[AttemptRef]
    attempts: Sequence[AttemptRef]


def end_jobs(tx: Connection, refs: Sequence[AttemptRef], reason: Reason, *, actor: str) -> Ended:
    """End jobs in whatever phase they are, for one reason; those that have moved on are passed over."""
    attempts_ended = [
        ref
        for ref in refs
        if transition_attempt(
            tx,
            ref,
            AttemptState.EXITED,
            actor=actor,
            values={"reason": reason, "exited_at": func.now()},
            detail={"reason": reason},
        )
    ]
    finished = [ref for ref in refs if finish_job(tx, ref, reason, actor=actor)]
    return Ended(finished, attempts_ended)


def notify_scheduler(tx: Connection) -> None:
    """Wake a sleeping scheduler when this transaction commits."""
    tx.execute(text(f"NOTIFY {DUE_CHANNEL}"))


def notify_if_limited(tx: Connection) -> None:
    """The same where there is a concurrency limit, of which a slot may be free now."""
    tx.execute(_NOTIFY_IF_LIMITED)


def record(
    tx: Connection,
    ref: AttemptRef,
    name: str,
    *,
    actor: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append one row to the history.

    The transaction has changed another row before: the horizon of the events relies on it.
    """
    tx.execute(
        insert(events).values(
            job_id=ref.job_id,
            attempt=ref.number,
            type=name,
            actor=actor,
            detail={key: value for key, value in (detail or {}).items() if value is not None},
        )
    )


def record_alike(tx: Connection, refs: Sequence[AttemptRef], name: str, *, actor: str) -> None:
    """Append the same row to the history of each, in this order; as `record`, after a change."""
    if refs:
        given = rows_of(refs)
        ours = select(given.c.job_id, given.c.number, literal(name), literal(actor))
        columns = ("job_id", "attempt", "type", "actor")
        tx.execute(insert(events).from_select(columns, ours, include_defaults=False))


def record_many(
    tx: Connection, details: Mapping[AttemptRef, Mapping[str, Any]], name: str, *, actor: str
) -> None:
    """Append a row of the same name to the history of each attempt; as `record`, after a change."""
    if details:
        tx.execute(
            insert(events),
            [
                {
                    "job_id": ref.job_id,
                    "attempt": ref.number,
                    "type": name,
                    "actor": actor,
                    "detail": dict(detail),
                }
                for ref, detail in details.items()
            ],
        )
