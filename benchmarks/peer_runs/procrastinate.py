"""procrastinate: its psycopg connector, 50 jobs side by side."""

from __future__ import annotations

import asyncio
from contextlib import closing

import psycopg2
from procrastinate import App, PsycopgConnector

from benchmarks.peer_runs.drain import Drain, Request, fill, request

_INSERT = """
INSERT INTO procrastinate_jobs (queue_name, task_name, scheduled_at)
SELECT 'default', 'handle',
       CASE WHEN due THEN now() - interval '1s' ELSE now() + interval '30 days' END FROM {rows}
"""


async def _main(asked: Request) -> None:
    app = App(connector=PsycopgConnector(conninfo=asked.url, max_size=20))
    drain = Drain(asked)

    @app.task(name="handle")  # type: ignore[untyped-decorator]
    async def handle() -> None:
        drain.one()

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        _fill(asked)
        drain.begin()
        running = asyncio.create_task(app.run_worker_async(concurrency=50))
        while not drain.over:
            await asyncio.sleep(0.02)
        running.cancel()
        drain.report()


def _fill(asked: Request) -> None:
    with closing(psycopg2.connect(asked.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        # A row of history and a notification for each would only make the filling slow.
        cursor.execute("ALTER TABLE procrastinate_jobs DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM procrastinate_jobs WHERE scheduled_at < now() + interval '1d'")
        cursor.execute("SELECT count(*) FROM procrastinate_jobs")
        fill(cursor, asked, cursor.fetchone()[0], _INSERT)
        cursor.execute("ALTER TABLE procrastinate_jobs ENABLE TRIGGER USER")
        cursor.execute("VACUUM (ANALYZE) procrastinate_jobs")


if __name__ == "__main__":
    asyncio.run(_main(request()))
