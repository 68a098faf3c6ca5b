"""Claims of due jobs where a test is about what comes after them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from atemporal.model import AttemptRef
from atemporal.store import due


def claim_due(tx: Connection, limit: int, *, actor: str) -> list[AttemptRef]:
    """Move up to `limit` due jobs to queued, highest priority first, and return them.

    The scheduler does the same bit by bit, and publishes each.
    """
    refs: list[AttemptRef] = []
    for level in due.survey(tx):
        claim = due.claim(tx, level.priority, actor=actor, limit=limit - len(refs))
        for job in claim.jobs:
            job_id, number, _ = job.message_id.split(".")
            refs.append(AttemptRef(UUID(job_id), int(number)))
    return refs
