"""Plans: how Postgres would execute each statement that the product sends, asked as it is sent.

Promise: between `recording` and its end every statement of every engine is explained with its own
parameters, on its own connection, in its own transaction, just before it is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

LARGE = (
    *("jobs", "attempts", "events", "schedules", "fires", "dead_letters", "webhook_deliveries"),
    *("log_chunks", "schedule_messages", "costs"),
)
# Partial: what is under way, however much is scheduled or over.
_SMALL = (
    "ix_attempts_open",
    "uq_attempts_one_live_a_job",
    "ix_events_unrelayed",
    "ix_jobs_queued",
    "ix_jobs_waiting",
    "ix_fires_open",
    "ix_jobs_max_cost",
)
_EXPLAINED = ("select", "insert", "update", "delete", "with")
# As many jobs as there are in the tests, and how many of them may be passed over.
_JOBS, _FEW = 500_000, 50_000
# What is below these is read to its end, whatever limit is above.
_GREEDY = ("Sort", "Aggregate", "Hash", "Materialize", "Bitmap Heap Scan")


@dataclass(frozen=True)
class Explained:
    """A statement, and what its plan reads from beginning to end; nothing if all is well."""

    statement: str
    walks: tuple[str, ...]


@contextmanager
def recording() -> Iterator[list[Explained]]:
    """Yield the list of what was sent, which grows until the block ends."""
    seen: list[Explained] = []

    def explain(
        connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        if not statement.lstrip(" \n(").lower().startswith(_EXPLAINED):
            return
        # Many rows are a sequence of parameters or, inserted by one statement, one set of them.
        one = parameters[0] if many and not isinstance(parameters, dict) else parameters
        with connection.connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", one)
            ((plan,),) = cursor.fetchall()
        seen.append(Explained(statement, tuple(walks(plan[0]["Plan"]))))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


def walks(node: dict[str, Any], *, limit: float | None = None) -> Iterator[str]:
    """Name what a plan reads whole: a large table, or an index of all its rows without a limit.

    With a limit it is whole too where rows are filtered: few may pass. Only labels, which are looked for
    otherwise where they are rare, may be filtered, if so many rows have them that most need no look.
    """
    kind, index = node["Node Type"], node.get("Index Name")
    if node.get("Relation Name") in LARGE:
        if kind == "Seq Scan":
            yield f"Seq Scan on {node['Relation Name']}"
        elif index and index not in _SMALL and "Index Cond" not in node:
            passed = _JOBS * (limit or 0) / max(1, node["Plan Rows"])
            others = "Filter" in node and ("'labels'" not in node["Filter"] or passed > _FEW)
            if limit is None or others:
                yield f"{kind} of all of {index}"
    if kind == "Limit":
        limit = node["Plan Rows"]
    elif kind in _GREEDY:
        limit = None
    for child in node.get("Plans", ()):
        yield from walks(child, limit=limit)
