"""Attempts: the intent before the launch, the claim before the run, the end and the proof of it.

Promise: an attempt row is committed before EC2 is asked for its instance; of all machines that ever
ask, one is granted the claim; an end is written once, and with it what follows for the job (finished,
or another attempt); `closed` is written only on EC2's word that the instance is gone. Which instance is
an attempt's, EC2 alone says: what a machine says of itself is kept beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, case, func, select, text, update

from atemporal.errors import Conflict, TooEarly
from atemporal.model import (
    Attempt,
    AttemptRef,
    ExitRecord,
    JobSpec,
)
from atemporal.states import (
    CLAIMABLE_ATTEMPT,
    PROGRAM_RAN,
    AttemptState,
    JobState,
    Reason,
)
from atemporal.store import rows
from atemporal.store.logs import end as logs_end
from atemporal.store.logs import log_values
from atemporal.store.reconciliation import of_instances
from atemporal.store.retries import decide
from atemporal.store.transitions import (
    record,
    transition_attempt,
    transition_job,
)
from atemporal.tables import attempts, jobs

_LEASE = text(
    """
    WITH found AS MATERIALIZED (
        SELECT job_id, number, created_at FROM attempts
        WHERE state = 'launching' AND instance_id IS NULL AND group_id IS NULL
          AND called_at < now() - make_interval(secs => :stale_s)
        ORDER BY created_at, job_id LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ), placed AS (
        SELECT job_id, number, sum(size) OVER (ORDER BY found.created_at, job_id) - size AS before
        FROM found JOIN jobs ON jobs.id = job_id, octet_length(spec::text) AS size
    ), leased AS (
        UPDATE attempts SET called_at = now() FROM placed
        WHERE (attempts.job_id, attempts.number) = (placed.job_id, placed.number)
          AND before < :largest
        RETURNING attempts.job_id, attempts.number, before
    )
    SELECT job_id, number FROM leased ORDER BY before, job_id
    """
)


_PROVE = text(
    """
    UPDATE attempts SET instance_proof = given.proof
    FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS int[]), CAST(:proofs AS text[]))
        AS given (job_id, number, proof)
    WHERE attempts.job_id = given.job_id AND attempts.number = given.number
    """
)

_TIMES = text(
    """
    SELECT extract(epoch FROM due_at - clock_timestamp())::float AS start_in_s,
           extract(epoch FROM start_by - greatest(due_at, clock_timestamp()))::float AS left_s
    FROM jobs WHERE id = :job
    """
)

# What an attempt is given along with its instance: nothing blocks it any more.
UNBLOCKED: dict[str, None] = {"blocked_on": None, "detail": None}


def lease_unlaunched(
    tx: Connection, *, stale_s: float, limit: int, largest: int = rows.LARGEST
) -> list[AttemptRef]:
    """Take over intents whose call nobody has repeated for `stale_s` seconds; not those in a group.

    The oldest come first, up to the one with which the specifications have `largest` bytes.
    """
    given = {"stale_s": stale_s, "limit": limit, "largest": largest}
    return [AttemptRef(row.job_id, row.number) for row in tx.execute(_LEASE, given)]


def launched(
    tx: Connection, ref: AttemptRef, instance_id: str, *, actor: str, proof: str | None = None
) -> bool:
    """Write down the instance EC2 gave; False when the attempt had moved on meanwhile.

    With the `proof` of `tokens.prove_instance` nobody has to ask EC2 again whose it is.

    The instance is written down all the same in every open state, so that it can be terminated: a
    cancel may have come between the call and this. One that is closed gets it by `adoption.adopt`.
    """
    values = {"instance_id": instance_id, "instance_proof": proof, "launched_at": func.now()}
    detail = {"instance_id": instance_id}
    warming = {**values, **UNBLOCKED}
    if transition_attempt(
        tx, ref, AttemptState.WARMING, actor=actor, values=warming, detail=detail
    ):
        return True
    noted = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number == ref.number,
            attempts.c.instance_id.is_(None),
            attempts.c.state != AttemptState.CLOSED,
        )
        .values(**values)
    )
    if noted.rowcount:
        record(tx, ref, "attempt.instance", actor=actor, detail=detail)
    return False


def prove(tx: Connection, proofs: Mapping[AttemptRef, str]) -> None:
    """Write the proof of `tokens.prove_instance` beside each attempt's instance."""
    tx.execute(
        _PROVE,
        {
            "ids": [ref.job_id for ref in proofs],
            "numbers": [ref.number for ref in proofs],
            "proofs": list(proofs.values()),
        },
    )


def booted(tx: Connection, ref: AttemptRef, *, actor: str) -> bool:
    """Write down that the machine is up and pulls its image; False when it is known or over."""
    noted = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number == ref.number,
            attempts.c.state.in_(CLAIMABLE_ATTEMPT),
            attempts.c.booted_at.is_(None),
        )
        .values(booted_at=func.now())
    )
    if noted.rowcount:
        record(tx, ref, "attempt.booted", actor=actor)
    return bool(noted.rowcount)


