"""Many rows at once, by COPY into a table of the session's own.

Promise: what is staged is seen by this transaction alone, and gone with its end.
Measured for a submit of 200 jobs or more, this and one INSERT out of it take half the time of one
statement with all rows as JSON. For a few rows it takes longer, by its two more round trips.
Mechanism: a temporary table that a commit empties. A session makes it once; it needs the right TEMPORARY
on the database, which Postgres gives to everybody, and some installations take away: `may_stage` tells.
Failure: that of any statement. COPY is the driver's own, so its errors are given SQLAlchemy's classes
here, by which `Database` tells a server that is away or full from a fault of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

# The order is COPY's text format: a backslash first, or it would be escaped twice.
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
_NULL = "\\N"


def may_stage(tx: Connection) -> bool:
    """Whether this user has the right to make temporary tables."""
    query = text("SELECT has_database_privilege(current_database(), 'TEMPORARY')")
    return bool(tx.scalar(query))


def stage(
    tx: Connection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
) -> None:
    """Put rows into the temporary table `table`, of columns by their names with their types.

    A value is text, a number, None, or what is written as JSON. What the same transaction has staged
    there before stays beside it.

    Raises:
        DBAPIError: as of a statement: the server is away, slow or full, or a value is not of its type.
    """
    declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    tx.execute(
        text(f"CREATE TEMPORARY TABLE IF NOT EXISTS {table} ({declared}) ON COMMIT DELETE ROWS")
    )
    lines = (_line([row[name] for name in columns]) for row in rows)
    copy = f"COPY pg_temp.{table} FROM STDIN"
    cursor: Any = tx.connection.cursor()
    try:
        with closing(cursor):
            cursor.copy_expert(copy, _Reader(lines))
    except psycopg2.Error as error:
        raise DBAPIError.instance(
            copy, None, error, psycopg2.Error, hide_parameters=True, dialect=tx.dialect
        ) from error
    except SystemError as error:
        # What psycopg2 leaves of some connections that break while it sends.
        raise OperationalError(copy, None, error, hide_parameters=True) from error


def _line(values: Sequence[Any]) -> str:
    return "\t".join(map(_field, values)) + "\n"


def _field(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, int | float):
        return str(value)
    written = value if isinstance(value, str) else json.dumps(value)
    for character, escaped in _ESCAPES:
        if character in written:
            written = written.replace(character, escaped)
    return written


class _Reader:
    """Lines as a file: psycopg2 reads about 8 KB at a time, so the whole is never held as one text."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._rest = ""

    def read(self, size: int) -> str:
        parts, length = [self._rest], len(self._rest)
        while length < size:
            line = next(self._lines, None)
            if line is None:
                break
            parts.append(line)
            length += len(line)
        whole = "".join(parts)
        self._rest = whole[size:]
        return whole[:size]
