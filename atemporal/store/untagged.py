"""Instances that have the tags of their launch group alone: one call launched them for many jobs.

Promise: each is listed until its attempt is written down as tagged or closed, the oldest first, also
where this release can not read the attempt or its job: then it gets our own tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, func, select, update

from atemporal.model import AttemptRef, Launch
from atemporal.states import AttemptState
from atemporal.tables import attempts, jobs

_LABELS = TypeAdapter(dict[str, str])


class Untagged(NamedTuple):
    """An attempt and its instance; `labels` are the tags of its job's labels, `age_s` is how many
    seconds ago EC2 named the instance."""

    ref: AttemptRef
    instance_id: str
    labels: Mapping[str, str]
    age_s: float


def find(tx: Connection, *, limit: int) -> list[Untagged]:
    """Return them, the oldest first."""
    query = (
        select(
            attempts.c.job_id,
            attempts.c.number,
            attempts.c.instance_id,
            attempts.c.launch,
            jobs.c.spec["labels"].label("labels"),
            func.extract("epoch", func.now() - attempts.c.launched_at).label("age_s"),
        )
        .outerjoin(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.group_id.is_not(None),
            attempts.c.instance_id.is_not(None),
            attempts.c.tagged_at.is_(None),
            attempts.c.state != AttemptState.CLOSED,
        )
        .order_by(attempts.c.launched_at)
        .limit(limit)
    )
    return [
        Untagged(
            AttemptRef(row.job_id, row.number),
            row.instance_id,
            _label_tags(row.launch, row.labels),
            float(row.age_s or 0.0),
        )
        for row in tx.execute(query)
    ]


def done(tx: Connection, ref: AttemptRef) -> None:
    """Write that the attempt's instance has its tags."""
    which = (attempts.c.job_id == ref.job_id, attempts.c.number == ref.number)
    tx.execute(update(attempts).where(*which).values(tagged_at=func.now()))


def _label_tags(launch: Any, labels: Any) -> Mapping[str, str]:
    try:
        read = Launch.model_validate(launch)
        return read.tags_of(_LABELS.validate_python(labels or {})).tags
    except ValidationError:
        return {}