def claim(
    tx: Connection,
    ref: AttemptRef,
    *,
    claim_id: str | None,
    instance_id: str | None,
    actor: str,
    ahead_s: float = 0.0,
) -> bool:
    """Grant the right to run to the first machine that asks; True unless it had it already.

    A machine whose answer was lost asks again with the same `claim_id` and is granted again. While EC2
    has not said which instance is the attempt's, `instance_id` is written down as a claim only.
    `ahead_s` is how long before its time the machine may be granted: for one that starts its container
    as soon as it is granted that is 0.

    Raises:
        Conflict: another machine has it, EC2 has said otherwise of the instance, the attempt can not be
            run any more, or its start deadline has passed.
        TooEarly: it is not its time yet.
    """
    attempt = locked(tx, ref)
    if attempt is None:
        raise Conflict(f"attempt {ref.number} has not been begun")
    start_in_s, left_s = _times(tx, ref)
    # Also for one that was granted before and asks again: it has not heard so, and has not started.
    if left_s is not None and left_s < 0 and attempt.started_at is None:
        raise Conflict("its start deadline has passed: it is not started any more")
    if attempt.state is AttemptState.RUNNING and claim_id and attempt.claim == claim_id:
        return False
    check_machine(tx, attempt, instance_id)
    early_s = start_in_s - ahead_s
    if early_s > 0:
        raise TooEarly(f"it is not its time yet: ask again in {early_s:.3f} s")
    known = attempt.instance_id
    values: dict[str, Any] = {
        "claim": claim_id,
        "claimed_instance_id": instance_id,
        "running_at": func.clock_timestamp(),
        **UNBLOCKED,
    }
    moved = transition_job(tx, ref, JobState.RUNNING, actor=actor) and transition_attempt(
        tx,
        ref,
        AttemptState.RUNNING,
        actor=actor,
        values=values,
        detail={
            "instance_id": known,
            "claimed_instance_id": None if known else instance_id,
        },
    )
    if not moved:
        raise Conflict("the job has moved on: this attempt can not start to run")
    return True


def check_machine(tx: Connection, attempt: Attempt, instance_id: str | None) -> None:
    """Refuse a machine that EC2 has said is not the attempt's, or that comes too late.

    Raises:
        Conflict: it says which.
    """
    known = attempt.instance_id
    if known and instance_id and known != instance_id:
        raise Conflict(f"this attempt belongs to instance {known}, not to {instance_id}")
    if instance_id and not known and of_instances(tx, [instance_id]):
        raise Conflict(f"instance {instance_id} belongs to another attempt")
    if attempt.state not in CLAIMABLE_ATTEMPT:
        raise Conflict(f"an attempt that is {attempt.state} can not start to run")


def _times(tx: Connection, ref: AttemptRef) -> tuple[float, float | None]:
    """Seconds until the attempt's container is to start, and from there to its start deadline, if any.

    Each is negative when it is over.
    """
    row = tx.execute(_TIMES, {"job": ref.job_id}).one()
    return row.start_in_s, row.left_s


def end(
    tx: Connection,
    ref: AttemptRef,
    reason: Reason,
    *,
    actor: str,
    exit_record: ExitRecord | None = None,
    detail: str | None = None,
    end_code: str | None = None,
    patience_s: float = 0.0,
) -> bool:
    """Write an attempt's end and what follows for its job.

    `end_code` is EC2's code for the end of its instance, where that is known. `patience_s` is how long a
    lack of capacity may go on, attempt after attempt, before it fails the job.

    False when it had ended before, or can not end for this reason any more: whoever saw it late to
    boot may write that down after its machine has claimed it.
    """
    attempt = locked(tx, ref)
    if attempt is None or attempt.state not in reason.ends:
        return False
    # One that never got its instance ends with what blocked it, unless there is more to say.
    hint = exit_record.detail if exit_record else None
    detail = "; ".join(filter(None, (detail, hint))) or attempt.detail
    values: dict[str, Any] = {
        "reason": reason,
        "exited_at": func.now(),
        "end_code": end_code or attempt.end_code,
        "detail": detail,
    }
    if exit_record is not None:
        values["exit_code"] = exit_record.exit_code
        values["oom_killed"] = exit_record.oom_killed
        values |= log_values(exit_record)
    ended = transition_attempt(
        tx,
        ref,
        AttemptState.EXITED,
        actor=actor,
        values=values,
        detail={"reason": reason, "exit_code": values.get("exit_code"), "detail": detail},
    )
    if ended:
        started = (
            attempt.started_at is not None
            or reason in PROGRAM_RAN
            or (exit_record is not None and exit_record.started_at is not None)
            # What it wrote may have come where nothing else did.
            or logs_end(tx, ref) > 0
        )
        decide(
            tx,
            ref,
            reason,
            exit_code=values.get("exit_code"),
            actor=actor,
            patience_s=patience_s,
            started=started,
        )
    return ended


