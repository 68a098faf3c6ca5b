"""A container's output as it is kept: by the position of each byte in all that it wrote.

Promise: no byte is shown twice and none is missing unseen. What lies between two parts is counted; where
nobody knows how much that is, that is said too.
Mechanism: while the container runs its machine sends chunks, each with the position of its first byte.
When it has ended the machine reports the last `LOG_TAIL_LIMIT` bytes. Their position follows from how
many bytes there were in all. A machine that has not counted them shows it all the same by an end that is
shorter than the limit: then that is everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from atemporal.model.attempt import Attempt
from atemporal.model.exit_record import LOG_TAIL_LIMIT

CHUNK_LIMIT: Final = 64 * 1024
"""How many bytes a chunk has at most."""
LAST_START: Final = 2**62
"""The largest position of a chunk's first byte."""


class LogChunk(NamedTuple):
    """What a machine sent: the position of the first byte, and the bytes."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        """The position behind its last byte."""
        return self.start + len(self.data)


class LogPart(NamedTuple):
    """Output without a gap in it. `missing` bytes before it are not kept; None: nobody knows."""

    start: int
    data: bytes
    missing: int | None


def tail_of(attempt: Attempt) -> LogChunk | None:
    """The end of an ended container's output; one whose place nobody knows has the start -1."""
    if not attempt.log_tail:
        return None
    size = len(attempt.log_tail)
    if attempt.running_at is None:
        # The engine's own words stand in for it.
        return LogChunk(0, attempt.log_tail)
    if attempt.log_bytes is not None and attempt.log_bytes >= size:
        return LogChunk(attempt.log_bytes - size, attempt.log_tail)
    return LogChunk(0 if size < LOG_TAIL_LIMIT else -1, attempt.log_tail)


def parts(
    chunks: Iterable[LogChunk], *, after: int, tail: LogChunk | None, end: int
) -> list[LogPart]:
    """Put together what is kept from the position `after` on.

    `chunks` are in their order; `end` is the position behind the last one of all, where an end of the
    output is shown whose place nobody knows.
    """
    found: list[LogPart] = []
    position = after
    known = tail is not None and tail.start >= 0
    for chunk in (*chunks, tail) if tail is not None and known else chunks:
        if chunk.end <= position or not chunk.data:
            continue
        skipped = max(position - chunk.start, 0)
        _add(found, chunk.start + skipped, chunk.data[skipped:], max(chunk.start - position, 0))
        position = chunk.end
    if tail is not None and not known and position < end + len(tail.data):
        skipped = max(position - end, 0)
        _add(found, end + skipped, tail.data[skipped:], 0 if skipped else None)
    return found


def _add(found: list[LogPart], start: int, data: bytes, missing: int | None) -> None:
    if found and missing == 0:
        last = found.pop()
        found.append(last._replace(data=last.data + data))
    else:
        found.append(LogPart(start, data, missing))
