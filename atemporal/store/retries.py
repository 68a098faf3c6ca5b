"""What follows an attempt's end: its job finishes, or is scheduled for another attempt.

Promise: the end and what follows from it are one transaction; no budget is exceeded; an attempt that
ended ahead of its time is followed by one that starts at that time, not before.
"""

from __future__ import annotations

import itertools
import random

from sqlalchemy import Connection, case, func, select

from atemporal.model import AttemptRef
from atemporal.states import (
    Again,
    Fault,
    Finish,
    JobState,
    Reason,
    verdict,
    verdict_of_scarcity,
)
from atemporal.store import rows
from atemporal.store.transitions import finish_job, notify_scheduler, transition_job
from atemporal.tables import attempts, jobs


def decide(
    tx: Connection,
    ref: AttemptRef,
    reason: Reason,
    *,
    exit_code: int | None,
    actor: str,
    patience_s: float,
    started: bool,
) -> None:
    """Finish the job or schedule it again, by the budgets left since the last operator's retry.

    `started` says that the attempt's container is known to have started: the job kept its start
    deadline, and has none any more.
    """
    job = tx.execute(select(jobs).where(jobs.c.id == ref.job_id)).one()
    spec = rows.spec(ref, job)
    ends = tx.execute(
        select(
            attempts.c.reason,
            func.extract("epoch", func.now() - attempts.c.created_at).label("age_s"),
        )
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number > job.attempt_base,
            attempts.c.reason.is_not(None),
        )
        .order_by(attempts.c.number.desc())
    ).all()
    after: Finish | Again
    if reason is Reason.NO_CAPACITY:
        row = list(itertools.takewhile(lambda end: end.reason == reason, ends))
        after = verdict_of_scarcity(
            in_a_row=len(row), since_s=float(row[-1].age_s), patience_s=patience_s
        )
    else:
        known = [Reason(end.reason) if end.reason in frozenset(Reason) else None for end in ends]
        faults = [one.fault for one in known if one is not None and one.costs]
        # Whose fault it was, the release that wrote the end knows. Counted for both, so that neither
        # budget is exceeded.
        unknown = known.count(None)
        after = verdict(
            reason,
            program_failures=faults.count(Fault.PROGRAM) + unknown,
            infra_failures=faults.count(Fault.INFRASTRUCTURE) + unknown,
            max_attempts=spec.max_attempts,
            infra_retries=spec.infra_retries,
            backoff_s=spec.backoff_s,
            exit_code=exit_code,
            retry_on=spec.retry_on,
            no_retry_on=spec.no_retry_on,
        )
    if isinstance(after, Finish):
        finish_job(tx, ref, reason, actor=actor)
        return
    # Jitter, so that what failed together does not come back together.
    delay_s = round(after.delay_s * random.uniform(0.5, 1), 3)
    at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, delay_s)
    # What costs no budget leaves as many attempts to come as before.
    free = {} if reason.costs else {"attempt_limit": jobs.c.attempt_limit + 1}
    transition_job(
        tx,
        ref,
        JobState.SCHEDULED,
        actor=actor,
        values={
            # One that failed ahead of its time is tried again at once, and still starts at its time.
            "due_at": func.greatest(at, jobs.c.due_at),
            "dispatch_at": case((jobs.c.due_at > at, at)),
            "plan_at": None,
            "waits_for": None,
            **({"start_by": None} if started else {}),
            **free,
        },
        detail={"retry": reason, "in_s": delay_s},
    )
    if after.delay_s == 0:
        notify_scheduler(tx)
