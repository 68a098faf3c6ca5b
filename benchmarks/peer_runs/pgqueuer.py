"""pgqueuer: asyncpg on uvloop, batches of 100."""

from __future__ import annotations

import asyncio
from contextlib import closing

import asyncpg
import psycopg2
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.peer_runs.drain import Drain, Request, fill, request

_INSERT = """
INSERT INTO pgqueuer (priority, status, entrypoint, execute_after)
SELECT 0, 'queued', 'handle',
       CASE WHEN due THEN now() - interval '1s' ELSE now() + interval '30 days' END FROM {rows}
"""


async def _main(asked: Request) -> None:
    connection = await asyncpg.connect(asked.url)
    queries = Queries(AsyncpgDriver(connection))
    if not await queries.schema_is_installed():
        await queries.install()
    _fill(asked)
    queuer = PgQueuer(AsyncpgDriver(connection))
    drain = Drain(asked)

    @queuer.entrypoint("handle")  # type: ignore[untyped-decorator]
    async def handle(_job: object) -> None:
        drain.one()

    drain.begin()
    running = asyncio.create_task(queuer.run(batch_size=100))
    while not drain.over:
        await asyncio.sleep(0.02)
    running.cancel()
    drain.report()


def _fill(asked: Request) -> None:
    with closing(psycopg2.connect(asked.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DELETE FROM pgqueuer WHERE execute_after < now() + interval '1 day'")
        cursor.execute("SELECT count(*) FROM pgqueuer")
        fill(cursor, asked, cursor.fetchone()[0], _INSERT)
        cursor.execute("VACUUM (ANALYZE) pgqueuer")


if __name__ == "__main__":
    uvloop.run(_main(request()))
