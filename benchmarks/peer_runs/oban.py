"""oban: a queue of 100, everything else at its defaults."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing

import psycopg2
from oban import Oban, worker
from oban.schema import install

from benchmarks.peer_runs.drain import Drain, Request, fill, request

_INSERT = """
INSERT INTO oban_jobs (state, queue, worker, scheduled_at)
SELECT 'scheduled', 'default', '{worker}', timezone('UTC', now())
       + CASE WHEN due THEN interval '-1s' ELSE interval '30 days' END FROM {rows}
"""


async def _main(asked: Request) -> None:
    drain = Drain(asked)

    @worker(queue="default")
    class Handler:
        async def process(self, _job: object) -> None:
            drain.one()

    pool = await Oban.create_pool(asked.url, min_size=2, max_size=20)
    await install(pool)
    _fill(asked, Handler.new({}).worker)  # type: ignore[attr-defined]
    oban = Oban(pool=pool, queues={"default": 100})
    drain.begin()
    await oban.start()
    while not drain.over:
        await asyncio.sleep(0.02)
    # As `peer_environment` says.
    unofficial = {"python": "3.11, with one statement rewritten: not an official run"}
    drain.report(**({} if sys.version_info >= (3, 12) else unofficial))


def _fill(asked: Request, name: str) -> None:
    with closing(psycopg2.connect(asked.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DELETE FROM oban_jobs WHERE scheduled_at < now() + interval '1 day'")
        cursor.execute("SELECT count(*) FROM oban_jobs")
        fill(cursor, asked, cursor.fetchone()[0], _INSERT.replace("{worker}", name))
        cursor.execute("VACUUM (ANALYZE) oban_jobs")


if __name__ == "__main__":
    asyncio.run(_main(request()))
