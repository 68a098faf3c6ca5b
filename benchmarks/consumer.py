"""How many due jobs a second reach a live consumer in another process, and are acknowledged?

As `dispatch`, with a reader beside the loop, on the same two processors: the clock runs from the instant
that the jobs are due to the reader's last ack. `plain` reads with py-amqp (prefetch 1,000, one ack for a
hundred), `launcher` with the batches of the launcher's own inbox.
Not cheated: the reader decodes each body, and counts each job once.
"""

from __future__ import annotations

from contextlib import closing

from atemporal.broker import declare
from benchmarks import backlog
from benchmarks.child import Child
from benchmarks.dispatch import FUTURE, due_soon, environment
from benchmarks.wiring import Figures


def plain(database_url: str, broker_url: str, due: int = 20_000, future: int = FUTURE) -> Figures:
    """Jobs a second to a py-amqp consumer."""
    return _read(database_url, broker_url, due, future, "amqp")


def launcher(
    database_url: str, broker_url: str, due: int = 20_000, future: int = FUTURE
) -> Figures:
    """Jobs a second to what the launcher receives with."""
    return _read(database_url, broker_url, due, future, "link")


def _read(database_url: str, broker_url: str, due: int, future: int, how: str) -> Figures:
    backlog.ensure(database_url, future)
    declare(broker_url)
    env = environment(database_url, broker_url)
    with (
        closing(backlog.connect(database_url)) as connection,
        connection.cursor() as cursor,
        Child("benchmarks.reader", broker_url, str(due), how, env=env) as reader,
        Child("benchmarks.scheduler_loop", "due", env=env) as loop,
    ):
        at = due_soon(cursor, due)
        (read,) = reader.stop()
        loop.stop()
        cursor.execute("SELECT id::text FROM jobs WHERE due_at = %s", (at,))
        missed = {job for (job,) in cursor.fetchall()} - read["arrived"].keys()
    if missed:
        raise RuntimeError(f"{len(missed)} of {due} jobs never reached the reader")
    seconds = read["last"] - at.timestamp()
    return {"jobs": due, "future_rows": future, "jobs_per_s": due / seconds, "seconds": seconds}
