"""What Postgres would do for each statement that the product sends, and whether that is little.

Promise: no statement is listed by hand; what is sent while `watching` is explained just before, in its
own transaction and with its own values, whoever sends it.
Mechanism: SQLAlchemy tells of every statement of every engine of this process.
Failure: what reaches Postgres past SQLAlchemy is not seen: COPY, and LISTEN.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import Engine, event

LARGE = frozenset({"jobs", "attempts", "events"})
"""The tables that grow."""

_EXPLAINED = re.compile(
    r"\s*((?:SET LOCAL[^;]*;\s*)*)((?:SELECT|INSERT|UPDATE|DELETE|WITH|\().*)", re.DOTALL
)
# So many ways to fill in one statement are remembered.
_EACH = 20


class Plans:
    """Statements with their values, and the faults of their plans."""

    def __init__(self, *, most: float) -> None:
        """`most` is what a statement may cost, in Postgres's own unit: about one for a page's read."""
        self._most = most
        self._lock = threading.Lock()
        self.seen: dict[str, list[Any]] = {}
        self.costs: dict[str, float] = {}
        self.faults: dict[str, str] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Explain whatever is sent meanwhile."""
        event.listen(Engine, "before_cursor_execute", self._before)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", self._before)

    def again(self, connection: Any) -> dict[str, str]:
        """Explain all that was seen on this connection; return the faults there are now.

        What needs a table that is gone, being temporary, is left out.
        """
        faults = {}
        with connection.cursor() as cursor:
            for statement, ways in self.seen.items():
                for values in ways:
                    cursor.execute("SAVEPOINT before")
                    try:
                        fault, _ = self._judge(cursor, statement, values)
                    except psycopg2.errors.UndefinedTable:
                        fault = ""
                    cursor.execute("ROLLBACK TO SAVEPOINT before")
                    if fault:
                        faults[statement] = fault
        return faults

    def _before(
        self, _connection: Any, cursor: Any, statement: str, values: Any, _context: Any, many: bool
    ) -> None:
        if not _EXPLAINED.fullmatch(statement):
            return
        if many:
            values = values[0]
        with self._lock:
            ways = self.seen.setdefault(statement, [])
            if len(ways) >= _EACH:
                return
            ways.append(values)
        with cursor.connection.cursor() as beside:
            fault, cost = self._judge(beside, statement, values)
        with self._lock:
            self.costs[statement] = max(cost, self.costs.get(statement, 0.0))
            if fault:
                self.faults[statement] = fault

    def _judge(self, cursor: Any, statement: str, values: Any) -> tuple[str, float]:
        """What is wrong with the plan, if anything, and what it costs."""
        found = _EXPLAINED.fullmatch(statement)
        assert found is not None
        before, explained = found.groups()
        cursor.execute(f"{before}EXPLAIN (FORMAT JSON) {explained}", values)
        plan = cursor.fetchone()[0][0]["Plan"]
        read = [
            node["Relation Name"]
            for node in _nodes(plan)
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE
        ]
        cost = float(plan["Total Cost"])
        if read:
            return f"reads all of {', '.join(sorted(set(read)))}", cost
        if cost > self._most:
            return f"costs {cost:.0f}, more than {self._most:.0f}", cost
        return "", cost


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
