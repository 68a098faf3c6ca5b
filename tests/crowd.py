"""Tables with a past and a future: a million jobs, made in seconds.

Promise: rows are copies of one that the product wrote itself, spread over the last ninety days and the
next three hundred; a finished job has its attempt and a history that breaks no promise of the records,
unless `thin`: then the history has its first and last event only, for a test that wants numbers.
Mechanism: INSERT ... SELECT, with the indexes made again behind it, as a restore does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from atemporal.calendar import rules_version
from atemporal.model import Launch, parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database

LABELS = {"team": "reports", "kind": "nightly"}
"""What every one of them is labelled with; `part` is one of a thousand."""

_SPEC = {
    "image": "registry.example.com/reports/nightly:1.4.2",
    "command": ["python", "-m", "nightly"],
    "env": {"CUSTOMER": "mi6", "OUTPUT": "s3://reports/nightly"},
    "labels": LABELS,
    "lead": 0,
    "time": "2031-01-01T00:00:00Z",
}
_LAUNCH = Launch(
    image_id="ami-0123456789abcdef0",
    instance_type="c5.large",
    subnet_id="subnet-0123456789abcdef0",
    callback_base="https://atemporal.example.com",
    key_id="k1",
    deadline_s=4000,
)
_SAMPLE = "the row that the others copy"
_TABLES = ("jobs", "attempts", "events")

# Made at `at`, as the product makes ids: the time first.
_ID = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
    || '7' || substr(r, 1, 3) || '8' || substr(r, 4, 15))::uuid"""
_ROWS = """(SELECT i, md5(i::text || random()) AS r, now() - interval '1 hour'
    - (1 - i / {count}::float) * interval '90 days' AS at
    FROM generate_series(1, {count}) AS i) AS rows"""
_PART = "jsonb_set(sample.spec, '{labels,part}', to_jsonb(mod(i, 1000)::text))"
# Ninety-seven of a hundred end well.
_OUTCOME = (
    "CASE WHEN mod(i, 100) < 97 THEN 'succeeded' WHEN mod(i, 100) < 99 THEN 'failed' "
    "ELSE 'lost' END"
)
_REASON = (
    "CASE WHEN mod(i, 100) < 97 THEN 'completed' WHEN mod(i, 100) < 99 THEN 'exit_nonzero' "
    "ELSE 'instance_lost' END"
)
_LIFE = (
    ("job.scheduled", 0),
    ("job.queued", 1),
    ("job.warming", 1),
    ("attempt.launching", 1),
    ("attempt.warming", 1),
    ("job.running", 1),
    ("attempt.running", 1),
    ("attempt.exited", 1),
    ("job.finished", 1),
    ("attempt.closed", 1),
)


_DELIVERIES = """
    INSERT INTO webhook_deliveries (webhook_id, event_id, job_id, type, at, body, next_at, dead_at)
    SELECT {webhook}, i, gen_random_uuid(), 'job.running', now(), '{{}}',
        CASE WHEN mod(i, 2) = 0 THEN now() + interval '1 hour' END,
        CASE WHEN mod(i, 2) = 1 THEN now() - i * interval '1 second' END
    FROM generate_series(1, {count}) AS i"""


def fill_deliveries(url: str, *, webhooks: int, deliveries: int) -> None:
    """Add webhooks, each with so many deliveries, half of which were given up."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for number in range(webhooks):
                cursor.execute(
                    "INSERT INTO webhooks (name, url, secret, position) VALUES (%s, %s, %s,"
                    " (SELECT max(id) FROM events)) RETURNING id",
                    (f"crowd-{number}", "https://hooks.example.com", "whsec_AAAA"),
                )
                ((webhook,),) = cursor.fetchall()
                cursor.execute(_DELIVERIES.format(webhook=f"'{webhook}'", count=deliveries))
            cursor.execute("ANALYZE webhooks, webhook_deliveries")


def fill_log_chunks(url: str, *, attempts: int, chunks: int) -> None:
    """Add chunks to the logs of so many jobs, so many each."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO log_chunks (job_id, attempt, start, data, at)"
                " SELECT id, 1, i * 100, repeat('x', 100)::bytea, now() - i * interval '1 minute'"
                f" FROM (SELECT id FROM jobs LIMIT {attempts}) AS jobs,"
                f" generate_series(0, {chunks - 1}) AS i"
            )
            cursor.execute("ANALYZE log_chunks")


