"""How many jobs of a label were under way at once, against the concurrency limit that held then.

Promise: pure. A job is under way from its dispatch until its container is known to have ended, or its
instance to be gone. Events of claims have the order in which the claims counted, and what a claim saw
end has an earlier number; so nothing here goes by anybody's clock but the limit itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from atemporal.model import Event
from atemporal.store.concurrency_limits import LimitChange

# A claim's events have the time of its begin, and it may have waited for a change of the limit.
DOUBT = timedelta(seconds=15)


class Dispatch(NamedTuple):
    """A dispatch: `many` are under way with it, and `most` is the largest limit that may have held, None
    where there may have been none."""

    event: Event
    many: int
    most: int | None


def dispatches(history: Iterable[Event], changes: Sequence[LimitChange]) -> Iterator[Dispatch]:
    """Each dispatch, in order; `history` is of one label's jobs, `changes` are all of its limit."""
    under_way: set[tuple[UUID, int]] = set()
    begun: set[tuple[UUID, int]] = set()
    for event in sorted(history, key=lambda one: one.id):
        this = (event.job_id, event.attempt)
        if event.type == "job.queued":
            under_way.add(this)
            yield Dispatch(event, len(under_way), _most(event.at, changes))
        elif event.type == "attempt.launching":
            begun.add(this)
        elif event.type == "attempt.closed" or (
            event.type == "attempt.exited" and event.detail.get("exit_code") is not None
        ):
            under_way.discard(this)
        elif event.type.startswith("job.finished"):
            # What never began has no end of its own.
            under_way -= {one for one in under_way - begun if one[0] == event.job_id}


def exceeded(found: Iterable[Dispatch]) -> Iterator[str]:
    """Say which dispatches went beyond the limit."""
    for event, many, most in found:
        if most is not None and many > most:
            yield f"{many} are under way with the dispatch of {event.job_id}, and {most} may be"


def _most(at: datetime, changes: Sequence[LimitChange]) -> int | None:
    ordered = sorted(changes, key=lambda one: one.at)
    before = [one for one in ordered if one.at <= at - DOUBT]
    near = [one for one in ordered if at - DOUBT < one.at <= at + DOUBT]
    held = [before[-1].after if before else None, *(one.after for one in near)]
    return None if None in held else max(one for one in held if one is not None)
