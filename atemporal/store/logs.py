"""Log chunks: what containers write while they run; and the end of it, as their machines report it.

Promise: what was sent again is kept once; of an attempt no more is kept than `kept` bytes and one chunk,
the latest, in few rows; who sends too often is put off.
Mechanism: one statement. Chunks of an attempt come in order, so what lies behind the end of the last one
is new. A short one is put to the last row. Two of the same that come at once meet at the row's key, and
the second one changes nothing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, text, update

from atemporal.errors import NotFound, TooEarly
from atemporal.model import LOG_TAIL_LIMIT, Attempt, AttemptRef, ExitRecord
from atemporal.model.log import CHUNK_LIMIT, LogChunk
from atemporal.store import rows
from atemporal.tables import attempts, jobs

INTERVAL_S: Final = 2.0
"""How long after a chunk of an attempt no other is taken. Machines send every five seconds at most."""
ROW_BYTES: Final = 8 * 1024
"""Up to so many bytes are put together in a row."""
PAGE_CHUNKS: Final = 16

_APPEND = text(
    """
    WITH last AS (
        SELECT start, octet_length(data) AS size, start + octet_length(data) AS upto,
            at > now() - make_interval(secs => :interval_s) AS early
        FROM log_chunks WHERE job_id = :job_id AND attempt = :attempt
        ORDER BY start DESC LIMIT 1
    ), known AS (
        SELECT coalesce(max(upto), 0) AS upto, coalesce(bool_or(early), false) AS early FROM last
    ), fresh AS (
        SELECT greatest(upto, :start) AS start,
            substring(CAST(:data AS bytea) FROM (greatest(upto - :start, 0) + 1)::integer) AS data
        FROM known WHERE :end > upto AND NOT early
    ), cut AS (
        DELETE FROM log_chunks WHERE job_id = :job_id AND attempt = :attempt
            AND start < :end - :kept AND start + octet_length(data) <= :end - :kept
            AND EXISTS (SELECT FROM fresh)
    ), put AS (
        INSERT INTO log_chunks AS row (job_id, attempt, start, data, at)
        SELECT :job_id, :attempt, coalesce(last.start, fresh.start), fresh.data, now()
        FROM fresh LEFT JOIN last
            ON last.upto = fresh.start AND last.size + octet_length(fresh.data) <= :row_bytes
        ON CONFLICT (job_id, attempt, start) DO UPDATE
        SET data = row.data || excluded.data, at = excluded.at
        WHERE row.start + octet_length(row.data) = (SELECT start FROM fresh)
        RETURNING 1
    )
    SELECT upto, early, EXISTS (SELECT FROM put) AS stored FROM known
    """
)
_PAGE = text(
    """
    SELECT start, data FROM log_chunks
    WHERE job_id = :job_id AND attempt = :attempt
        AND start > :after - :longest AND start + octet_length(data) > :after
    ORDER BY start LIMIT :limit
    """
)
_END = text(
    """
    SELECT start + octet_length(data) FROM log_chunks
    WHERE job_id = :job_id AND attempt = :attempt ORDER BY start DESC LIMIT 1
    """
)


class Appended(NamedTuple):
    """What became of a chunk's bytes, and how many before it were never sent."""

    taken: int
    repeated: int
    missing: int


def append(tx: Connection, ref: AttemptRef, chunk: LogChunk, *, kept: int) -> Appended:
    """Keep what is new of a chunk, and drop the oldest of the attempt beyond `kept` bytes.

    `kept` is no smaller than a chunk.

    Raises:
        TooEarly: the last one has come a moment ago; it is to be sent again.
    """
    if not chunk.data:
        return Appended(0, 0, 0)
    found = tx.execute(
        _APPEND,
        {
            **_named(ref),
            "start": chunk.start,
            "end": chunk.end,
            "data": chunk.data,
            "kept": max(kept, CHUNK_LIMIT),
            "interval_s": INTERVAL_S,
            "row_bytes": ROW_BYTES,
        },
    ).one()
    if chunk.end > found.upto and found.early:
        raise TooEarly(f"a chunk of attempt {ref.number} has just come: send this one later")
    taken = chunk.end - max(chunk.start, found.upto) if found.stored else 0
    missing = max(chunk.start - found.upto, 0) if found.stored else 0
    return Appended(taken, len(chunk.data) - taken, missing)


def page(tx: Connection, ref: AttemptRef, after: int) -> list[LogChunk]:
    """The next chunks with bytes from a position on, `PAGE_CHUNKS` at most, in their order."""
    given = {**_named(ref), "after": after, "limit": PAGE_CHUNKS, "longest": CHUNK_LIMIT}
    return [LogChunk(row.start, bytes(row.data)) for row in tx.execute(_PAGE, given)]


def end(tx: Connection, ref: AttemptRef) -> int:
    """The position behind the last byte that was sent; 0 if none is kept."""
    return tx.scalar(_END, _named(ref)) or 0


def writer(tx: Connection, job_id: UUID) -> Attempt:
    """The last attempt of a job, which is the one that may write.

    Raises:
        NotFound: there is no such job, or no attempt of it.
        Unreadable: it can not be read.
    """
    last = select(jobs.c.attempt).where(jobs.c.id == job_id).scalar_subquery()
    query = select(attempts).where(attempts.c.job_id == job_id, attempts.c.number == last)
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {job_id}, or no attempt of it")
    return rows.attempt(row)


def log_values(exit_record: ExitRecord) -> dict[str, Any]:
    """The columns of an attempt for the end of its output."""
    return {
        "log_tail": exit_record.log_tail[-LOG_TAIL_LIMIT:] or None,
        "log_bytes": exit_record.log_bytes,
    }


def keep_tail(tx: Connection, ref: AttemptRef, exit_record: ExitRecord) -> bool:
    """Write the end of the output of an attempt that somebody else than its machine has ended.

    False when there is one already, or the record has none.
    """
    values = log_values(exit_record)
    if values["log_tail"] is None:
        return False
    kept = tx.execute(
        update(attempts)
        .where(
            attempts.c.job_id == ref.job_id,
            attempts.c.number == ref.number,
            attempts.c.log_tail.is_(None),
        )
        .values(**values)
    )
    return bool(kept.rowcount)


def _named(ref: AttemptRef) -> dict[str, object]:
    return {"job_id": ref.job_id, "attempt": ref.number}
