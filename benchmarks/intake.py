"""How fast do messages become jobs?

`messages`: so many `job.submit`, each with a key, an environment and a `reply_to`, lie in the durable
queue. Then the scheduler's own submit loop runs until the last reply is in the asker's queue: received,
decoded, checked, written with its event, committed, acknowledged, answered.
`batch`: the same jobs by the store's submit alone, 1,000 to a transaction.
Not cheated: persistent messages in a quorum queue, there before the clock starts; an fsynced commit a
batch; every reply confirmed by the broker, and counted at the end.
"""

from __future__ import annotations

import json
import resource
import time
from contextlib import closing
from typing import Any
from uuid import uuid4

import pika

from atemporal import migrations
from atemporal.broker import Link
from atemporal.model import parse_spec
from atemporal.store import jobs
from atemporal.store.database import Database
from services.scheduler.submit import SubmitLoop

_QUEUE = "atemporal.submit"
_LIMIT_S = 240.0


def messages(database_url: str, broker_url: str, messages: int = 10_000) -> dict[str, Any]:
    """Messages a second through the running loop, replies included, and its processor time of each."""
    migrations.upgrade(database_url)
    database, link = Database(database_url), Link(broker_url, name="benchmark intake")
    link.connect()
    loop = SubmitLoop(database, link)
    with closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
        channel = connection.channel()
        replies = channel.queue_declare(f"replies-{uuid4()}", durable=True).method.queue
        _fill(broker_url, replies, messages)
        answered, used, began = 0, _cpu_s(), time.perf_counter()
        while answered < messages and time.perf_counter() - began < _LIMIT_S:
            loop.tick()
            # Asked seldom: the count is the broker's work too.
            if not channel.queue_declare(_QUEUE, passive=True).method.message_count:
                answered = channel.queue_declare(replies, passive=True).method.message_count
        seconds, cpu_s = time.perf_counter() - began, _cpu_s() - used
        channel.queue_delete(replies)
    loop.reset()
    database.dispose()
    return {
        "jobs_per_s": answered / seconds,
        "messages": messages,
        "answered": answered,
        "cpu_us_per_job": 1e6 * cpu_s / messages,
    }


def batch(database_url: str, jobs_: int = 10_000, size: int = 1_000) -> dict[str, Any]:
    """Jobs a second by the store's submit alone."""
    migrations.upgrade(database_url)
    database, name = Database(database_url), uuid4()
    specs = [parse_spec({**_job(number), "key": f"{name}/{number}"}) for number in range(jobs_)]
    began = time.perf_counter()
    for start in range(0, jobs_, size):
        with database.begin() as tx:
            jobs.submit(tx, specs[start : start + size], actor="benchmark")
    seconds = time.perf_counter() - began
    database.dispose()
    return {"jobs_per_s": jobs_ / seconds, "jobs": jobs_, "size": size}


def _job(number: int) -> dict[str, Any]:
    return {
        "image": "registry.example.com/reports/nightly:1.4.2",
        "command": ["python", "-m", "nightly", "--day", "2030-01-01"],
        "env": {"CUSTOMER": f"mi6-{number}", "OUTPUT": "s3://reports/nightly", "LEVEL": "info"},
        "labels": {"team": "reports", "kind": "nightly"},
        "time": "2036-01-01T00:00:00Z",
    }


def _fill(broker_url: str, replies: str, count: int) -> None:
    """Publish the messages and return when all are in the queue."""
    name = uuid4()
    with closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as connection:
        channel = connection.channel()
        before = channel.queue_declare(_QUEUE, passive=True).method.message_count
        for number in range(count):
            channel.basic_publish(
                "atemporal",
                "job.submit",
                json.dumps({"type": "job.submit", "v": 1, "job": _job(number)}),
                pika.BasicProperties(
                    message_id=f"{name}/{number}", delivery_mode=2, reply_to=replies
                ),
            )
        until = time.monotonic() + _LIMIT_S
        while channel.queue_declare(_QUEUE, passive=True).method.message_count < before + count:
            if time.monotonic() > until:
                raise RuntimeError("the messages did not all come into the queue")
            time.sleep(0.05)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