def close(
    tx: Connection,
    ref: AttemptRef,
    *,
    actor: str,
    end_code: str | None = None,
    detail: str | None = None,
) -> bool:
    """Write that EC2 confirmed the instance gone; False when it is not an ended attempt.

    `end_code` is EC2's code for it. `detail` is the sentence for it, and stays with an attempt whose
    machine was lost: it may be the first that tells why.
    """
    lost = (attempts.c.reason == Reason.INSTANCE_LOST) & attempts.c.detail.is_(None)
    return transition_attempt(
        tx,
        ref,
        AttemptState.CLOSED,
        actor=actor,
        values={
            "closed_at": func.now(),
            "end_code": func.coalesce(end_code, attempts.c.end_code),
            "detail": case((lost, detail), else_=attempts.c.detail),
        },
        detail={"detail": detail},
    )


def set_address(tx: Connection, ref: AttemptRef, dns: str | None, ip: str | None) -> None:
    """Write down where the instance can be reached; what is None leaves what is known."""
    tx.execute(
        update(attempts)
        .where(attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)
        .values(
            public_dns=func.coalesce(dns, attempts.c.public_dns),
            public_ip=func.coalesce(ip, attempts.c.public_ip),
        )
    )


def get(tx: Connection, ref: AttemptRef) -> Attempt | None:
    """Return one attempt, if it was ever begun.

    Raises:
        Unreadable: it can not be read.
    """
    row = tx.execute(_select_one(ref)).one_or_none()
    return rows.attempt(row) if row else None


def many(tx: Connection, refs: Sequence[AttemptRef]) -> dict[AttemptRef, Attempt]:
    """Return those of the given attempts that exist."""
    wanted = set(refs)
    by_job = of_jobs(tx, list({ref.job_id for ref in refs}))
    return {one.ref: one for tries in by_job.values() for one in tries if one.ref in wanted}


def of_jobs(
    tx: Connection, job_ids: Sequence[UUID], *, logs: bool = False
) -> dict[UUID, list[Attempt]]:
    """Return the attempts of many jobs, in the order of their numbers; `logs` with their tails."""
    found: dict[UUID, list[Attempt]] = defaultdict(list)
    if job_ids:
        query = _select_of_jobs(job_ids, logs=logs)
        for attempt in rows.readable(tx, tx.execute(query), rows.attempt):
            found[attempt.job_id].append(attempt)
    return found


def of_job(tx: Connection, job_id: UUID) -> list[Attempt]:
    """Return all attempts of one job, with their logs.

    Raises:
        Unreadable: one of them can not be read.
    """
    return [rows.attempt(row) for row in tx.execute(_select_of_jobs([job_id], logs=True))]


def still_open(tx: Connection) -> list[Attempt]:
    """Return every attempt whose instance is not yet known to be gone, without logs."""
    query = select(*_columns(logs=False)).where(attempts.c.state != AttemptState.CLOSED)
    return rows.readable(tx, tx.execute(query.order_by(attempts.c.created_at)), rows.attempt)


def timeouts(tx: Connection, refs: Sequence[AttemptRef]) -> dict[AttemptRef, int]:
    """The run limits, in seconds, of those attempts that run."""
    query = (
        select(attempts.c.job_id, attempts.c.number, jobs.c.spec["timeout_s"])
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.state == AttemptState.RUNNING,
            attempts.c.job_id == func.any([ref.job_id for ref in refs]),
        )
    )
    return {
        AttemptRef(job_id, number): seconds
        for job_id, number, seconds in tx.execute(query)
        if isinstance(seconds, int)
    }


def with_specs(tx: Connection, refs: Sequence[AttemptRef]) -> list[tuple[Attempt, JobSpec]]:
    """Return attempts that are still launching by themselves, each with what its machine has to run."""
    if not refs:
        return []
    query = (
        select(attempts, jobs.c.spec, jobs.c.key)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.state == AttemptState.LAUNCHING,
            attempts.c.group_id.is_(None),
            attempts.c.job_id == func.any([ref.job_id for ref in refs]),
        )
    )
    wanted = set(refs)
    found = [row for row in tx.execute(query) if AttemptRef(row.job_id, row.number) in wanted]
    return rows.readable(tx, found, _with_spec)


def locked(tx: Connection, ref: AttemptRef) -> Attempt | None:
    """Lock the job's row, then the attempt's: everyone takes them in this order.

    The job's lock is the weaker one of an update that leaves keys alone: writing an event refers to
    the job, and must never wait for it while holding the attempt.
    """
    tx.execute(select(jobs.c.id).where(jobs.c.id == ref.job_id).with_for_update(key_share=True))
    row = tx.execute(_select_one(ref).with_for_update()).one_or_none()
    return rows.attempt(row) if row else None


def _columns(logs: bool) -> list[Any]:
    """An attempt's columns; its log is by far the largest and seldom wanted."""
    return [column for column in attempts.c if logs or column.name != "log_tail"]


def _select_one(ref: AttemptRef) -> Any:
    return select(attempts).where(attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)


def _select_of_jobs(job_ids: Sequence[UUID], *, logs: bool) -> Any:
    query = select(*_columns(logs)).where(attempts.c.job_id == func.any(list(job_ids)))
    return query.order_by(attempts.c.job_id, attempts.c.number)


def _with_spec(row: Row[Any]) -> tuple[Attempt, JobSpec]:
    attempt = rows.attempt(row)
    return attempt, rows.spec(attempt.ref, row)
