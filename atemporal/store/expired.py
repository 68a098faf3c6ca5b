"""What is so old that it may be deleted: counted, and deleted in batches, kind by kind.

Promise: what is counted as going is so by the very conditions by which `retention` deletes. Counting
deletes nothing and locks nothing; it reads by pages, along an index, each page a statement of its own.
Failure: what changes between two pages may be counted as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text

from atemporal.store import retention

PAGE = 5_000
"""So many rows that are old enough are looked at by one statement, at most."""

_AGE = "now() - make_interval(secs => :keep_s)"
_ITS_JOBS_GO = f"""
    NOT EXISTS (
        SELECT 1 FROM attempts JOIN jobs ON jobs.id = attempts.job_id
        WHERE group_id = launch_groups.id
          AND (finished_at < {_AGE} AND {retention.JOB_MAY_GO}) IS NOT TRUE)
"""


class Page(NamedTuple):
    """How many rows of a page are old enough, how many of them may go, and where the next page begins.

    `next` is None at the end.
    """

    old: int
    going: int
    next: tuple[Any, ...] | None


@dataclass(frozen=True)
class Walk:
    """How rows of a table are counted, as SQL: which are old enough, in which order, and which may go.

    `order` is of expressions with their types; together they tell each row from all others.
    """

    table: str
    old: str
    order: tuple[tuple[str, str], ...]
    may_go: str = "true"

    def page(self, tx: Connection, *, keep_s: float, after: Sequence[Any] | None = None) -> Page:
        """Count the next rows that are older than `keep_s` seconds, behind the place `after`."""
        given = {f"k{n}": value for n, value in enumerate(after or ())}
        statement = self._statement(behind=bool(after))
        row = tx.execute(statement, {"keep_s": keep_s, "page": PAGE, **given}).one_or_none()
        if row is None:
            return Page(0, 0, None)
        place = tuple(getattr(row, f"o{n}") for n in range(len(self.order)))
        return Page(row.old, row.going, place if row.old == PAGE else None)

    def _statement(self, *, behind: bool) -> TextClause:
        keys = [key for key, _ in self.order]
        shown = ", ".join(f"{key} AS o{n}" for n, key in enumerate(keys))
        names = [f"o{n}" for n in range(len(keys))]
        places = ", ".join(f"CAST(:k{n} AS {kind})" for n, (_, kind) in enumerate(self.order))
        further = f"AND ({', '.join(keys)}) > ({places})" if behind else ""
        return text(
            f"""
            WITH page AS (
                SELECT {shown}, {self.may_go} AS goes FROM {self.table}
                WHERE {self.old} {further}
                ORDER BY {", ".join(keys)} LIMIT :page)
            SELECT {", ".join(names)}, count(*) OVER () AS old, sum(goes::integer) OVER () AS going
            FROM page ORDER BY {", ".join(f"{name} DESC" for name in names)} LIMIT 1
            """
        )


class Kind(NamedTuple):
    """What is deleted together: its name, what people call it, how it is counted and deleted.

    `delete(tx, keep_s=, limit=)` returns how many rows went.
    """

    name: str
    called: str
    walks: tuple[Walk, ...]
    delete: Callable[..., int]


def _letters(tx: Connection, *, keep_s: float, limit: int) -> int:
    return retention.delete_old_letters(tx, keep_s=keep_s, limit=limit)[0]


_LETTER_AT = "coalesce(decided_at, received_at)"

KINDS = (
    Kind(
        "jobs",
        "finished jobs, with their attempts, history and log chunks",
        (
            Walk(
                "jobs",
                f"finished_at < {_AGE}",
                (("finished_at", "timestamptz"), ("id", "uuid")),
                retention.JOB_MAY_GO,
            ),
        ),
        retention.delete_finished,
    ),
    Kind(
        "launch_groups",
        "launch groups that are empty then",
        (Walk("launch_groups", f"settled_at < {_AGE}", (("id", "uuid"),), _ITS_JOBS_GO),),
        retention.delete_empty_groups,
    ),
    Kind(
        "fires",
        "fires of schedules",
        (
            Walk(
                "fires",
                f"settled AND fire_time < {_AGE}",
                (("fire_time", "timestamptz"), ("schedule_id", "uuid")),
            ),
            Walk(
                "fires",
                f"NOT settled AND fire_time < {_AGE}",
                (("schedule_id", "uuid"), ("fire_time", "timestamptz")),
                retention.NO_LIVING_JOB,
            ),
        ),
        retention.delete_old_fires,
    ),
    Kind(
        "dead_letters",
        "dead letters, also those nobody has decided about",
        (
            Walk(
                "dead_letters",
                f"state <> 'replaying' AND {_LETTER_AT} < {_AGE}",
                ((_LETTER_AT, "timestamptz"), ("id", "uuid")),
            ),
        ),
        _letters,
    ),
    Kind(
        "webhook_deliveries",
        "deliveries to webhooks that were given up",
        (
            Walk(
                "webhook_deliveries",
                f"dead_at < {_AGE}",
                (("dead_at", "timestamptz"), ("webhook_id", "uuid"), ("event_id", "bigint")),
            ),
        ),
        retention.delete_old_deliveries,
    ),
    Kind(
        "schedule_messages",
        "messages about schedules that were applied",
        (
            Walk(
                "schedule_messages",
                f"at < {_AGE}",
                (("at", "timestamptz"), ("key", "text")),
            ),
        ),
        retention.delete_old_schedule_messages,
    ),
)
"""What goes by the age of jobs, in the order in which it must go."""

LOG_CHUNKS = Kind(
    "log_chunks",
    "log chunks",
    (
        Walk(
            "log_chunks",
            f"at < {_AGE}",
            (
                *(("at", "timestamptz"), ("job_id", "uuid")),
                *(("attempt", "integer"), ("start", "bigint")),
            ),
        ),
    ),
    retention.delete_old_chunks,
)
"""What goes by an age of its own."""