def fill_costs(url: str, *, hours: int, each: int) -> None:
    """Add sums of what attempts cost: so many for each of so many hours of the past."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO costs SELECT date_trunc('hour', now(), 'UTC') - h * interval '1 hour',"
                " 'c5.large', 'on-demand', sha256(i::text::bytea),"
                " jsonb_build_object('team', 'team-' || mod(i, 9), 'part', i::text), 3, 0, 900, 1000000"
                f" FROM generate_series(1, {hours}) AS h, generate_series(1, {each}) AS i"
            )
            cursor.execute("ANALYZE costs")


def fill(url: str, *, future: int, finished: int, thin: bool = False) -> None:
    """Add so many jobs to a database that has the tables, and let the planner know of them."""
    _write_sample(url)
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor, _without_indexes(cursor):
            # What refers to what is right by the way it is made.
            cursor.execute("SET session_replication_role = replica")
            _future(cursor, future)
            _finished(cursor, finished, _LIFE[::9] if thin else _LIFE)
            for table, column in (("events", "job_id"), ("jobs", "id")):
                cursor.execute(
                    f"DELETE FROM {table} WHERE {column} = (SELECT id FROM jobs WHERE key = %s)",
                    (_SAMPLE,),
                )
        with connection.cursor() as cursor:
            for table in _TABLES:
                cursor.execute(f"VACUUM (ANALYZE) {table}")


def fill_schedules(url: str, *, schedules: int, fires: int) -> None:
    """Add recurring schedules that fire in some weeks, each with so many fires of the past."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO schedules (name, cron, zone, spec, catch_up, window_s, overlap,
                                       next_fire_at, look_at, rules_version)
                SELECT 'schedule-' || i, '0 2 * * *', 'UTC', %s, 'skip', 86400, 'skip',
                       now() + interval '30 days', now() + interval '29 days' + i * interval '1 s', %s
                FROM generate_series(1, %s) AS i
                """,
                (
                    json.dumps({"image": "docker.io/library/busybox:latest"}),
                    rules_version(),
                    schedules,
                ),
            )
            cursor.execute(
                """
                INSERT INTO fires (schedule_id, fire_time, outcome, job_id, settled)
                SELECT id, date_trunc('day', now()) - n * interval '1 hour', 'ran',
                       gen_random_uuid(), true
                FROM schedules, generate_series(1, %s) AS n
                """,
                (fires,),
            )
            for table in ("schedules", "fires"):
                cursor.execute(f"VACUUM (ANALYZE) {table}")


def fill_schedule_messages(url: str, *, messages: int) -> None:
    """Add messages about a thousand schedules, of the last ninety days; most have a serial."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO schedule_messages (key, name, serial, digest, at)
                SELECT 'message-' || i, 'schedule-' || mod(i, 1000),
                       CASE WHEN mod(i, 5) > 0 THEN i END, md5(i::text),
                       now() - interval '90 days' * i / %s
                FROM generate_series(1, %s) AS i
                """,
                (messages, messages),
            )
            cursor.execute("VACUUM (ANALYZE) schedule_messages")


def fill_dead_letters(url: str, *, letters: int) -> None:
    """Add dead letters of the last ninety days, of several queues and reasons; most were replayed."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO dead_letters (id, received_at, queue, exchange, routing_key, reason, detail,
                                          errors, deaths, properties, body, body_size, digest, state,
                                          decided_at, decided_by, replayed_at)
                SELECT {_ID}, at, 'atemporal.' || (ARRAY['submit', 'launch', 'reap'])[1 + mod(i, 3)],
                       'atemporal', 'job.submit',
                       (ARRAY['invalid', 'delivery_limit', 'expired'])[1 + mod(i, 3)], 'a: b',
                       '{{}}', '[]', '{{}}', 'x', 1, r, state,
                       CASE WHEN state <> 'kept' THEN at END,
                       CASE WHEN state <> 'kept' THEN 'test' END,
                       CASE WHEN state <> 'kept' THEN at END
                FROM {_ROWS.format(count=letters)},
                     LATERAL (SELECT CASE WHEN mod(i, 500) = 0 THEN 'kept' ELSE 'replayed' END AS state
                              WHERE i > 0) AS decided
                """
            )
            cursor.execute("VACUUM (ANALYZE) dead_letters")


def _write_sample(url: str) -> None:
    database = Database(url)
    with database.begin() as tx:
        jobs.submit(tx, [parse_spec({**_SPEC, "key": _SAMPLE})], actor="test")
    database.dispose()


def _future(cursor: Any, count: int) -> None:
    cursor.execute(
        f"""
        INSERT INTO jobs (id, key, spec, state, attempt_limit, run_at, due_at, created_at, submit_xid)
        SELECT {_ID}, 'future ' || i, {_PART}, 'scheduled', sample.attempt_limit, later, later, at, i
        FROM jobs AS sample, {_ROWS.format(count=count)},
             LATERAL (SELECT now() + interval '30 days' + random() * interval '300 days' AS later
                      WHERE i > 0) AS due
        WHERE sample.key = %s
        """,
        (_SAMPLE,),
    )


def _finished(cursor: Any, count: int, life: Sequence[tuple[str, int]]) -> None:
    cursor.execute(
        f"""
        INSERT INTO jobs (id, key, spec, state, outcome, reason, attempt, attempt_limit, run_at, due_at,
                          created_at, updated_at, finished_at, submit_xid)
        SELECT {_ID}, 'finished ' || i, {_PART}, 'finished', {_OUTCOME}, {_REASON}, 1,
               sample.attempt_limit, at, at, at, at + interval '5 min', at + interval '5 min', i
        FROM jobs AS sample, {_ROWS.format(count=count)} WHERE sample.key = %s
        """,
        (_SAMPLE,),
    )
    cursor.execute(
        """
        INSERT INTO attempts (job_id, number, state, reason, launch, instance_id, claim, exit_code,
                              created_at, called_at, launched_at, booted_at, running_at, exited_at,
                              closed_at)
        SELECT id, 1, 'closed', reason, %s, 'i-' || substr(md5(id::text), 1, 17), 'c',
               CASE reason WHEN 'completed' THEN 0 WHEN 'exit_nonzero' THEN 1 END,
               due_at, due_at, due_at + interval '2 s', due_at + interval '30 s',
               due_at + interval '60 s', finished_at, finished_at + interval '40 s'
        FROM jobs WHERE state = 'finished'
        """,
        (json.dumps(_LAUNCH.model_dump(mode="json")),),
    )
    steps = ", ".join(f"({n}, '{kind}', {attempt})" for n, (kind, attempt) in enumerate(life))
    cursor.execute(
        f"""
        INSERT INTO events (job_id, attempt, at, type, actor, relayed)
        SELECT id, step.attempt, due_at + n * interval '33 s', step.type, 'test', true
        FROM jobs CROSS JOIN (VALUES {steps}) AS step(n, type, attempt)
        WHERE state = 'finished' ORDER BY id, n
        """
    )
    cursor.execute(
        "INSERT INTO events (job_id, attempt, at, type, actor, relayed)"
        " SELECT id, 0, created_at, 'job.scheduled', 'test', true FROM jobs WHERE state = 'scheduled'"
    )


@contextmanager
def _without_indexes(cursor: Any) -> Iterator[None]:
    cursor.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid::regclass::text = ANY(%s) AND NOT EXISTS ("
        " SELECT 1 FROM pg_constraint WHERE conindid = indexrelid)",
        (list(_TABLES),),
    )
    made = cursor.fetchall()
    for name, _ in made:
        cursor.execute(f"DROP INDEX {name}")
    yield
    cursor.execute("SET maintenance_work_mem = '256MB'")
    for _, definition in made:
        cursor.execute(definition)
