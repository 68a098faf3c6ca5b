"""How fast due jobs reach the broker and a consumer, and how late.

Three questions, each a function that takes the URLs of an empty Postgres database and of an empty
virtual host, and returns a dict of figures: `throughput`, `latency`, `old_snapshot`. The product's own
code is what runs: the scheduler's loop, and `Link.receive` and `ack` in another process. Of raw
publishing, the ceiling, the frames are made beforehand; it is measured in the same run, to the same
durable quorum queue, with confirms. Nothing is counted before it is confirmed and committed, and the
queue is compared with the tables afterwards.

`python -m benchmarks.dispatch POSTGRES_URL AMQP_URL [throughput|latency|old_snapshot]`
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import median
from time import monotonic, time
from typing import Any

import psycopg2

from atemporal import migrations
from atemporal.broker import Link, Outgoing, frames
from atemporal.messages import LAUNCH, JobDue, decode
from atemporal.model import AttemptRef, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from services.scheduler.due import DueLoop

FUTURE = 1_000_000
DUE = 100_000
_WINDOW = 2000
_SPEC = {
    "image": "registry.example.com/team/etl:2026.11",
    "env": {"DAY": "2026-11-28", "MODE": "full"},
    "labels": {"team": "data"},
}
# As the store makes ids: the time in milliseconds, and random bits.
_ID = """(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' ||
    substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid"""


@dataclass
class Bench:
    """A database with jobs that are due tomorrow and later, and the queue to publish to."""

    database_url: str
    broker_url: str

    def prepare(self, future: int = FUTURE) -> None:
        """Make the tables and fill them, once."""
        migrations.upgrade(self.database_url)
        missing = future - self.ask("SELECT count(*) FROM jobs WHERE state = 'scheduled'")
        if missing > 0:
            self.fill(missing, "now() + interval '1 day' + n * interval '100 ms'")
            self.execute("VACUUM ANALYZE jobs")
        link = Link(self.broker_url, name="bench")
        link.connect()
        link.close()

    def fill(self, count: int, due_at: str, priority: str = "0") -> None:
        """Write scheduled jobs; `due_at` and `priority` are SQL and may use `n`, which counts them."""
        spec = json.dumps(jobs._stored(parse_spec(_SPEC)))
        self.execute(
            "INSERT INTO jobs (id, spec, state, attempt_limit, run_at, due_at)"
            f" SELECT {_ID}, %s::jsonb || jsonb_build_object('priority', {priority}), 'scheduled', 3,"
            f" {due_at}, {due_at} FROM generate_series(1, {count}) AS n",
            spec,
        )

    def execute(self, statement: str, *values: object) -> None:
        """Run one statement."""
        with closing(psycopg2.connect(self.database_url)) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement, values or None)

    def ask(self, query: str) -> Any:
        """Return one value."""
        with closing(psycopg2.connect(self.database_url)) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            (value,) = cursor.fetchone()
            return value

    @contextmanager
    def loop(self) -> Iterator[DueLoop]:
        """The scheduler's loop, warm: it has looked once and is connected."""
        database = Database(self.database_url)
        loop = DueLoop(database, Link(self.broker_url, name="bench due"), poll_interval_s=1.0)
        loop.tick()
        yield loop
        loop.reset()
        database.dispose()

    def drain(self, loop: DueLoop) -> float:
        """Let the loop work until nothing is due; return how many jobs a second that were."""
        due = "SELECT count(*) FROM jobs WHERE state = 'scheduled' AND due_at <= now()"
        count, before = self.ask(due), monotonic()
        query = (
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND due_at <= now()"
            " ORDER BY coalesce(dispatch_at, due_at) LIMIT 1)"
        )
        done = 0
        while done < count:
            done += self._tick(loop)
        took = monotonic() - before
        assert not self.ask(query)
        return float(count / took)

    def _tick(self, loop: DueLoop) -> int:
        before = _published()
        loop.tick()
        return _published() - before

    def raw(self, count: int = DUE) -> float:
        """Publish as many messages, whose frames are made beforehand, confirmed; a second."""
        link = Link(self.broker_url, name="bench raw")
        link.connect()
        message = JobDue.of(AttemptRef(jobs._ids.new(), 1))
        batch = [Outgoing.of(message)] * (_WINDOW // 2)
        connection, confirms = link._amqp, link._confirms
        assert confirms is not None
        channel = connection.channels[1].channel_id
        encoded = frames.publish(batch, channel=channel, frame_max=connection.frame_max)
        before, last = monotonic(), None
        for _ in range(count // len(batch)):
            sent = confirms.sent(batch)
            connection.transport.write(encoded)
            if last is not None:
                link.settle(last)
            last = sent
        assert last is not None
        link.settle(last)
        took = monotonic() - before
        link.close()
        return count // len(batch) * len(batch) / took

    def empty(self) -> int:
        """Empty the queue; return how many messages were in it."""
        link = Link(self.broker_url, name="bench empty")
        link.connect()
        count: int = link._amqp.channels[1].queue_purge(LAUNCH)
        link.close()
        return count


def _published() -> int:
    from prometheus_client import REGISTRY

    return int(REGISTRY.get_sample_value("atemporal_due_jobs_published_total") or 0)


def _consume(url: str, count: int, results: Any, ready: Any) -> None:
    """Receive and acknowledge as many messages; put when each came, and for which job."""
    link = Link(url, name="bench consumer")
    link.receive(LAUNCH, limit=500, timeout_s=0.01)
    ready.set()
    came: list[tuple[float, str]] = []
    while len(came) < count:
        batch = link.receive(LAUNCH, limit=500, timeout_s=1.0)
        now = time()
        # What every consumer does with it.
        came += [(now, str(decode(LAUNCH, one.body).job_id)) for one in batch]
        link.ack(batch)
    link.close()
    results.put(came if count <= 10_000 else (now, len({job for _, job in came})))


@contextmanager
def _consumer(url: str, count: int) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    results, ready = context.Queue(), context.Event()
    process = context.Process(target=_consume, args=(url, count, results, ready))
    process.start()
    ready.wait(60)
    yield results
    process.join(60)


def throughput(database_url: str, broker_url: str, *, runs: int = 3) -> dict[str, Any]:
    """Jobs a second out of a million scheduled ones: to the queue, to a consumer; and raw publishing."""
    bench = Bench(database_url, broker_url)
    bench.prepare()
    rates: dict[str, list[float]] = {"raw": [], "confirmed": [], "consumed": []}
    with bench.loop() as loop:
        for _ in range(runs):
            rates["raw"].append(bench.raw())
            bench.empty()
            bench.fill(DUE, "now() - n * interval '1 ms'")
            bench.execute("CHECKPOINT")
            rates["confirmed"].append(bench.drain(loop))
            assert bench.empty() == DUE
            bench.fill(DUE, "now() - n * interval '1 ms'")
            bench.execute("CHECKPOINT")
            with _consumer(broker_url, DUE) as results:
                before = time()
                bench.drain(loop)
                end, distinct = results.get(timeout=300)
                assert distinct == DUE
                rates["consumed"].append(DUE / (end - before))
            bench.execute("VACUUM jobs")
    found: dict[str, Any] = {name: round(median(values)) for name, values in rates.items()}
    found["of_raw"] = round(
        median(c / r for c, r in zip(rates["confirmed"], rates["raw"], strict=True)), 3
    )
    return {**found, "runs": {name: [round(v) for v in values] for name, values in rates.items()}}


def latency(database_url: str, broker_url: str, *, count: int = 200) -> dict[str, Any]:
    """Milliseconds from a job's time to its message at a consumer, ten jobs a second."""
    bench = Bench(database_url, broker_url)
    bench.prepare()
    bench.empty()
    with bench.loop() as loop, _consumer(broker_url, count) as results:
        bench.fill(count, "now() + interval '2 s' + n * interval '100 ms'")
        query = "SELECT id, extract(epoch FROM due_at) FROM jobs WHERE attempt = 0 AND due_at < now() + interval '1 hour'"
        with closing(psycopg2.connect(database_url)) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            due = {job: float(at) for job, at in cursor.fetchall()}
        done = 0
        while done < count:
            done += bench._tick(loop)
        came = results.get(timeout=60)
    late = sorted((at - due[job]) * 1000 for at, job in came)
    return {**_percentiles(late), "early": sum(one < 0 for one in late), "count": len(late)}


def old_snapshot(database_url: str, broker_url: str, *, count: int = DUE) -> dict[str, Any]:
    """Jobs a second to the queue without and with a transaction that has been open all the while."""
    bench = Bench(database_url, broker_url)
    bench.prepare()
    found: dict[str, Any] = {}
    with bench.loop() as loop:
        for name in ("without", "with"):
            bench.fill(2 * count, "now() - n * interval '1 ms'")
            bench.execute("VACUUM ANALYZE jobs")
            bench.execute("CHECKPOINT")
            with closing(psycopg2.connect(database_url)) as other:
                other.set_session(isolation_level="REPEATABLE READ")
                if name == "with":
                    other.cursor().execute("SELECT count(*) FROM jobs WHERE attempt < 0")
                found[name] = round(bench.drain(loop))
            bench.empty()
    return {**found, "kept": round(found["with"] / found["without"], 3)}


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {
        name: round(values[min(len(values) - 1, int(len(values) * share))], 2)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }


if __name__ == "__main__":
    asked = {"throughput": throughput, "latency": latency, "old_snapshot": old_snapshot}
    for name in islice(sys.argv, 3, None) if len(sys.argv) > 3 else asked:
        print(name, json.dumps(asked[name](sys.argv[1], sys.argv[2])), flush=True)
